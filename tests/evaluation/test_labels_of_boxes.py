"""Predictions of boxes are scored against label arrays, in the voxel size that the prediction states."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from autoseg.core.boxes import Box
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.dataset.volume_part import VolumePart
from autoseg.evaluation import evaluate_files
from autoseg.io.images import write_labels

LABELS = Labels((0, 1), ("background", "cell"), (Head("background", (0,), (0,), True), Head("cell", (1,), (1,))))
BOX = Box((2, 5, 0), (6, 15, 12))


@pytest.mark.parametrize("name", ["all", "cube"])
def test_a_box_is_scored_in_its_volume_or_alone(tmp_path, name):
    truth = (np.random.default_rng(0).random((8, 20, 20)) < 0.4).astype(np.uint8)
    with h5py.File(tmp_path / "l.h5", "w") as file:
        file["all"], file["cube"] = truth, truth[BOX.slices]
    own = truth[BOX.slices]
    predicted = own.copy()
    predicted[0] = 0
    geometry = Geometry(spacing=(4.0, 2.0, 2.0), origin=(0.0, 10.0, 8.0))  # where the box lies
    write_labels(tmp_path / "a.nii.gz", predicted, geometry)
    reference = VolumePart((), BOX, f"{tmp_path / 'l.h5'}:{name}").label_path
    assert reference is not None
    summary = evaluate_files({"a": (reference, tmp_path / "a.nii.gz")}, LABELS)
    assert not summary.faults and not summary.warnings
    scores = summary.metric_per_case[0].metrics["1"]
    assert (scores.n_ref, scores.n_pred) == (own.sum(), own[1:].sum())
    assert scores.ref_volume_mm3 == pytest.approx(own.sum() * 16)
