"""Prediction, completion, review and suggestions are those of the anatomy, in any voxel order of the file."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from autoseg.assist.complete_case import complete_case
from autoseg.assist.suggest import default_patch
from autoseg.cases.case import Case
from autoseg.cases.label_codes import encode_target
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.dataset.dataset import Dataset
from autoseg.inference.box_sums import box_sums, patch_grid, slice_grid
from autoseg.inference.box_uncertainty import measure
from autoseg.inference.inputs import header_faults, header_warnings
from autoseg.inference.predictor import Predictor

SHAPE = (5, 12, 9)
LPS = Geometry(spacing=(3.0, 1.0, 1.5), origin=(1.0, 2.0, 3.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
ORDERS = [
    VoxelOrder(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]
EVERY_ORDER = pytest.mark.parametrize("order", ORDERS, ids=str)
LABELS = Dataset.from_json(
    {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "organ": 1, "ignore": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    },
    name="Toy",
    folder=None,
).labels


@pytest.fixture
def predictor(model_folder) -> Predictor:
    """A network with random weights, which sees the order of voxels very well."""
    loaded = Predictor.load(model_folder, ["0"], device="cpu")
    directed = loaded.model.plan.model_copy(update={"direction": LPS.direction})
    return replace(loaded, model=replace(loaded.model, plan=directed))


def image_of(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).normal(0, 1, (1, *SHAPE)).astype(np.float32)
    image[:, :, :2] = 0  # cropped
    return image


@pytest.mark.slow
@EVERY_ORDER
def test_predictions_are_those_of_the_same_anatomy(predictor, order):
    image = image_of()
    expected, shares = predictor.predict_probabilities(image, LPS)
    assert 0 < expected.mean() < 1
    stored = order.apply(image).copy()
    labels, probabilities = predictor.predict_probabilities(stored, order.turned(LPS, SHAPE))
    np.testing.assert_array_equal(labels, order.apply(expected))
    np.testing.assert_array_equal(probabilities, order.apply(shares))
    np.testing.assert_array_equal(predictor.predict_array(stored, order.turned(LPS, SHAPE)), labels)


@pytest.mark.slow
@EVERY_ORDER
def test_completion_and_review_are_in_the_order_of_the_file(predictor, order):
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 3, SHAPE).astype(np.uint8)
    made = {}
    for where in (VoxelOrder(), order):
        file_labels = where.apply(drawn).copy()
        case = Case("a", where.apply(image_of()).copy(), where.turned(LPS, SHAPE))
        prepared = predictor.prepare(case)
        target = encode_target(file_labels, LABELS, "a")
        done = complete_case(predictor.logits(prepared.image), prepared.record, LABELS, target, review=True)
        np.testing.assert_array_equal(done.labels[file_labels < 2], file_labels[file_labels < 2])
        places = np.zeros(file_labels.shape, np.float32)
        places[tuple(done.disputed.index.T)] = done.disputed.probability
        assert (target.codes[tuple(done.disputed.index.T)] == done.disputed.drawn).all()
        made[where] = (done.labels, done.predicted, places)
    for found, expected in zip(made[order], made[VoxelOrder()], strict=True):
        np.testing.assert_array_equal(found, order.apply(expected))


@pytest.mark.slow
@EVERY_ORDER
@pytest.mark.parametrize("by", ["slice", "patch"])
def test_suggestions_name_slices_and_boxes_of_the_file(predictor, order, by):
    drawn = np.full(SHAPE, 2, np.uint8)
    drawn[:, 3:7, 2:5] = 1
    found = {}
    for where in (VoxelOrder(), order):
        file_labels = where.apply(drawn).copy()
        shape = file_labels.shape
        case = Case("a", where.apply(image_of()).copy(), where.turned(LPS, SHAPE))
        prepared = predictor.prepare(case)
        grid = slice_grid(shape, where.axes.index(0)) if by == "slice" else patch_grid(shape, where.permuted((2, 5, 4)))
        target = encode_target(file_labels, LABELS, "a")
        found[where] = measure(predictor.logits(prepared.image), prepared.record, LABELS, target, grid)
    (boxes, maps), (expected, expected_maps) = found[order], found[VoxelOrder()]
    for name in ("entropy", "labels", "is_open"):
        np.testing.assert_array_equal(getattr(maps, name), order.apply(getattr(expected_maps, name)))
    # the sums of a box are those of its voxels, in the file's own axes
    from_maps = box_sums(maps.entropy[None].astype(np.float64) / 255, boxes.grid)[0]
    np.testing.assert_allclose(boxes.entropy, from_maps, atol=0.004 * np.prod(boxes.grid.edges))
    if by == "slice":
        np.testing.assert_allclose(boxes.entropy, order.apply(expected.entropy), rtol=1e-5, atol=1e-5)


@EVERY_ORDER
def test_checks_of_a_file_look_at_its_axes_after_turning(predictor, order):
    plan, configuration = predictor.model.plan, predictor.model.configuration
    shape, geometry = (1, *order.permuted(SHAPE)), order.turned(LPS, SHAPE)
    assert header_faults("x", shape, geometry, plan, configuration) == ()
    assert header_warnings(shape, geometry, plan, configuration, 2) == ()
    wrong = geometry.model_copy(update={"spacing": order.permuted((3000.0, 1.0, 1.5))})
    (fault,) = header_faults("x", shape, wrong, plan, configuration)
    expected = " x ".join(f"{edge:g}" for edge in order.permuted((2, 1, 1)))
    assert f"expected about {expected} mm" in str(fault)
    assert default_patch(geometry, plan, configuration) == order.permuted(default_patch(LPS, plan, configuration))


def test_a_file_that_does_not_say_how_its_axes_lie_is_named(predictor):
    plan, configuration = predictor.model.plan, predictor.model.configuration
    silent = Geometry(spacing=(3.0, 1.0, 1.5))
    (warning,) = header_warnings((1, *SHAPE), silent, plan, configuration, 2)
    assert "found no direction of the axes" in warning
    assert "(LPS)" in warning
