from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from make_sparse import balanced_offset, main, paint_values, thin

from autoseg.cli import common
from autoseg.core.dataset import Dataset
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.io.images import read_labels, write_labels


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command in this process and gives its exit code."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_sparse.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    yield call
    common.log.handlers.clear()
    common.log.propagate = True


@pytest.fixture
def dense(tmp_path):
    """A data set of two cases of 11 slices whose labels 0, 1, 2 are known in every voxel."""
    folder = tmp_path / "dense"
    geometry = Geometry(spacing=(2.0, 1.0, 1.0), origin=(3.0, 0.0, 0.0), direction=tuple(np.eye(3).ravel()))
    for number, name in enumerate(("a", "b")):
        labels = np.random.default_rng(number).integers(0, 3, (11, 4, 5), dtype=np.uint8)
        write_labels(folder / "imagesTr" / f"{name}_0000.nii.gz", labels, geometry)
        write_labels(folder / "labelsTr" / f"{name}.nii.gz", labels, geometry)
    content = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "front": 1, "back": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        "licence": "CC0",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def labels_of(folder, case):
    return read_labels(folder / "labelsTr" / f"{case}.nii.gz")


@pytest.mark.parametrize("case", ["a", "b"])
def test_annotated_slices_keep_their_labels_and_the_others_are_ignored(run, dense, tmp_path, case):
    new = tmp_path / "new"
    assert run(dense, "-o", new, "--every-nth-slice", 5, "-q") == 0

    before, geometry = labels_of(dense, case)
    after, same_geometry = labels_of(new, case)
    assert np.array_equal(after[[0, 5, 10]], before[[0, 5, 10]])
    assert (np.delete(after, [0, 5, 10], axis=0) == 3).all()
    assert not geometry.differs_from(same_geometry)


def test_the_copy_is_a_data_set_that_declares_ignore_and_links_to_the_images(run, dense, tmp_path):
    new = tmp_path / "new"
    run(dense, "-o", new, "--every-nth-slice", 4, "--axis", 1, "--offset", 3, "-q")

    copied = Dataset.load(new)
    assert copied.labels.ignore == 3
    assert copied.case_names == ("a", "b")
    assert copied.json["licence"] == "CC0"
    image = copied.case("a").images[0]
    assert image.resolve() == (dense / "imagesTr" / "a_0000.nii.gz").resolve()
    after, _ = labels_of(new, "a")
    assert (after[:, :3] == 3).all()
    assert np.array_equal(after[:, 3], labels_of(dense, "a")[0][:, 3])


def test_an_ignore_label_that_is_there_keeps_its_value(run, dense, tmp_path):
    content = json.loads((dense / "dataset.json").read_text())
    content["labels"]["ignore"] = 200
    (dense / "dataset.json").write_text(json.dumps(content))
    run(dense, "-o", tmp_path / "new", "--every-nth-slice", 2, "--copy", "-q")
    assert Dataset.load(tmp_path / "new").labels.ignore == 200
    assert labels_of(tmp_path / "new", "a")[0].max() == 200
    assert not (tmp_path / "new" / "imagesTr" / "a_0000.nii.gz").is_symlink()


@pytest.mark.parametrize(("every", "ignore"), [(5, 3), (1, None)])
def test_regions_replace_the_classes_and_leave_the_values(run, dense, tmp_path, every, ignore):
    new = tmp_path / "new"
    regions = ("--regions", "whole=1,2", "front=1")
    assert run(dense, "-o", new, "--every-nth-slice", every, *regions, "-q") == 0

    labels = Dataset.load(new).labels
    assert [(head.name, head.values) for head in labels.heads] == [("whole", (1, 2)), ("front", (1,))]
    assert labels.paint_values == (2, 1)
    assert labels.ignore == ignore
    assert np.array_equal(labels_of(new, "b")[0][5], labels_of(dense, "b")[0][5])


@pytest.mark.parametrize(
    ("n_slices", "every", "first"), [(36, 5, 0), (35, 5, 2), (40, 5, 2), (31, 10, 0), (3, 7, 1), (9, 1, 0)]
)
def test_margins_before_and_after_the_annotated_slices_differ_by_one_at_most(n_slices, every, first):
    assert balanced_offset(n_slices, every) == first
    last = range(first, n_slices, every)[-1]
    assert abs((n_slices - 1 - last) - first) <= 1


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


def test_an_axis_without_slices_is_refused():
    flat = np.zeros((1, 8, 8), np.uint16)
    with pytest.raises(ConfigError, match="case 'a': found 1 slices along axis 0"):
        thin(flat, 5, axis=0, offset=0, ignore=3, case="a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--offset", "5"), "--offset: found '5', expected auto or a number from 0 to 4"),
        (("--regions", "whole=1,x"), "--regions whole=1,x: expected a new name and label values"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(run, dense, tmp_path, capsys, arguments, message):
    assert run(dense, "-o", tmp_path / "new", "--every-nth-slice", 5, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_data_set_is_not_overwritten(run, dense, capsys):
    assert run(dense, "-o", dense, "--every-nth-slice", 5) == 2
    assert "found a data set, expected a new or unfinished one" in capsys.readouterr().err


def test_undeclared_values_do_not_turn_into_ignore(run, dense, tmp_path, capsys):
    labels, geometry = labels_of(dense, "b")
    write_labels(dense / "labelsTr" / "b.nii.gz", np.where(labels == 2, 3, labels).astype(np.uint8), geometry)
    assert run(dense, "-o", tmp_path / "new", "--every-nth-slice", 5) == 2
    assert "labels of case 'b': found values [3], expected only [0, 1, 2]" in capsys.readouterr().err
