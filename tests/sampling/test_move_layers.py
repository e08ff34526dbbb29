"""Layers go the way of the image into patches and batches, each by the rule of its kind."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.augmentation.warp import identity
from autoseg.cases.layers import Kind, LayerInfo, classes_layer
from autoseg.cases.store import ArrayStore, CaseSource
from autoseg.core.errors import CacheError
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.input_channels import CHANNELS, with_channels
from autoseg.sampling.loader import make_loader
from autoseg.sampling.move_layers import MOVE
from autoseg.sampling.patches import Place, draw_place, read_cutout
from autoseg.sampling.places import Aim

SHAPE = (9, 30, 26)
PATCHES = pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16), (14, 40, 40)], ids=["2d", "3d", "larger than it"])
LAYERS = (
    LayerInfo(name="other_target", kind=Kind.LABEL_SETS, dtype="uint8", undrawn=3, outside=3),
    LayerInfo(name="cells", kind=Kind.INSTANCES, dtype="uint32", outside=7),
    LayerInfo(name="twin", kind=Kind.INTENSITY, dtype="float32", outside=-5),
    classes_layer("previous", 3),
)
WILD = moving(180, (0.5, 2.0))


def blocks():
    codes = np.zeros(SHAPE, np.uint8)
    codes[:, 10:20, 5:15], codes[3:, 15:, 12:] = 1, 2
    return codes


@pytest.fixture
def case(write):
    """A case whose layers all show the same three blocks."""
    cached = write("a", blocks(), image=blocks()[None] + np.float32(1))
    layers = {
        "other_target": blocks(), "cells": blocks().astype(np.uint32) * 100_000 + 8,
        "twin": np.concatenate([cached.image, 2 * cached.image]), "previous": blocks(),
    }  # fmt: skip
    entry = cached.entry.model_copy(update={"layers": LAYERS})
    return ArrayStore(cached.image, cached.codes, cached.locations, entry, layers)


def test_every_kind_has_a_rule():
    assert set(MOVE) == set(Kind)


@PATCHES
@pytest.mark.parametrize("in_plane", [False, True], ids=["", "in plane"])
def test_all_layers_stay_aligned_under_any_transform(case, patch, in_plane):
    recipe = moving(180, (0.5, 2.0), in_plane=in_plane and len(patch) == 3)
    for seed in range(12):
        place = draw_place(Aim(None, 2), case, patch, recipe, np.random.default_rng(seed))
        sample = read_cutout(case, place, patch, unknown=3, outside=3, layers=LAYERS).moved()
        moved = sample.layers
        dense = read_cutout(case, place, patch, unknown=3, outside=0).moved()
        assert torch.equal(moved["other_target"], sample.codes)
        assert torch.equal(moved["previous"], dense.codes)
        uniform = (sample.image[0] - sample.codes.float() - 1).abs() < 1e-4  # all voxels around are of one block
        assert uniform.float().mean() > 0.02
        assert torch.equal((moved["cells"] - 8)[uniform] // 100_000, sample.codes[uniform].int())
        assert torch.allclose(moved["twin"][0][uniform], sample.image[0][uniform], atol=1e-3)
        assert torch.allclose(moved["twin"][1][uniform], 2 * sample.image[0][uniform], atol=1e-3)


@PATCHES
@pytest.mark.parametrize("recipe", [None, WILD], ids=["plain", "moved"])
def test_outside_every_layer_has_its_own_value(case, patch, recipe):
    warp = identity(len(patch)) if recipe is None else None
    place = draw_place(Aim(None, 0), case, patch, recipe, np.random.default_rng(3))
    far = tuple(centre + 500 for centre in place.centre)
    place = Place(far, warp or place.warp, place.slice_index)
    sample = read_cutout(case, place, patch, unknown=3, outside=3, layers=LAYERS).moved()
    for info in LAYERS:
        assert (sample.layers[info.name] == info.outside).all(), info.name


@PATCHES
def test_ids_are_never_mixed(case, patch):
    ids = np.random.default_rng(2).integers(10, 2**31 - 1, SHAPE).astype(np.uint32)
    noisy = replace(case, layers={**case.layers, "cells": ids})
    allowed = torch.tensor([7, *np.unique(ids).tolist()], dtype=torch.int32)
    for seed in range(5):
        place = draw_place(Aim(None, 1), noisy, patch, WILD, np.random.default_rng(seed))
        moved = read_cutout(noisy, place, patch, unknown=3, outside=3, layers=LAYERS[1:2]).moved().layers["cells"]
        assert moved.dtype == torch.int32 and torch.isin(moved, allowed).all()


def batches_of(case, configuration, labels, **options):
    sources = [CaseSource(partial(_itself, case), "a")]
    return list(
        make_loader(sources, configuration, SamplingConfig(), WILD, labels=labels, start=0, stop=3, seed=4, **options)
    )


def _itself(case):
    return case


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16)], ids=["2d", "3d"])
def test_the_network_sees_the_classes_of_the_previous_stage(case, make_configuration, make_labels, patch):
    alone = make_configuration(patch)
    cascade = alone.model_copy(update={"previous_stage": "3d_lowres"})
    for plain, batch in zip(*(batches_of(case, each, make_labels(3)) for each in (alone, cascade)), strict=True):
        assert torch.equal(plain.images, batch.images) and torch.equal(plain.codes, batch.codes)
        assert plain.network_input is plain.images and plain.layers == {}
        classes = batch.layers["previous"]
        assert classes.shape == batch.codes.shape and classes.dtype == torch.uint8
        assert batch.network_input.shape == (2, 3, *patch) and batch.network_input.dtype == torch.float32
        assert torch.equal(batch.network_input[:, :1], batch.images)
        assert torch.equal(batch.network_input[:, 1:], torch.stack([classes == 1, classes == 2], dim=1).float())
        assert torch.equal(batch.to("cpu").network_input, batch.network_input)


def test_a_layer_that_is_asked_for_is_in_the_batch_and_not_in_the_input(case, make_configuration, make_labels):
    (first, *_) = batches_of(case, make_configuration((8, 16, 16)), make_labels(3), layers=LAYERS[1:3])
    assert set(first.layers) == {"cells", "twin"} and first.layers["twin"].shape == (2, 2, 8, 16, 16)
    assert first.network_input is first.images


def test_a_case_without_the_layer_is_named(write, make_configuration, make_labels):
    cascade = make_configuration((8, 16, 16)).model_copy(update={"previous_stage": "3d_lowres"})
    cached = write("plain", blocks())
    with pytest.raises(CacheError, match="case plain: layer 'previous'"):
        list(
            make_loader(
                [cached.source], cascade, SamplingConfig(), None, labels=make_labels(3), start=0, stop=1, seed=0
            )
        )


def test_ids_and_codes_are_no_input():
    assert set(CHANNELS) == {Kind.INTENSITY, Kind.CLASSES}
    images = torch.zeros(1, 1, 4, 4)
    with pytest.raises(KeyError):
        with_channels(images, {"cells": torch.zeros(1, 4, 4)}, LAYERS[1:2])
