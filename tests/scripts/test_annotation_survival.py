"""Annotated voxels that survive each stage, counted by hand and on whole data sets."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
from annotation_survival import main, spaced
from survival_stages import NnunetRule, Tally, found_near
from survival_table import ANY, as_json, as_markdown
from toy import write_toy_dataset

from autoseg.cli import common
from autoseg.core.errors import AutosegError


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command in this process and gives its exit code and output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["annotation_survival.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code, capsys.readouterr()

    yield call
    common.log.handlers.clear()
    common.log.setLevel(logging.NOTSET)
    common.log.propagate = True


@pytest.mark.parametrize("shape", [(1, 48, 44), (12, 40, 36)], ids=["2d", "3d"])
def test_scribbles_survive_here_and_are_lost_there(run, tmp_path, shape):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=2, shape=shape)
    code, out = run(folder, "--cases", 2, "--patches", 6, "--coarser", 1.6, "--json", "-q")
    assert code == 0, out.err
    rows = {(row["stage"], row["class"]): row for row in json.loads(out.out)}
    stages = [stage for stage, head in rows if head is None]
    assert stages[:3] == ["resampling to the plan's grid", "annotated mm3 after resampling", "rotated or scaled patch"]
    assert len(stages) > 3
    for stage in ("resampling to the plan's grid", "rotated or scaled patch"):
        for head in ("background", "bright", "brighter", None):
            assert rows[stage, head]["autoseg_share"] >= 0.97
    for stage in stages[3:]:
        assert rows[stage, None]["autoseg_share"] == 1
        assert rows[stage, None]["nnunet_share"] <= 1
    assert min(rows[stage, None]["nnunet_share"] for stage in stages[3:]) < 0.9


def test_the_table_is_markdown(run, tmp_path):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=1, shape=(1, 40, 36), sparse=False)
    code, out = run(folder, "--patches", 2)
    assert code == 0, out.err
    lines = out.out.splitlines()
    assert lines[0] == "| stage | all classes | background | bright | brighter |"
    assert lines[1] == "| --- | --- | --- | --- | --- |"
    assert lines[2].startswith("| resampling to the plan's grid | **100.0** / 100.0 |")
    assert "nnU-Net by its rules" in out.err


def test_what_nnunet_cannot_say_is_refused(run, tmp_path):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=1)
    content = json.loads((folder / "dataset.json").read_text())
    content["cases"] = {"toy_000": {"absent": ["bright"]}}
    (folder / "dataset.json").write_text(json.dumps(content))
    code, out = run(folder)
    assert code == 2
    assert "statements about cases, which nnU-Net does not have" in out.err


def test_an_interpreter_without_nnunet_is_refused(run, tmp_path):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=1)
    code, out = run(folder, "--nnunet-python", sys.executable, "-q")
    assert code == 2
    assert "found no interpreter with nnunetv2" in out.err
    with pytest.raises(AutosegError, match=r"(?s)nnU-Net failed to downsample:.*No module named"):
        NnunetRule(Path(sys.executable)).downsample(np.zeros((1, 4, 4), np.uint8), [(2, 2)])


def test_cases_are_evenly_spaced():
    assert spaced(40, 3) == [0, 20, 39]
    assert spaced(2, 5) == [0, 1]


def test_a_class_is_found_less_than_a_voxel_away():
    moved = np.array([[1, 3, 3], [3, 3, 2]])
    places = np.array([[0.9, 0.9], [0.0, 1.0], [0.2, 1.3], [1.0, 1.5]])
    assert found_near(places, moved, np.array([1, 1, 2, 2])).tolist() == [True, False, True, True]


def test_the_rule_of_nnunet_takes_the_middle_voxel_of_a_cell():
    patches = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    half, quarter = NnunetRule(None).downsample(patches, [(2, 2), (4, 4)])
    assert half.tolist() == [[[5, 7], [13, 15]]]
    assert quarter.tolist() == [[[10]]]


def test_counts_add_up():
    tally = Tally()
    tally.add("s", np.array([0, 0, 2]), np.array([True, True, True]), np.array([True, False, False]))
    tally.add("s", np.array([2]), np.array([False]), np.array([True]))
    tally.add_sizes("mm3", 2.0, 3.0, 1.0)
    assert {key: row.tolist() for key, row in tally.counts["s"].items()} == {ANY: [4, 3, 2], 0: [2, 2, 1], 2: [2, 1, 1]}
    rows = as_json(tally.counts, ["bg", "rim", "core"])
    assert [(row["class"], row["autoseg_share"], row["nnunet_share"]) for row in rows] == [
        (None, 0.75, 0.5), ("bg", 1.0, 0.5), ("core", 0.5, 0.5), (None, 1.5, 0.5),
    ]  # fmt: skip
    assert as_markdown(tally.counts, ["bg", "rim", "core"]).splitlines()[2:] == [
        "| s | **75.0** / 50.0 | **100.0** / 50.0 | **50.0** / 50.0 |",
        "| mm3 | **150.0** / 50.0 |  |  |",
    ]
