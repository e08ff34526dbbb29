"""The sparse copy of a data set with boxes of a volume names them where they lie, beside cases with files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.simulation.styles import Style
from autoseg.simulation.write import finish, plan_simulation, write_cases

SHAPE = (6, 20, 24)
IMAGE = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.uint8)
LABELS = (IMAGE > 120).astype(np.uint8)
SPANS = [[1, 5], [0, 20], [4, 20]]


def written(folder: Path, *, with_files: bool, **entry: object) -> Dataset:
    folder.mkdir()
    np.save(folder / "v.npy", IMAGE)
    np.save(folder / "l.npy", LABELS)
    (folder / "v.json").write_text('{"spacing": [3, 1, 1]}')
    content = {
        "channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1},
        "boxes": {
            "box": {"image": "v.npy", "box": SPANS, "label": "l.npy", **entry},
            "all": {"image": "v.npy", "label": "l.npy"},
        },
    }  # fmt: skip
    if with_files:
        content["file_ending"] = ".nii.gz"
        for name, array in (("imagesTr/file_0000", IMAGE), ("labelsTr/file", LABELS)):
            (folder / name).parent.mkdir()
            write_labels(folder / f"{name}.nii.gz", array, Geometry(spacing=(3, 1, 1)))
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@pytest.mark.parametrize("with_files", [False, True])
def test_a_sparse_copy_is_a_data_set_of_the_same_boxes(tmp_path, with_files):
    source = written(tmp_path / "dense", with_files=with_files)
    simulation = plan_simulation(source, Style(slices=0.5))
    write_cases(simulation, tmp_path / "sparse")
    copy = finish(simulation, tmp_path / "sparse", {})
    assert copy.case_names == source.case_names
    assert not check_dataset(copy).faults
    for case in copy.cases:
        before, of_source = source.case(case.name), case.volume
        assert (of_source is None) == (before.volume is None)
        assert of_source is None or (of_source.box, of_source.images) == (before.volume.box, before.volume.images)
        drawn, truth = read_labels(case.label)[0], read_labels(before.label)[0]
        is_known = drawn != copy.labels.ignore
        assert drawn.shape == truth.shape and 0 < is_known.sum() < is_known.size
        assert np.array_equal(drawn[is_known], truth[is_known])


def test_a_box_with_a_mask_is_not_dense(tmp_path):
    source = written(tmp_path / "dense", with_files=False, valid_mask="l.npy")
    with pytest.raises(DatasetError, match="boxes: found partial labels"):
        plan_simulation(source, Style(slices=0.5))
