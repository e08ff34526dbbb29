"""The command prints what it scored, names what it could not, and says so with its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.cli import common
from autoseg.cli.evaluate_folder import evaluate_folder
from autoseg.core.geometry import Geometry
from autoseg.io.images import write_labels

CONTENT = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "a [left]": 1, "b": 2, "ignore": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    geometry = Geometry(spacing=(2.0, 1.0, 1.0))
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        write_labels(tmp_path / "labelsTr" / f"{name}.nii.gz", rng.integers(0, 4, (3, 6, 5)).astype(np.uint8), geometry)
        write_labels(tmp_path / "pred" / f"{name}.nii.gz", rng.integers(0, 3, (3, 6, 5)).astype(np.uint8), geometry)
    (tmp_path / "dataset.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    return tmp_path / "labelsTr", tmp_path / "pred"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as leave:
        common.run(evaluate_folder, argv=[*map(str, arguments), "-j", "1"])
    return int(leave.value.code or 0)


def test_a_table_and_the_files_are_written(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*folders, "-d", tmp_path / "dataset.json", "-o", tmp_path / "s.json", "--csv", tmp_path / "s.csv") == 0
    out = capsys.readouterr().out
    for words in (
        "2 cases, scored on annotated voxels only",
        "Dice (annotated",
        "95 %",
        "a [left] 1",
        "foreground mean",
    ):
        assert words in out
    assert json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["n_cases"] == 2
    assert len((tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()) == 5


def test_json_on_stdout_is_the_summary(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*folders, "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folders[1] / "summary.json").read_text(encoding="utf-8"))


def test_a_missing_prediction_is_a_warning_and_strict_an_error(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[1] / "two.nii.gz").unlink()
    assert run(*folders, "--strict") == 2
    assert not (folders[1] / "summary.json").exists()
    assert "missing predictions: no prediction of 'two'" in capsys.readouterr().err
    assert run(*folders) == 0
    assert "warning: missing predictions: no prediction of 'two'" in capsys.readouterr().err


def test_a_case_that_cannot_be_scored_makes_the_exit_code_1(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(folders[1] / "two.nii.gz", np.zeros((3, 5, 5), dtype=np.uint8), Geometry(spacing=(2.0, 1.0, 1.0)))
    assert run(*folders) == 1
    captured = capsys.readouterr()
    assert "found shape (3, 5, 5), expected (3, 6, 5)" in captured.err
    assert "1 of the cases could not be scored" in captured.err
    assert "1 case, scored" in captured.out


def test_a_wrong_folder_is_the_users_mistake(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folders[0], folders[0].parent / "nowhere") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err


def test_dense_and_sparse_cases_have_tables_of_their_own(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(folders[0] / "two.nii.gz", np.ones((3, 6, 5), dtype=np.uint8), Geometry(spacing=(2.0, 1.0, 1.0)))
    assert run(*folders) == 0
    out = capsys.readouterr().out
    for words in ("1 case, scored on dense references", "1 case, scored on annotated voxels only", "lowest Dice"):
        assert words in out


def test_what_is_not_scored_and_what_is_absent_is_said(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = CONTENT | {"cases": {"one": {"absent": ["b"]}}}
    (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    for name in ("one", "two"):
        write_labels(
            folders[0] / f"{name}.nii.gz", np.ones((3, 6, 5), dtype=np.uint8), Geometry(spacing=(2.0, 1.0, 1.0))
        )
    assert run(*folders) == 0
    out = capsys.readouterr().out
    assert "not scored: b: no voxel of it in the references of the 2 cases" in out
    assert "declares absent" in out
    assert list(json.loads((folders[1] / "summary.json").read_text(encoding="utf-8"))["not_scored"]) == ["2"]


def test_the_difference_to_other_predictions_is_shown(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labels(
        tmp_path / "other" / "one.nii.gz", np.zeros((3, 6, 5), dtype=np.uint8), Geometry(spacing=(2.0, 1.0, 1.0))
    )
    assert run(*folders, "--against", tmp_path / "other") == 0
    captured = capsys.readouterr()
    assert f"compared with {tmp_path / 'other'}:" in captured.out
    assert "difference, the same 1 case" in captured.out
    assert "not clear" in captured.out
    assert "warning: --against: cases in one folder only are not compared: two." in captured.err


def test_volumes_of_small_voxels_are_not_printed_as_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((3, 6, 5), dtype=np.uint8)
    labels[:2, 0, 0] = 1
    for folder in ("labelsTr", "pred"):
        write_labels(tmp_path / folder / "one.nii.gz", labels, Geometry(spacing=(0.02, 0.01, 0.01)))
    (tmp_path / "dataset.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    assert run(tmp_path / "labelsTr", tmp_path / "pred", "-d", tmp_path / "dataset.json") == 0
    assert capsys.readouterr().out.count("4e-06") == 2  # 2 voxels of 0.02 x 0.01 x 0.01 mm
