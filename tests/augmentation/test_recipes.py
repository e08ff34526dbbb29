"""Recipes follow the configuration, refuse nonsense, and compose the changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from autoseg.augmentation.blur import Blur
from autoseg.augmentation.brightness import Brightness
from autoseg.augmentation.contrast import Contrast
from autoseg.augmentation.gamma import Gamma
from autoseg.augmentation.low_resolution import LowResolution
from autoseg.augmentation.noise import Noise
from autoseg.augmentation.recipes import Recipe, augment_intensity, draw_warp, nnunet_recipe, no_augmentation
from autoseg.augmentation.scale import Scale
from autoseg.augmentation.warp import identity
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Configuration, Topology


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 + sample) for sample in range(n)]


def configuration(patch: tuple[int, ...], masked: tuple[bool, ...] = (False,)) -> Configuration:
    n = len(patch)
    topology = Topology(
        kind="plain", features=(4,), strides=((1,) * n,), kernels=((3,) * n,), encoder_blocks=(1,), decoder_blocks=()
    )
    return Configuration(
        name="2d", spacing=(1.0,) * n, patch_size=patch, batch_size=2, median_shape=patch, batch_dice=False,
        normalization=("zscore",) * len(masked), use_mask_for_norm=masked, topology=topology,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("patch", "degrees", "in_plane"),
    [
        ((128, 128, 128), 30, False),
        ((16, 320, 320), 180, True),
        ((40, 120, 120), 30, False),
        ((40, 121, 100), 180, True),
        ((512, 512), 180, False),
        ((300, 200), 180, False),
        ((301, 200), 15, False),
    ],
)
def test_rotation_follows_the_shape_of_the_patch(patch, degrees, in_plane):
    recipe = nnunet_recipe(configuration(patch))
    rotation, scaling = recipe.operations[:2]
    assert (rotation.degrees, rotation.in_plane, scaling.in_plane) == (degrees, in_plane, in_plane)
    assert recipe.mirror_axes == tuple(range(len(patch)))


def test_masked_channels_come_from_the_configuration():
    assert nnunet_recipe(configuration((8, 8), (True, False, True))).masked_channels == (0, 2)


@pytest.mark.parametrize(
    ("operation", "field", "value", "message"),
    [
        (Noise, "probability", 1.2, "less than or equal to 1"),
        (Scale, "factor_range", (1.4, 0.7), "expected two numbers with 0 <= low <= high"),
        (Gamma, "exponent_range", (0.0, 1.0), "expected numbers above 0"),
        (Noise, "sigma", 1, "Extra inputs are not permitted"),
    ],
)
def test_nonsense_is_refused(operation, field, value, message):
    with pytest.raises(ValidationError, match=message):
        operation(**{field: value})


def test_without_mirroring_no_axis_is_flipped_and_the_other_draws_stay():
    recipe = nnunet_recipe(configuration((8, 8)))
    assert recipe.without_mirroring().mirror_axes == ()
    for seed in range(20):
        mine, other = (
            draw_warp(one, (8, 8), np.random.default_rng(seed)) for one in (recipe, recipe.without_mirroring())
        )
        assert mine.matrix == other.matrix and not any(other.mirrors)


CHANGES = (
    Blur(probability=1, channel_probability=1), Brightness(probability=1), Contrast(probability=1),
    LowResolution(probability=1, channel_probability=1), Gamma(probability=1, inverted=True), Gamma(probability=1),
)  # fmt: skip
ALWAYS = Recipe((Noise(probability=1), *CHANGES), masked_channels=(1,))


@pytest.mark.parametrize("shape", [(12, 10), (6, 12, 10)], ids=["2d", "3d"])
def test_masked_channels_stay_zero_where_they_were_and_the_input_stays_as_it_is(shape):
    images = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(0))
    images[:, :, :3] = 0
    before = images.clone()
    changed = augment_intensity(images, ALWAYS, generators(2))
    assert torch.equal(images, before)
    assert not changed[:, 1, :3].any()
    assert changed[:, 0, :3].any()
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert (changed[:, :, 3:] != images[:, :, 3:]).float().mean() > 0.99
    assert torch.isfinite(changed).all()


def test_no_augmentation_changes_nothing():
    images = torch.randn(4, 2, 6, 6)
    assert torch.equal(augment_intensity(images, no_augmentation(), generators(4)), images)


def test_how_often_nnunets_recipe_changes_a_sample():
    """1 - (0.9 noise)(0.85 brightness)(0.85 contrast)(0.9 gamma inverted)(0.7 gamma)(1 - 0.2/2)(1 - 0.25/2)."""
    images = torch.randn(1500, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    changed = augment_intensity(images, nnunet_recipe(configuration((4, 4))), generators(1500))
    share = (changed != images).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(1 - 0.9 * 0.85 * 0.85 * 0.9 * 0.7 * 0.9 * 0.875, abs=0.04)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_parameters_are_the_same_on_a_gpu():
    images = torch.randn(8, 2, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(CHANGES, masked_channels=(1,))
    on_cpu = augment_intensity(images, recipe, generators(8))
    on_gpu = augment_intensity(images.cuda(), recipe, generators(8))
    assert torch.allclose(on_cpu, on_gpu.cpu(), atol=1e-3)


class Moves:
    """An operation of a user that returns a fixed value instead of a warp."""

    def __init__(self, result):
        self.result = result

    def warp(self, before, patch, rng):
        return self.result


class Changes:
    """An operation of a user that does with images what a function says, and returns what it returns."""

    def __init__(self, change):
        self.change = change

    def change_(self, images, generator):
        return self.change(images)


class Neither:
    probability = 1.0


def test_an_operation_that_would_be_ignored_is_refused_when_the_recipe_is_made():
    with pytest.raises(ConfigError, match=r"operation '.*:Neither': found neither warp nor change_"):
        Recipe((Noise(), Neither()))
    with pytest.raises(ConfigError, match=r"operation '.*:Noise': found a class.*Write Noise\(\)"):
        Recipe((Noise,))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "warp returned an object of NoneType"),
        (identity(2).displaced(np.zeros((6, 5), np.float32)), r"displacement of shape \(6, 5\), expected \(2, 6, 5\)"),
    ],
)
def test_an_operation_that_returns_no_warp_of_the_patch_is_named(result, message):
    with pytest.raises(ConfigError, match=f"operation '.*:Moves': .*{message}"):
        draw_warp(Recipe((Moves(result),)), (6, 5), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images * 2, "change_ returned an object of Tensor.*changed in place"),
        (lambda images: setattr(images, "data", images[:1]), "change_ changed their shape"),
        (lambda images: images.gone, r"found AttributeError.*test_recipes\.py, line \d+"),
    ],
)
def test_an_operation_that_does_not_change_images_in_place_is_named(change, message):
    with pytest.raises(ConfigError, match=f"operation '.*:Changes': .*{message}"):
        augment_intensity(torch.ones(2, 1, 4, 4), Recipe((Changes(change),)), torch.Generator())
