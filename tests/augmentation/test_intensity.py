"""Intensity changes: who is chosen, hand-computed effects, moments, and what must not change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autoseg.augmentation.blur import Blur, kernel_length
from autoseg.augmentation.brightness import Brightness
from autoseg.augmentation.contrast import Contrast
from autoseg.augmentation.draws import draw_factor
from autoseg.augmentation.gamma import Gamma
from autoseg.augmentation.low_resolution import LowResolution
from autoseg.augmentation.noise import Noise

SHAPES = pytest.mark.parametrize("shape", [(12, 10), (6, 12, 10)], ids=["2d", "3d"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generators(n: int = 3) -> list[torch.Generator]:
    return [generator(seed) for seed in range(n)]


def batch(shape: tuple[int, ...], samples: int = 3, channels: int = 2) -> torch.Tensor:
    return torch.randn(samples, channels, *shape, generator=generator(7))


@pytest.mark.parametrize(
    ("change", "channel_share"),
    [
        (lambda x, g: Noise(probability=0.3, sigma_range=(0.05, 0.1)).change_(x, g), 1.0),
        (lambda x, g: Blur(probability=0.3, channel_probability=0.5, sigma_range=(0.5, 1.0)).change_(x, g), 0.5),
        (lambda x, g: Brightness(probability=0.3, factor_range=(0.75, 1.25)).change_(x, g), 1.0),
        (lambda x, g: Contrast(probability=0.3, factor_range=(0.75, 1.25)).change_(x, g), 1.0),
        (
            lambda x, g: LowResolution(probability=0.3, channel_probability=0.5, scale_range=(0.5, 0.7)).change_(x, g),
            0.5,
        ),
        (lambda x, g: Gamma(probability=0.3, exponent_range=(0.7, 1.5), inverted=False).change_(x, g), 1.0),
    ],
    ids=["noise", "blur", "brightness", "contrast", "low resolution", "gamma"],
)
def test_samples_and_channels_are_chosen_with_their_probabilities(change, channel_share):
    images = batch((5, 5), samples=800)
    changed = images.clone()
    change(changed, generators(800))
    touched = (changed != images).flatten(2).any(2)
    share_of_samples = 1 - (1 - channel_share) ** 2
    assert touched.any(1).float().mean().item() == pytest.approx(0.3 * share_of_samples, abs=0.05)
    assert touched[touched.any(1)].float().mean().item() == pytest.approx(channel_share / share_of_samples, abs=0.07)
    again = images.clone()
    change(again, generators(800))
    assert torch.equal(again, changed)


@SHAPES
def test_noise_has_one_drawn_deviation_per_sample(shape):
    images = torch.zeros(200, 2, *shape)
    Noise(probability=1, sigma_range=(0.0, 0.1)).change_(images, generators(200))
    deviations = images.flatten(2).std(2)
    assert deviations.mean().item() == pytest.approx(0.05, abs=0.006)
    assert (deviations[:, 0] / deviations[:, 1]).median().item() == pytest.approx(1, abs=0.05)
    assert images.mean().item() == pytest.approx(0, abs=0.001)


def test_the_kernel_has_the_odd_length_nearest_to_6_sigma_and_a_half():
    assert [kernel_length(sigma) for sigma in (0.2, 0.5, 0.6, 0.75, 0.9, 1.0, 2.0)] == [1, 3, 5, 5, 5, 7, 13]


@SHAPES
def test_blur_is_a_normalised_mirrored_gaussian(shape):
    images = batch(shape, samples=1, channels=1)
    blurred = images.clone()
    Blur(probability=1, channel_probability=1, sigma_range=(0.8, 0.8)).change_(blurred, generators(1))
    taps = np.exp(-0.5 * (np.arange(-2, 3) / 0.8) ** 2)
    expected = images[0, 0].numpy()
    for axis in range(len(shape)):
        padded = np.pad(expected, [(2, 2) if axis == a else (0, 0) for a in range(len(shape))], mode="reflect")
        expected = np.apply_along_axis(lambda row: np.convolve(row, taps / taps.sum(), "valid"), axis, padded)
    assert np.allclose(blurred[0, 0], expected, atol=1e-5)


def test_blur_bears_axes_shorter_than_its_kernel():
    images = torch.ones(1, 1, 1, 2, 3)
    Blur(probability=1, channel_probability=1, sigma_range=(1.0, 1.0)).change_(images, generators(1))
    assert torch.allclose(images, torch.ones(1, 1, 1, 2, 3))


def test_factors_lie_below_and_above_one_equally_often():
    source = generator()
    factors = torch.tensor([draw_factor((0.7, 1.5), source) for _ in range(4000)])
    below = factors < 1
    assert below.float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert factors.min() >= 0.7 and factors.max() <= 1.5
    assert factors[below].mean().item() == pytest.approx(0.85, abs=0.01)
    assert factors[~below].mean().item() == pytest.approx(1.25, abs=0.01)
    for low, high in ((1.1, 1.2), (0.5, 0.9)):
        factors = torch.tensor([draw_factor((low, high), source) for _ in range(500)])
        assert factors.min() >= low and factors.max() <= high
        assert factors.mean().item() == pytest.approx((low + high) / 2, abs=0.02)


@SHAPES
def test_brightness_multiplies_each_channel_by_its_own_factor(shape):
    images = batch(shape)
    changed = images.clone()
    Brightness(probability=1, factor_range=(0.75, 1.25)).change_(changed, generators())
    ratio = (changed / images).flatten(2)
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), rtol=1e-4)
    assert len(ratio[:, :, 0].flatten().unique()) == 6


def test_contrast_scales_around_the_mean_within_the_old_range():
    images = torch.tensor([0.0, 2.0, 3.0, 7.0]).view(1, 1, 2, 2)
    wider, narrower = images.clone(), images.clone()
    Contrast(probability=1, factor_range=(1.2, 1.2)).change_(wider, generators(1))
    assert torch.allclose(wider.flatten(), torch.tensor([0.0, 1.8, 3.0, 7.0]))
    Contrast(probability=1, factor_range=(0.5, 0.5)).change_(narrower, generators(1))
    assert torch.allclose(narrower.flatten(), torch.tensor([1.5, 2.5, 3.0, 5.0]))


@SHAPES
def test_low_resolution_averages_out_detail_and_keeps_fixed_axes(shape):
    constant = torch.full((1, 1, *shape), 3.0)
    LowResolution(probability=1, channel_probability=1, scale_range=(0.5, 0.5)).change_(constant, generators(1))
    assert torch.allclose(constant, torch.full_like(constant, 3.0))
    images = torch.randn(1, 1, shape[0], *(1,) * (len(shape) - 1), generator=generator()).expand(1, 1, *shape)
    changed, remaining = images.clone(), images.clone()
    LowResolution(probability=1, channel_probability=1, scale_range=(0.5, 0.5)).change_(changed, generators(1))
    LowResolution(probability=1, channel_probability=1, scale_range=(0.5, 0.5), fixed_axes=(0,)).change_(
        remaining, generators(1)
    )
    assert not torch.allclose(changed, images)
    assert torch.allclose(remaining, images, atol=1e-6)


@SHAPES
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_mean_deviation_and_order(shape, inverted):
    images = batch(shape)
    changed = images.clone()
    Gamma(probability=1, exponent_range=(0.7, 1.5), inverted=inverted).change_(changed, generators())
    assert not torch.allclose(changed, images, atol=1e-2)
    assert torch.allclose(changed.flatten(2).mean(2), images.flatten(2).mean(2), atol=1e-4)
    assert torch.allclose(changed.flatten(2).std(2), images.flatten(2).std(2), rtol=1e-3)
    for before, after in zip(images.flatten(0, 1), changed.flatten(0, 1), strict=True):
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())


def test_inverted_gamma_is_gamma_of_the_negative():
    images = batch((6, 6))
    inverted, negative = images.clone(), -images
    Gamma(probability=1, exponent_range=(0.7, 1.5), inverted=True).change_(inverted, generators())
    Gamma(probability=1, exponent_range=(0.7, 1.5), inverted=False).change_(negative, generators())
    assert torch.allclose(inverted, -negative, atol=1e-6)


def test_gamma_by_hand():
    images = torch.tensor([0.0, 1.0, 4.0]).view(1, 1, 1, 3)
    Gamma(probability=1, exponent_range=(1.5, 1.5), inverted=False).change_(images, generators(1))
    curve = np.array([0, 4 * 0.25**1.5, 4])
    low = (curve - curve.mean()) / curve.std(ddof=1) * math.sqrt(13 / 3) + 5 / 3
    assert np.allclose(images.flatten(), low, atol=1e-5)


@SHAPES
def test_constant_channels_stay_constant_and_finite(shape):
    images = torch.full((2, 1, *shape), 1.5)
    Gamma(probability=1, exponent_range=(0.7, 1.5), inverted=True).change_(images, generators(2))
    Contrast(probability=1, factor_range=(0.75, 1.25)).change_(images, generators(2))
    Blur(probability=1, channel_probability=1, sigma_range=(0.5, 1)).change_(images, generators(2))
    assert torch.allclose(images, torch.full_like(images, 1.5), atol=1e-5)


@SHAPES
@pytest.mark.parametrize(
    "operation",
    [
        Noise(probability=0.5), Blur(probability=0.5), Brightness(probability=0.5), Contrast(probability=0.5),
        LowResolution(probability=0.5), Gamma(probability=0.5),
    ],
    ids=lambda operation: type(operation).__name__,
)  # fmt: skip
def test_a_sample_changes_alike_whatever_lies_beside_it(operation, shape):
    images = batch(shape, samples=12)
    together, apart = images.clone(), images.clone()
    operation.change_(together, generators(12))
    for sample, own in enumerate(generators(12)):
        operation.change_(apart[sample : sample + 1], [own])
    assert torch.equal(together, apart)
    assert not torch.equal(together, images)


def test_numbers_drawn_after_noise_do_not_depend_on_how_many_voxels_had_noise():
    small, large = generators(1), generators(1)
    Noise(probability=1).change_(torch.zeros(1, 1, 2, 2), small)
    Noise(probability=1).change_(torch.zeros(1, 2, 9, 9), large)
    assert draw_factor((0.5, 2.0), small[0]) == draw_factor((0.5, 2.0), large[0])
