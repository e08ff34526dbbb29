"""Folders are matched by case name; whatever cannot be compared is named, the rest is scored."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.core.errors import DatasetError, EvaluationError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.evaluation import evaluate_folder, label_boxes
from autoseg.io.images import read_labels, write_labels

CONTENT = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
GEOMETRY = Geometry(spacing=(2.5, 1.0, 0.5))


def volume(seed: int, n_values: int, shape: tuple[int, int, int] = (3, 6, 5)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n_values, size=shape).astype(np.uint8)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two sparse references and two predictions."""
    reference, predictions = tmp_path / "labelsTr", tmp_path / "predictions"
    for index, name in enumerate(("one", "two")):
        write_labels(reference / f"{name}.nii.gz", volume(index, 4), GEOMETRY)
        write_labels(predictions / f"{name}.nii.gz", volume(10 + index, 3), GEOMETRY)
    return reference, predictions


def test_counts_and_volumes_come_from_the_files(folders: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int, str]] = []
    summary = evaluate_folder(*folders, CONTENT, progress=lambda *step: seen.append(step))
    assert [case.case for case in summary.metric_per_case] == ["one", "two"]
    reference, prediction = volume(0, 4), volume(10, 3)
    metrics = summary.metric_per_case[0].metrics["1"]
    decided = reference != 3
    assert np.sum((reference == 1) & (prediction == 1)) == metrics.TP
    assert np.sum((reference != 1) & (prediction == 1) & decided) == metrics.FP
    assert np.sum((reference == 1) & (prediction != 1)) == metrics.FN
    assert np.sum((reference != 1) & (prediction != 1) & decided) == metrics.TN
    assert metrics.ref_volume_mm3 == pytest.approx(1.25 * np.sum(reference == 1))
    assert summary.metric_per_case[0].reference_file == str(folders[0] / "one.nii.gz")
    assert summary.scored_on == "annotated voxels"
    assert seen == [(1, 2, "one"), (2, 2, "two")]


@pytest.mark.slow
def test_workers_give_the_same_summary(folders: tuple[Path, Path]) -> None:
    assert evaluate_folder(*folders, CONTENT, workers=2) == evaluate_folder(*folders, CONTENT)


def test_the_data_set_may_be_given_in_any_form(folders: tuple[Path, Path], tmp_path: Path) -> None:
    expected = evaluate_folder(*folders, Dataset.from_json(CONTENT, name="x", folder=None))
    (tmp_path / "dataset.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    assert evaluate_folder(*folders, tmp_path / "dataset.json") == expected
    assert evaluate_folder(*folders, str(tmp_path)) == expected
    assert evaluate_folder(*folders) == expected  # found in the parent of the references


def test_the_nearest_dataset_json_is_found(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"dataset.json.*found none in .*predictions, .*labelsTr.* with -d"):
        evaluate_folder(*folders)
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    (folders[1] / "dataset.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    assert evaluate_folder(*folders).n_cases == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no valid JSON"), ("[]", "expected a JSON object"), ('{"labels": {}}', "file_ending")],
)
def test_a_wrong_dataset_json_is_named(folders: tuple[Path, Path], tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        evaluate_folder(*folders, tmp_path / "wrong.json")


def test_missing_and_extra_predictions_are_named_and_not_scored(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    (predictions / "two.nii.gz").rename(predictions / "three.nii.gz")
    summary = evaluate_folder(reference, predictions, CONTENT)
    assert (summary.n_cases, summary.missing, summary.extra) == (1, ("two",), ("three",))
    with pytest.raises(EvaluationError) as caught:
        evaluate_folder(reference, predictions, CONTENT, strict=True)
    first, second = str(caught.value).splitlines()
    assert first.startswith("missing predictions: no prediction of 'two'")
    assert second.startswith("extra predictions: no reference of 'three'")


def test_only_the_chosen_cases_are_expected(folders: tuple[Path, Path]) -> None:
    summary = evaluate_folder(*folders, CONTENT, cases=["two"], strict=True)
    assert (summary.n_cases, summary.missing, summary.extra) == (1, (), ())
    with pytest.raises(EvaluationError, match=r"labelsTr: no reference of \['nine'\]"):
        evaluate_folder(*folders, CONTENT, cases=["one", "nine"])


def test_a_misshapen_prediction_is_named_with_both_shapes(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    write_labels(predictions / "two.nii.gz", volume(0, 3, (3, 5, 6)), GEOMETRY)
    summary = evaluate_folder(reference, predictions, CONTENT)
    assert summary.n_cases == 1
    (fault,) = summary.faults
    assert "prediction of case 'two'" in fault
    assert "found shape (3, 5, 6), expected (3, 6, 5) (z, y, x)" in fault


@pytest.mark.parametrize(
    ("change", "actual", "expected"),
    [
        ({"spacing": (2.5, 1.0, 0.6)}, "spacing (2.5, 1, 0.6)", "spacing (2.5, 1, 0.5)"),
        ({"origin": (5.0, 0.0, 0.0)}, "origin (5, 0, 0)", "origin (0, 0, 0)"),
        (
            {"direction": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)},
            "direction (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)",
            "direction (1, 0, 0, 0, 1, 0, 0, 0, 1)",
        ),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "origin (-2, -5, 0)", "origin (0, 0, 0)"),
    ],
    ids=["spacing", "origin", "oblique", "turned about the first voxel"],
)
def test_a_prediction_on_another_grid_is_a_fault(
    folders: tuple[Path, Path], change: dict[str, tuple[float, ...]], actual: str, expected: str
) -> None:
    reference, predictions = folders
    write_labels(predictions / "two.nii.gz", volume(11, 3), GEOMETRY.model_copy(update=change))
    summary = evaluate_folder(reference, predictions, CONTENT)
    assert (summary.n_cases, summary.warnings) == (1, ())
    (fault,) = summary.faults
    assert "prediction of case 'two'" in fault
    assert actual in fault
    assert expected in fault
    with pytest.raises(EvaluationError, match="It is not scored: resample it"):
        evaluate_folder(reference, predictions, CONTENT, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)])
def test_the_same_voxels_in_another_order_are_scored_alike(
    tmp_path: Path, ending: str, direction: tuple[float, ...]
) -> None:
    geometry = Geometry(spacing=(2.5, 1.0, 0.5), origin=(3.0, -4.0, 5.0), direction=direction)
    truth, prediction = volume(0, 4), volume(10, 3)
    content = CONTENT | {"file_ending": ending}
    orders = [
        VoxelOrder(axes, flips)
        for axes in itertools.permutations(range(3))
        for flips in itertools.product((False, True), repeat=3)
    ]
    for number, order in enumerate(orders):
        write_labels(tmp_path / "truth" / f"{number}{ending}", truth, geometry)
        turned = order.turned(geometry, truth.shape)
        write_labels(tmp_path / "turned" / f"{number}{ending}", order.apply(prediction).copy(), turned)
        write_labels(tmp_path / "plain" / f"{number}{ending}", prediction, geometry)
    actual, expected = (evaluate_folder(tmp_path / "truth", tmp_path / name, content) for name in ("turned", "plain"))
    assert (actual.faults, actual.warnings, actual.n_cases) == ((), (), 48)
    for mine, theirs in zip(actual.metric_per_case, expected.metric_per_case, strict=True):
        assert mine.metrics == theirs.metrics


def test_files_that_do_not_say_how_their_axes_lie_are_compared_as_they_are(tmp_path: Path) -> None:
    geometry = Geometry(spacing=(2.5, 1.0, 0.5), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    write_labels(tmp_path / "r" / "x.nii.gz", volume(0, 4), geometry)
    write_labels(tmp_path / "p" / "x.tif", volume(10, 3), geometry)
    write_labels(tmp_path / "q" / "x.nii.gz", volume(10, 3), geometry)
    arrays, files = (evaluate_folder(tmp_path / "r", tmp_path / name, CONTENT) for name in "pq")
    assert arrays.metric_per_case[0].metrics == files.metric_per_case[0].metrics


def test_strict_reports_everything_at_once(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    write_labels(reference / "three.nii.gz", volume(0, 4), GEOMETRY)
    write_labels(predictions / "one.nii.gz", volume(0, 3, (2, 6, 5)), GEOMETRY)
    write_labels(predictions / "two.nii.gz", volume(1, 4), GEOMETRY)
    write_labels(predictions / "four.nii.gz", volume(0, 3), GEOMETRY)
    with pytest.raises(EvaluationError) as caught:
        evaluate_folder(reference, predictions, CONTENT, strict=True)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for words, line in zip(("'three'", "'four'", "'one'", "the ignore value"), lines, strict=True):
        assert words in line


def test_an_unreadable_file_does_not_stop_the_others(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    damaged = (predictions / "one.nii.gz").read_bytes()
    (predictions / "one.nii.gz").write_bytes(damaged[: len(damaged) // 2])
    summary = evaluate_folder(reference, predictions, CONTENT)
    assert [case.case for case in summary.metric_per_case] == ["two"]
    assert "one.nii.gz" in summary.faults[0]


def test_nothing_to_score_is_an_error(folders: tuple[Path, Path], tmp_path: Path) -> None:
    reference, predictions = folders
    for name in ("one", "two"):
        (predictions / f"{name}.nii.gz").rename(predictions / f"{name}_0000.nii.gz")
    with pytest.raises(EvaluationError, match="missing predictions: no prediction of 'one', 'two'"):
        evaluate_folder(reference, predictions, CONTENT)
    with pytest.raises(EvaluationError, match="nowhere: no such folder"):
        evaluate_folder(reference, tmp_path / "nowhere", CONTENT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"empty: found no label map"):
        evaluate_folder(tmp_path / "empty", predictions, CONTENT)


def test_long_lists_of_names_are_shortened(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    for index in range(60):
        (reference / f"case_{index:02d}.nii.gz").touch()
    with pytest.raises(EvaluationError, match=r"'case_49' and 10 more"):
        evaluate_folder(reference, predictions, CONTENT, strict=True)


def test_another_ending_is_accepted_if_there_is_only_one(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    expected = evaluate_folder(reference, predictions, CONTENT)
    (predictions / "summary.json").write_text("{}", encoding="utf-8")
    (predictions / ".1.tmp.one.nii.gz").touch()
    for index, name in enumerate(("one", "two")):
        (predictions / f"{name}.nii.gz").unlink()
        write_labels(predictions / f"{name}.nrrd", volume(10 + index, 3), GEOMETRY)
    assert evaluate_folder(reference, predictions, CONTENT).mean == expected.mean
    write_labels(predictions / "one.mha", volume(10, 3), GEOMETRY)
    with pytest.raises(EvaluationError, match=r"files of several kinds \(.mha, .nrrd\)"):
        evaluate_folder(reference, predictions, CONTENT)


def test_pictures_are_scored_by_area(tmp_path: Path) -> None:
    geometry = Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2)
    content = CONTENT | {"file_ending": ".png", "labels": {"background": 0, "a": 1, "ignore": 255}}
    reference = np.array([[[0, 1, 255], [1, 1, 255]]], dtype=np.uint8)
    prediction = np.array([[[0, 1, 1], [0, 1, 0]]], dtype=np.uint8)
    write_labels(tmp_path / "r" / "x.png", reference, geometry)
    write_labels(tmp_path / "p" / "x.png", prediction, geometry)
    metrics = evaluate_folder(tmp_path / "r", tmp_path / "p", content).metric_per_case[0].metrics["1"]
    assert (metrics.TP, metrics.FP, metrics.FN, metrics.TN) == (2, 0, 1, 1)
    assert (metrics.ref_volume_mm3, metrics.Dice) == (3.0, 0.8)


def test_statements_of_a_case_are_honoured(folders: tuple[Path, Path]) -> None:
    content = CONTENT | {"cases": {"one": {"absent": ["b"]}}}
    reference = np.where(volume(0, 4) == 2, 3, volume(0, 4)).astype(np.uint8)
    write_labels(folders[0] / "one.nii.gz", reference, GEOMETRY)
    summary = evaluate_folder(*folders, content)
    wrong = int(np.sum(volume(10, 3) == 2))
    assert summary.metric_per_case[0].absent["2"].voxels == wrong
    assert summary.absent["2"].mean_volume_mm3 == pytest.approx(1.25 * wrong)
    assert summary.warnings == ()


def test_a_reference_that_shows_an_absent_class_is_named(folders: tuple[Path, Path]) -> None:
    content = CONTENT | {"cases": {"one": {"absent": ["b"]}}}
    (warning,) = evaluate_folder(*folders, content).warnings
    assert "reference of case 'one'" in warning
    assert "found voxels of b, expected none" in warning and "cases.one.absent" in warning
    with pytest.raises(EvaluationError, match=r"cases\.one\.absent"):
        evaluate_folder(*folders, content, strict=True)


def test_complete_references_of_partly_annotated_cases_are_noticed(folders: tuple[Path, Path]) -> None:
    content = CONTENT | {"cases": {name: {"annotated": ["a"]} for name in ("one", "two")}}
    (note,) = evaluate_folder(*folders, content, strict=True).warnings
    assert "references of 'one', 'two'" in note and "'annotated'" in note
    assert "score them with a dataset.json without cases" in note


def test_the_valid_mask_of_the_data_sets_own_references_is_honoured(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Other references of the same cases, here in another folder, have no mask."""
    (tmp_path / "dataset.json").write_text(json.dumps(CONTENT | {"valid_mask_folder": "masksTr"}), encoding="utf-8")
    mask = volume(5, 2)
    for name in ("one", "two"):
        write_labels(tmp_path / "masksTr" / f"{name}.nii.gz", mask, GEOMETRY)
    metrics = evaluate_folder(*folders, tmp_path).metric_per_case[0].metrics["1"]
    assert metrics.n_decided == np.sum((volume(0, 4) != 3) & (mask > 0))
    for name in ("one", "two"):
        write_labels(tmp_path / "labelsTr_dense" / f"{name}.nii.gz", volume(0, 3), GEOMETRY)
    assert evaluate_folder(tmp_path / "labelsTr_dense", folders[1], tmp_path).scored_on == "dense"


def test_other_predictions_of_the_same_cases_are_subtracted(folders: tuple[Path, Path], tmp_path: Path) -> None:
    reference, predictions = folders
    for index, name in enumerate(("one", "two")):
        better = np.where(volume(index, 4) == 3, 0, volume(index, 4)).astype(np.uint8)
        write_labels(tmp_path / "better" / f"{name}.nii.gz", better, GEOMETRY)
    alone = evaluate_folder(reference, predictions, CONTENT)
    summary = evaluate_folder(reference, predictions, CONTENT, against=tmp_path / "better")
    comparison = summary.comparison
    assert comparison is not None
    assert summary.model_copy(update={"comparison": None}) == alone
    difference = comparison.groups["annotated voxels"].foreground_mean
    assert difference.mean == pytest.approx((alone.foreground_mean["Dice"] or 0) - 1)
    assert difference.interval is not None
    assert difference.interval[1] < 0
    (tmp_path / "better" / "two.nii.gz").unlink()
    with pytest.raises(EvaluationError, match="missing predictions: no prediction of 'two'"):
        evaluate_folder(reference, predictions, CONTENT, against=tmp_path / "better", strict=True)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_other_predictions_may_lack_cases_and_be_broken_on_their_own(
    folders: tuple[Path, Path], tmp_path: Path, workers: int
) -> None:
    reference, predictions = folders
    write_labels(reference / "three.nii.gz", volume(2, 4), GEOMETRY)
    write_labels(tmp_path / "other" / "three.nii.gz", volume(12, 3), GEOMETRY)
    write_labels(tmp_path / "other" / "two.nii.gz", volume(11, 3), GEOMETRY)
    (tmp_path / "other" / "one.nii.gz").write_bytes(b"broken")
    alone = evaluate_folder(reference, predictions, CONTENT)
    summary = evaluate_folder(reference, predictions, CONTENT, against=tmp_path / "other", workers=workers)
    assert summary.model_copy(update={"comparison": None}) == alone
    assert summary.faults == ()
    assert summary.comparison is not None
    assert (summary.comparison.n_cases, summary.comparison.left_out) == (1, ("one", "three"))


@pytest.mark.parametrize("against", [False, True])
def test_every_file_is_read_once(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, against: bool
) -> None:
    reference, predictions = folders
    shutil.copytree(predictions, tmp_path / "other")
    read: list[Path] = []

    def reading(path: Path, **options: bool) -> object:
        read.append(path)
        return read_labels(path, **options)

    monkeypatch.setattr(label_boxes, "read_labels", reading)
    evaluate_folder(reference, predictions, CONTENT, against=tmp_path / "other" if against else None)
    assert len(read) == len(set(read)) == (6 if against else 4)


def test_real_scribbles_agree_with_the_dense_labels(real_data: Path) -> None:
    folder = real_data / "Dataset027_ACDC"
    cases = [f"patient00{number}_frame01" for number in (1, 2)]
    sparse, dense = (
        evaluate_folder(folder / references, folder / "labelsTr", folder / "dataset_scribble.json", cases=cases)
        for references in ("labelsTr_scribble", "labelsTr")
    )
    assert (sparse.scored_on, dense.scored_on) == ("annotated voxels", "dense")
    assert 0.005 < sparse.decided_fraction < 0.02
    assert 0.98 < (sparse.foreground_mean["Dice"] or 0) < (dense.foreground_mean["Dice"] or 0) == 1


def test_every_reference_is_scored_or_named(folders: tuple[Path, Path]) -> None:
    """Links without a target, other kinds of files, endings in upper case, undecided references: all are named."""
    reference, predictions = folders
    for folder in folders:
        (folder / "two.nii.gz").rename(folder / "two.NII.GZ")
        write_labels(folder / "nrrd.nrrd", volume(3, 3), GEOMETRY)
        write_labels(folder / "open.nii.gz", np.full((4, 5, 6), 3 if folder == reference else 0, np.uint8), GEOMETRY)
    write_labels(predictions / "linked.nii.gz", volume(3, 3), GEOMETRY)
    (reference / "linked.nii.gz").symlink_to(reference / "gone.nii.gz")
    write_labels(reference / "lost.nii.gz", volume(3, 3), GEOMETRY)
    (predictions / "lost.nii.gz").symlink_to(predictions / "gone.nii.gz")
    shape = volume(0, 3).shape
    write_labels(reference / "open.nii.gz", np.full(shape, 3, np.uint8), GEOMETRY)
    write_labels(predictions / "open.nii.gz", np.zeros(shape, np.uint8), GEOMETRY)
    summary = evaluate_folder(reference, predictions, CONTENT)
    assert [case.case for case in summary.metric_per_case] == ["nrrd", "one", "two"]
    assert len(summary.faults) == 3
    for case in ("linked", "lost", "open"):
        assert any(case in fault for fault in summary.faults)
    assert any("no annotated voxel of any class" in fault for fault in summary.faults)


def test_one_file_given_as_folder_is_told_its_folder(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    with pytest.raises(EvaluationError, match=rf"one.nii.gz: found a file.* {predictions};"):
        evaluate_folder(reference, predictions / "one.nii.gz", CONTENT)


def test_two_files_of_one_case_are_no_choice_of_ours(folders: tuple[Path, Path]) -> None:
    reference, predictions = folders
    (predictions / "one.NII.gz").touch()
    with pytest.raises(EvaluationError, match=r"for the case 'one', expected one file"):
        evaluate_folder(reference, predictions, CONTENT)
