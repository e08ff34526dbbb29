"""Observers of a prediction: what they get, and that the labels do not depend on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from observing import Recorder
from test_export import CLASSES, EVERY_RECORD, REGIONS, in_slabs, smooth_logits
from test_window import configuration
from torch import nn

from autoseg.cases.case import Case
from autoseg.core.geometry import Geometry
from autoseg.inference import Predictor
from autoseg.inference.export import decide, probabilities
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.window import stream_logits
from autoseg.preprocessing import restore

GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))


def inside(case):
    return restore(np.ones(case.shape_after_crop, bool), case)


@EVERY_RECORD
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("slab_values", [700, 2**23])
def test_observers_get_mean_and_members_of_every_plane_in_order(case, labels, slab_values):
    members = [smooth_logits(case.shape, labels.n_heads, seed) for seed in (1, 2, 3)]
    mean = np.mean(members, axis=0, dtype=np.float32)
    stacked, recorder = np.concatenate([mean, *members]), Recorder(needs_members=True)
    plain = decide(in_slabs(mean, 2), case, labels, slab_values=slab_values)
    observed = decide(in_slabs(stacked, 2), case, labels, observers=[recorder], n_members=3, slab_values=slab_values)
    np.testing.assert_array_equal(observed, plain)
    where = inside(case)
    np.testing.assert_array_equal(restore(recorder.values, case)[where], plain[where])
    expected = probabilities(mean, case, labels)[:, where]
    np.testing.assert_allclose(restore(recorder.probabilities, case)[:, where], expected, rtol=1e-4, atol=1e-5)
    for own, logits in zip(recorder.members, members, strict=True):
        expected = probabilities(logits, case, labels)[:, where]
        np.testing.assert_allclose(restore(own, case)[:, where], expected, rtol=1e-4, atol=1e-5)


def group_of(*predictors):
    return PredictorGroup(predictors)


def networks(n_dims, n_members=3):
    torch.manual_seed(0)
    kind = nn.Conv2d if n_dims == 2 else nn.Conv3d
    return [kind(1, 2, 3, padding=1).requires_grad_(False) for _ in range(n_members)]


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("slab_values", [1, 900, 2**23])
def test_the_mean_of_separate_members_is_the_mean_bit_for_bit(n_dims, slab_values):
    image = np.random.default_rng(0).normal(size=(1, 13, 14, 11)).astype(np.float32)
    settings = configuration((4, 8, 8)[-n_dims:])
    both, options = networks(n_dims), {"mirror_axes": tuple(range(n_dims)), "slab_values": slab_values}
    plain = list(stream_logits(both, image, settings, **options))
    separate = list(stream_logits(both, image, settings, separate=True, **options))
    assert [first for first, _ in plain] == [first for first, _ in separate]
    for (_, mean), (_, stacked) in zip(plain, separate, strict=True):
        np.testing.assert_array_equal(stacked[:2], mean)
    each = np.concatenate([stacked[2:] for _, stacked in separate], axis=1)
    for index, network in enumerate(both):
        alone = np.concatenate([slab for _, slab in stream_logits(network, image, settings, **options)], axis=1)
        np.testing.assert_allclose(each[2 * index : 2 * index + 2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fast", [False, True], ids=["all windows", "fast"])
def test_labels_do_not_change_because_a_prediction_is_observed(model_folder, fast):
    case = Case("x", np.random.default_rng(0).uniform(1, 200, size=(1, 21, 23, 20)).astype(np.float32), GEOMETRY)
    predictor = replace(Predictor.load(model_folder, device="cpu", fast=fast), autocast_dtype=None)
    group, recorders = group_of(predictor), (Recorder(needs_members=True), Recorder(needs_members=False))
    prepared = group.prepare(case)
    with ThreadPoolExecutor(1) as pool:
        observed = group.label_map(prepared, observers=recorders, pool=pool)
    np.testing.assert_array_equal(observed, predictor.predict_case(case))
    assert len(np.unique(observed)) == 2
    for recorder in recorders:
        np.testing.assert_array_equal(restore(recorder.values, prepared.record), observed)
        assert len(recorder.members) == 2  # as soon as one observer needs them, all have them


@pytest.mark.parametrize("fold", ["0", "1"])
def test_the_only_member_is_the_mean(model_folder, fold):
    case = Case("x", np.random.default_rng(0).uniform(1, 200, size=(1, 9, 10, 8)).astype(np.float32), GEOMETRY)
    predictor, recorder = group_of(Predictor.load(model_folder, [fold], "cpu")), Recorder(needs_members=True)
    predictor.label_map(predictor.prepare(case), observers=[recorder])
    (only,) = recorder.members
    np.testing.assert_array_equal(only, recorder.probabilities)


def test_members_are_not_computed_if_no_observer_needs_them(model_folder):
    case = Case("x", np.random.default_rng(0).uniform(1, 200, size=(1, 9, 10, 8)).astype(np.float32), GEOMETRY)
    predictor, recorder = group_of(Predictor.load(model_folder, device="cpu")), Recorder(needs_members=False)
    predictor.label_map(predictor.prepare(case), observers=[recorder])
    assert recorder.members == []
    assert recorder.probabilities.shape == (predictor.dataset.labels.n_heads, 9, 10, 8)
    assert predictor.member_kind == "folds"
