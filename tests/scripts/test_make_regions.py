from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from make_regions import main, paint_values

from autoseg.cli import common
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels

REGIONS = ("--regions", "whole=1,2", "front=1")


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command in this process and gives its exit code."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_regions.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    yield call
    common.log.handlers.clear()
    common.log.propagate = True


@pytest.fixture
def source(tmp_path):
    """A data set of two cases with the labels 0, 1, 2 and an ignore label."""
    folder = tmp_path / "classes"
    geometry = Geometry(spacing=(2.0, 1.0, 1.0), origin=(3.0, 0.0, 0.0))
    for number, name in enumerate(("a", "b")):
        labels = np.random.default_rng(number).choice([0, 1, 2, 200], (5, 4, 5)).astype(np.uint8)
        write_labels(folder / "imagesTr" / f"{name}_0000.nii.gz", labels, geometry)
        write_labels(folder / "labelsTr" / f"{name}.nii.gz", labels, geometry)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "front": 1, "back": 2, "ignore": 200},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("copy", [False, True])
def test_regions_replace_the_classes_and_the_files_stay(run, source, tmp_path, copy):
    new = tmp_path / "new"
    assert run(source, "-o", new, *REGIONS, "-q", *(["--copy"] if copy else [])) == 0

    made = Dataset.load(new)
    assert [(head.name, head.values) for head in made.labels.heads] == [("whole", (1, 2)), ("front", (1,))]
    assert made.labels.paint_values == (2, 1)
    assert made.labels.ignore == 200
    assert made.json["licence"] == "CC0"
    for case in Dataset.load(source).cases:
        for before, after in (
            (case.label, made.case(case.name).label),
            (case.images[0], made.case(case.name).images[0]),
        ):
            assert np.array_equal(read_labels(before)[0], read_labels(after)[0])
            assert after.is_symlink() is not copy


def test_every_value_can_be_painted_from_the_regions():
    regions = {"whole": (1, 2, 3), "core": (2, 3), "active": (3,)}
    assert paint_values(regions, [1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({"front": (1,), "whole": (1, 2)}, "label value 1 painted as 2"),
        ({"front": (1,)}, "label value 2 in no region"),
        ({"whole": (1, 2, 7), "front": (1,)}, r"found \[7\], expected label values"),
    ],
)
def test_regions_that_lose_a_value_are_refused(regions, message):
    with pytest.raises(ConfigError, match=message):
        paint_values(regions, [1, 2])


def test_a_malformed_region_is_named_and_nothing_is_written(run, source, tmp_path, capsys):
    assert run(source, "-o", tmp_path / "new", "--regions", "whole=1,x") == 2
    assert "--regions whole=1,x: expected a new name and label values" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_what_is_said_of_single_cases_is_not_lost_silently(run, source, tmp_path, capsys):
    content = json.loads((source / "dataset.json").read_text())
    content["cases"] = {"a": {"annotated": ["front"]}}
    (source / "dataset.json").write_text(json.dumps(content))
    assert run(source, "-o", tmp_path / "new", *REGIONS) == 2
    assert "found cases in its dataset.json, expected labels only" in capsys.readouterr().err


def test_a_data_set_is_not_overwritten(run, source, capsys):
    assert run(source, "-o", source, *REGIONS) == 2
    assert "found a data set, expected a new folder" in capsys.readouterr().err
