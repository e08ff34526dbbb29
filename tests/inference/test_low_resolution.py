"""A fast prediction is the one without mirrored copies and with wide steps, where windows have foreground nearby."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_stream import Counting
from test_window import DIMENSIONS, Fixed, configuration, convolution, random_image

from autoseg.cases.case import Case
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor, predict_logits
from autoseg.inference.low_resolution import low_resolution_factors, select_windows
from autoseg.inference.predictor import FAST_STEP
from autoseg.inference.window import (
    WindowSelection,
    gaussian_profile,
    join_slabs,
    stream_logits,
    volume_grid,
    window_shape,
)
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic

ISOTROPIC = Geometry(spacing=(1.0, 1.0, 1.0))


def labels_of(labels, **content):
    return Dataset.from_json(
        {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **content}, name="toy", folder=None
    ).labels


CLASSES = Semantic(labels_of({"background": 0, "organ": 1}))
REGIONS = Regions(labels_of({"background": 0, "organ": [1, 2], "core": 2}, regions_class_order=[1, 2]))


def with_object(shape=(40, 40, 40), where=(slice(4, 12),) * 3, value=200.0):
    image = np.random.default_rng(0).uniform(1, 20, size=(1, *shape)).astype(np.float32)
    image[0][where] = value
    return image


@pytest.fixture
def predictors(threshold_predictor):
    """Return a slow predictor without mirrored copies and with wide steps, and the fast one; both count windows."""
    loaded = threshold_predictor(spacing=(1.0, 1.0, 1.0))

    def counting(**settings):
        network = Counting(loaded.model.networks[0])
        return replace(loaded, model=replace(loaded.model, networks=(network,)), mirror=False, **settings), network

    return counting(step=FAST_STEP), counting(step=FAST_STEP, leaves_out_windows=True)


@DIMENSIONS
def test_a_selection_of_all_windows_changes_no_bit(shape, patch):
    settings, image = configuration(patch), random_image(shape)
    network = convolution(len(patch), 3)
    everything = WindowSelection(tuple(volume_grid(shape, patch, 0.5).corners()), torch.zeros(3))
    selected = join_slabs(stream_logits(network, image, settings, selection=everything), shape[0])
    assert np.array_equal(selected, predict_logits(network, image, settings))


@DIMENSIONS
@pytest.mark.parametrize("slab_values", [1, 10**9])
def test_selected_windows_are_averaged_and_other_voxels_have_the_given_logits(shape, patch, slab_values):
    settings, image = configuration(patch), random_image(shape)
    network = convolution(len(patch), 3)
    corners = tuple(volume_grid(shape, patch, 0.5).corners())[1::3]
    elsewhere = torch.tensor([3.0, -1.0, 0.5])
    selection = WindowSelection(corners, elsewhere)
    slabs = stream_logits(network, image, settings, selection=selection, slab_values=slab_values)
    result = join_slabs(slabs, shape[0])

    z, y, x = (gaussian_profile(edge).numpy() for edge in window_shape(patch))
    weights = z[:, None, None] * y[:, None] * x
    sums, total = np.zeros((3, *shape)), np.zeros(shape)
    for corner in corners:
        window = tuple(slice(first, first + edge) for first, edge in zip(corner, weights.shape, strict=True))
        patch_image = torch.from_numpy(image[(slice(None), *window)].copy()).reshape(1, 2, *patch)
        sums[(slice(None), *window)] += weights * network(patch_image).reshape(3, *weights.shape).numpy()
        total[window] += weights
    covered = total > 0
    assert covered.any()
    assert not covered.all()
    np.testing.assert_allclose(result[:, covered], sums[:, covered] / total[covered], rtol=1e-4, atol=1e-5)
    assert (result[:, ~covered] == elsewhere.numpy()[:, None]).all()


def test_fast_is_slow_where_windows_are_left_out(predictors, caplog):
    (slow, slow_network), (fast, fast_network) = predictors
    image = with_object()
    with caplog.at_level(logging.INFO, logger="autoseg"):
        labels = fast.predict_case(Case("one", image, ISOTROPIC))
    assert np.array_equal(labels, slow.predict_array(image, ISOTROPIC))
    assert np.array_equal(labels > 0, image[0] > 100)
    assert fast_network.n_patches < slow_network.n_patches / 2
    assert "case one: " in caplog.text
    assert "windows left out" in caplog.text


def test_fast_is_exactly_slow_where_all_windows_have_foreground(predictors):
    (slow, _), (fast, _) = predictors
    image = np.random.default_rng(0).uniform(90, 130, size=(1, 40, 40, 40)).astype(np.float32)
    assert np.array_equal(fast.logits(image), slow.logits(image))


def test_an_empty_image_is_background_after_all_windows_were_predicted(predictors, caplog):
    (slow, slow_network), (fast, fast_network) = predictors
    image = np.random.default_rng(0).uniform(0, 20, size=(1, 40, 40, 40)).astype(np.float32)
    with caplog.at_level(logging.INFO, logger="autoseg"):
        assert not fast.predict_array(image, ISOTROPIC).any()
    assert not slow.predict_array(image, ISOTROPIC).any()
    assert fast_network.n_patches > slow_network.n_patches
    assert "windows predicted (not recognised coarsely: organ)" in caplog.text


def test_probabilities_of_left_out_windows_are_those_of_background(predictors):
    (slow, _), (fast, _) = predictors
    image = with_object()
    labels, probabilities = fast.predict_probabilities(image, ISOTROPIC)
    exact = slow.predict_probabilities(image, ISOTROPIC)[1]
    assert np.array_equal(labels, probabilities.argmax(axis=0))
    np.testing.assert_allclose(probabilities, exact, atol=1e-3)


@pytest.mark.parametrize("value", [0.3, 0.01])
def test_an_uncertain_voxel_keeps_the_windows_around_it(value):
    settings, shape = configuration((8, 8, 8)), (40, 40, 40)
    grid = volume_grid(shape, (8, 8, 8), 0.5)
    logits = np.zeros((2, 20, 20, 20), dtype=np.float32)
    logits[0] = 10
    logits[:, 2, 2, 2] = (0, 5)  # recognised there, voxels 4 and 5 of the image
    logits[:, 15, 15, 15] = (0, np.log(value / (1 - value)))  # voxels 30 and 31
    selection = select_windows(
        np.zeros((1, *shape), np.float32), settings, CLASSES, 0.5, lambda _: [(0, logits)], case="one"
    )
    for corner in grid.corners():
        near = [all(first - 1 <= high and low <= first + 8 for first in corner) for low, high in ((4, 5), (30, 31))]
        assert (corner in selection.corners) == (near[0] or (near[1] and value > 0.05)), corner


@pytest.mark.parametrize("task", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_voxels_that_no_window_covers_are_background(task):
    generator = np.random.default_rng(0)
    n_outputs = len(task.outputs)
    logits = generator.normal(-6, 0.5, size=(n_outputs, 20, 20, 20)).astype(np.float32)
    if task.is_exclusive:
        logits[0] = generator.normal(3, 1, size=(20, 20, 20))
    logits[-1, 2, 2, 2] = logits[1 if task.is_exclusive else 0, 2, 2, 2] = 8
    image, settings = np.zeros((1, 40, 40, 40), np.float32), configuration((8, 8, 8))
    selection = select_windows(image, settings, task, 0.5, lambda _: [(0, logits)], case="one")
    assert len(selection.corners) == 2**3
    assert not task.decode(selection.elsewhere.numpy()[:, None, None, None]).any()


class OwnTask:
    """A task of a user: everything of the semantic one, but another type."""

    def __getattr__(self, name):
        return getattr(CLASSES, name)


@pytest.mark.parametrize(
    ("task", "change", "shape", "reason"),
    [
        (OwnTask(), {}, (40, 40, 40), "OwnTask is neither a task of classes nor of regions"),
        (CLASSES, {"patch_size": (8, 8), "spacing": (1.0, 1.0)}, (9, 80, 80), "(slices)"),
        (CLASSES, {"previous_stage": "3d_lowres"}, (40, 40, 40), "second stage of a cascade"),
        (CLASSES, {}, (9, 8, 8), "a low-resolution pass would need 1"),
    ],
)
def test_there_is_no_low_resolution_pass_where_it_is_not_safe_or_does_not_pay(task, change, shape, reason, caplog):
    settings = configuration((8, 8, 8)).model_copy(update=change)
    image = np.zeros((1, *shape), np.float32)

    def predict(_):
        raise AssertionError

    with caplog.at_level(logging.DEBUG, logger="autoseg"):
        assert select_windows(image, settings, task, 0.5, predict, case="one") is None
    assert reason in caplog.text


def test_a_class_that_is_not_recognised_keeps_all_windows():
    labels = labels_of({"background": 0, "large": 1, "small": 2})
    predict = Fixed(5.0, 6.0, 1.0)
    selection = select_windows(
        np.zeros((1, 40, 40, 40), np.float32), configuration((8, 8, 8)), Semantic(labels), 0.5,
        lambda image: [(0, predict(image[None])[0].numpy().repeat(1, axis=0))], case="one",
    )  # fmt: skip
    assert selection is None


@pytest.mark.parametrize(
    ("spacing", "factors"),
    [((1.0, 1.0, 1.0), (2, 2, 2)), ((5.0, 1.5, 1.5), (1, 2, 2)), ((1.9, 1.0, 1.0), (2, 2, 2)), ((0.7, 0.7), (1, 2, 2))],
)
def test_only_the_fine_axes_become_coarser(spacing, factors):
    settings = configuration((8,) * len(spacing)).model_copy(update={"spacing": spacing})
    assert low_resolution_factors(settings) == factors


def test_without_fast_nothing_is_changed(model_folder):
    image = random_image((20, 20, 20), n_channels=1)
    predictor = Predictor.load(model_folder, device="cpu")
    assert (predictor.mirror, predictor.step, predictor.leaves_out_windows) == (True, 0.5, False)
    expected = predict_logits(
        predictor.model.networks, image, predictor.model.configuration, mirror_axes=predictor.model.mirror_axes,
        step=0.5, autocast_dtype=predictor.autocast_dtype,
    )  # fmt: skip
    assert np.array_equal(predictor.logits(image), expected)


@pytest.mark.parametrize("step", [None, 0.6])
def test_fast_takes_wide_steps_unless_they_are_given_and_never_mirrors(model_folder, step):
    predictor = Predictor.load(model_folder, device="cpu", mirror=True, step=step, fast=True)
    assert (predictor.mirror, predictor.step, predictor.leaves_out_windows) == (False, step or 0.75, True)
