"""Scribbles survive between voxels that nobody drew, also where a class is said to be absent there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autoseg.cases.cache import open_case
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import write_labels
from autoseg.preprocessing.keep_small_annotation import find_survivors
from autoseg.preprocessing.read_case import read_case
from autoseg.preprocessing.runner import preprocess_dataset

IGNORE = 3


def write_dataset(folder, shape, cases):
    """Write one case "a": a diagonal scribble each of classes 0 and 1, one voxel wide, the rest ignored."""
    labels = np.full(shape, IGNORE, np.uint8)
    steps = np.arange(shape[1] - 4)
    labels[:, steps + 2, steps], labels[:, steps, steps + 4] = 0, 1
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir(parents=True)
    image = np.random.default_rng(0).integers(1, 200, shape).astype(np.uint8)
    flat = shape[0] == 1
    geometry = Geometry(spacing=(999.0 if flat else 1.0, 1.0, 1.0), ndim=2 if flat else 3)
    ending = ".png" if flat else ".nii.gz"
    write_labels(folder / "imagesTr" / f"a_0000{ending}", image, geometry)
    write_labels(folder / "labelsTr" / f"a{ending}", labels, geometry)
    content = {
        "channel_names": {"0": "MR"}, "labels": {"background": 0, "front": 1, "back": 2, "ignore": IGNORE},
        "numTraining": 1, "file_ending": ending, "cases": cases,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder), labels


@pytest.mark.parametrize("cases", [{}, {"a": {"absent": ["back"]}}], ids=["ignored", "absent"])
@pytest.mark.parametrize("shape", [(1, 24, 28), (4, 24, 28)], ids=["2d", "3d"])
def test_scribbles_survive_coarser_grids(tmp_path, make_plan, shape, cases):
    dataset, labels = write_dataset(tmp_path / "raw", shape, cases)
    name = "2d" if shape[0] == 1 else "3d_fullres"
    plan = make_plan(spacing=(1.0, 2.0, 2.0))
    report = preprocess_dataset(dataset, plan, name, tmp_path / "cache")
    assert not report.failed
    case = open_case(tmp_path / "cache", "a")
    assert case.codes.shape[1:] == (12, 14)
    code = case.entry.undrawn
    assert code == (dataset.labels.unknown if not cases else dataset.labels.unknown + 1)
    voxels, kept = find_survivors(np.where(labels == IGNORE, code, labels), case.codes, code)
    assert len(voxels) == (labels != IGNORE).sum() and kept.all()
    assert {(0,), (1,)} <= {case.entry.label_sets[code] for code in case.entry.code_counts}


def test_where_a_single_class_is_left_nothing_counts_as_unannotated(tmp_path):
    dataset, _ = write_dataset(tmp_path / "raw", (2, 8, 9), {"a": {"absent": ["front", "back"]}})
    case = read_case(dataset.cases[0], dataset.labels)
    assert case.target.undrawn == dataset.labels.unknown
