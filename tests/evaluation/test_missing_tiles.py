"""Missing tiles of an image do not count in the scores of a validation, whatever is predicted there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.core.boxes import Box
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import CaseStatement, Labels
from autoseg.evaluation import evaluate_files, evaluate_numbers, label_boxes
from autoseg.evaluation.postprocessing_effects import ScoredFiles, measure_effects
from autoseg.io.images import write_labels, write_values

SHAPE, MISSING = (2, 8, 12), Box((1, 0, 6), (2, 4, 12))
SOLID, FLAT = Geometry(spacing=(2.0, 1.0, 0.5)), Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2)
CONTENT = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".nii.gz"}
PART = Box((0, 2, 3), SHAPE)
"""A case that is a box of the image."""


@pytest.fixture
def image(tmp_path) -> Path:
    """A volume of tiles, one of which is missing: ``MISSING``."""
    paths = [f"tiles/s{z}_{{row}}_{{column}}.png" for z in range(2)]
    tiles = {"depth": 2, "height": 8, "width": 12, "tile_size": [4, 6], "spacing": SOLID.spacing, "image": paths}
    (tmp_path / "image.json").write_text(json.dumps(tiles))
    for z, y, x in np.ndindex(2, 2, 2):
        if (z, y, x) != (1, 0, 1):
            write_labels(tmp_path / f"tiles/s{z}_{y}_{x}.png", np.full((1, 4, 6), 9, np.uint8), FLAT)
    return tmp_path / "image.json"


def labels() -> Labels:
    return Dataset.from_json(CONTENT, name="toy", folder=None).labels


def maps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a reference, a prediction, and one that differs from it in the missing tile alone."""
    rng = np.random.default_rng(0)
    reference, prediction = (rng.integers(0, 3, SHAPE).astype(np.uint8) for _ in range(2))
    other = prediction.copy()
    other[MISSING.slices] = (other[MISSING.slices] + 1) % 3
    return reference, prediction, other


@pytest.mark.parametrize("part", [Box.whole(SHAPE), PART], ids=["all", "box"])
def test_what_is_predicted_in_a_missing_tile_does_not_count(image, monkeypatch, part):
    for name, values in zip(("r", "p", "q"), maps(), strict=True):
        write_labels(image.parent / f"{name}.nii.gz", values[part.slices], SOLID)
    reference, *predictions = (image.parent / f"{name}.nii.gz" for name in "rpq")
    location = image if part == Box.whole(SHAPE) else Path(f"{image}{part}")
    for n_voxels in (2**22, 20):
        monkeypatch.setattr(label_boxes, "BOX_VOXELS", n_voxels)
        found = [
            evaluate_files({"c": (reference, path)}, labels(), images={"c": (location,)}).metric_per_case[0]
            for path in predictions
        ]
        assert found[0].metrics == found[1].metrics
        known = np.ones(SHAPE, dtype=bool)
        known[MISSING.slices] = False
        own, predicted, _ = (values[part.slices] for values in maps())
        assert np.sum((predicted == 1) & (own != 1) & known[part.slices]) == found[0].metrics["1"].FP
        assert found[0].metrics["1"].n_decided == known[part.slices].sum()
        assert found[0].scored_on == {"1": "annotated voxels", "2": "annotated voxels"}


def test_not_even_a_class_that_is_absent_counts_there(image):
    """Elsewhere it is a false alarm, whether or not a voxel is annotated."""
    absent = replace(labels(), statements={"c": CaseStatement(absent=frozenset({2}))})
    reference, prediction, other = maps()
    reference[reference == 2] = 0
    mask = (np.random.default_rng(1).random(SHAPE) < 0.5).astype(np.uint8)
    for name, values in {"r": reference, "p": prediction, "q": other, "m": mask}.items():
        write_labels(image.parent / f"{name}.nii.gz", values, SOLID)
    pairs = [(image.parent / "r.nii.gz", image.parent / f"{name}.nii.gz") for name in "pq"]
    masks = {"c": image.parent / "m.nii.gz"}
    found = [
        evaluate_files({"c": pair}, absent, masks=masks, images={"c": (image,)}).metric_per_case[0] for pair in pairs
    ]
    assert found[0].metrics == found[1].metrics and found[0].absent == found[1].absent
    known = np.ones(SHAPE, dtype=bool)
    known[MISSING.slices] = False
    assert found[0].absent["2"].voxels == np.sum((prediction == 2) & known)
    assert found[0].metrics["1"].n_decided == np.sum(known & (mask > 0))


def test_without_the_image_the_reference_alone_decides(image):
    reference, prediction, _ = maps()
    write_labels(image.parent / "r.nii.gz", reference, SOLID)
    write_labels(image.parent / "p.nii.gz", prediction, SOLID)
    summary = evaluate_files({"c": (image.parent / "r.nii.gz", image.parent / "p.nii.gz")}, labels())
    assert summary.scored_on == "dense" and summary.metric_per_case[0].metrics["1"].n_decided == reference.size


def test_effects_of_postprocessing_do_not_count_there_either(image):
    for name, values in zip(("r", "p", "q"), maps(), strict=True):
        write_labels(image.parent / f"{name}.nii.gz", values, SOLID)
    files = [
        ScoredFiles("c", image.parent / "r.nii.gz", image.parent / f"{name}.nii.gz", images=(image,)) for name in "pq"
    ]
    first, second = measure_effects(files, labels(), (), ())
    for counts, others in zip(first.counts, second.counts, strict=True):
        np.testing.assert_array_equal(counts, others)
    assert not first.is_dense.any()


def test_numbers_there_are_not_compared(image):
    content = {**CONTENT, "task": "regression", "targets": ["depth"]}
    del content["labels"]
    of_numbers = Dataset.from_json(content, name="toy", folder=None).labels
    for name, values in zip(("r", "p", "q"), maps(), strict=True):
        write_values(image.parent / f"{name}.nii.gz", values[None].astype(np.float32), SOLID)
    found = [
        evaluate_numbers(
            {"c": (image.parent / "r.nii.gz", image.parent / f"{name}.nii.gz")}, of_numbers, images={"c": (image,)}
        ).metric_per_case[0]
        for name in "pq"
    ]
    assert found[0].metrics == found[1].metrics
    assert found[0].metrics["depth"].n_known == np.prod(SHAPE) - MISSING.n_voxels
