"""The transforms beside batchgeneratorsv2's: equal for the same parameters, and parameters of the same distributions.

Runs where batchgeneratorsv2 is installed, which autoseg does not need: it is the source of the rules. The settings are
those of nnU-Net 2.8.1 ``nnUNetTrainer.get_training_transforms``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from moving import moving
from scipy import stats

from autoseg.augmentation.blur import Blur
from autoseg.augmentation.brightness import Brightness
from autoseg.augmentation.contrast import Contrast
from autoseg.augmentation.draws import draw_factor
from autoseg.augmentation.gamma import Gamma
from autoseg.augmentation.low_resolution import LowResolution
from autoseg.augmentation.move_labels import move_codes
from autoseg.augmentation.noise import Noise
from autoseg.augmentation.recipes import Intensity, Recipe, augment_intensity, draw_warp
from autoseg.augmentation.rotate import rotation_matrix
from autoseg.augmentation.warp import Warp, move_image

pytest.importorskip("batchgeneratorsv2")
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import (
    SpatialTransform,
    create_affine_matrix_2d,
    create_affine_matrix_3d,
)
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

DIMENSIONS = pytest.mark.parametrize("shape", [(21, 16), (9, 14, 11)], ids=["2d", "3d"])
SIGNIFICANCE = 1e-4
"""Of each comparison of distributions; all is seeded, so that a test that holds goes on holding."""


@pytest.fixture(autouse=True)
def seeds() -> None:
    np.random.seed(0)  # the other side draws from it
    torch.manual_seed(0)


def image(shape: tuple[int, ...], samples: int = 1, channels: int = 2) -> torch.Tensor:
    return torch.rand(samples, channels, *shape, generator=torch.Generator().manual_seed(3)) * 3 - 1


def same(mine: torch.Tensor, other: torch.Tensor, tolerance: float = 2e-5) -> None:
    assert mine.shape == other.shape
    assert (mine - other).abs().max() < tolerance


def theirs(operation: Intensity) -> RandomTransform:
    """Their transform with the settings of one of ours."""
    match operation:
        case Noise():
            made = GaussianNoiseTransform(operation.sigma_range, p_per_channel=1, synchronize_channels=True)
        case Blur():
            made = GaussianBlurTransform(
                operation.sigma_range, synchronize_channels=False, synchronize_axes=False,
                p_per_channel=operation.channel_probability, benchmark=False,
            )  # fmt: skip
        case Brightness():
            made = MultiplicativeBrightnessTransform(BGContrast(operation.factor_range), synchronize_channels=False)
        case Contrast():
            factor = BGContrast(operation.factor_range)
            made = ContrastTransform(factor, preserve_range=True, synchronize_channels=False)
        case LowResolution():
            made = SimulateLowResolutionTransform(
                operation.scale_range, synchronize_channels=False, synchronize_axes=True,
                ignore_axes=operation.fixed_axes or None, p_per_channel=operation.channel_probability,
            )  # fmt: skip
        case Gamma():
            made = GammaTransform(
                BGContrast(operation.exponent_range), p_invert_image=int(operation.inverted),
                synchronize_channels=False, p_per_channel=1, p_retain_stats=1,
            )  # fmt: skip
    return RandomTransform(made, operation.probability)


FIXED: dict[str, Intensity] = {
    "blur": Blur(probability=1, channel_probability=1, sigma_range=(0.8, 0.8)),
    "brightness": Brightness(probability=1, factor_range=(1.2, 1.2)),
    "contrast": Contrast(probability=1, factor_range=(1.2, 1.2)),
    "low resolution": LowResolution(probability=1, channel_probability=1, scale_range=(0.6, 0.6)),
    "inverted gamma": Gamma(probability=1, exponent_range=(1.3, 1.3), inverted=True),
    "gamma": Gamma(probability=1, exponent_range=(1.3, 1.3)),
}
"""Everything always, and to the same extent."""
DRAWN: dict[str, Intensity] = {
    "noise": Noise(), "blur": Blur(), "brightness": Brightness(), "contrast": Contrast(),
    "low resolution": LowResolution(), "inverted gamma": Gamma(probability=0.1, inverted=True), "gamma": Gamma(),
}  # fmt: skip
"""As in nnU-Net's recipe."""


@DIMENSIONS
@pytest.mark.parametrize("name", list(FIXED))
def test_a_change_to_the_same_extent_is_the_same(shape, name):
    mine = augment_intensity(image(shape), Recipe((FIXED[name],)), [torch.Generator()])
    other = theirs(FIXED[name])(image=image(shape)[0])["image"]
    same(mine[0], other)
    assert (mine - image(shape)).abs().max() > 0.1


@pytest.mark.parametrize("in_plane", [False, True])
def test_all_changes_come_in_the_same_order(in_plane):
    coarser = LowResolution(
        probability=1, channel_probability=1, scale_range=(0.6, 0.6), fixed_axes=(0,) if in_plane else ()
    )
    operations = [*(FIXED | {"low resolution": coarser}).values()]
    mine = augment_intensity(image((9, 14, 11)), Recipe(tuple(operations)), [torch.Generator()])
    transforms = [theirs(operation) for operation in operations]
    other = ComposeTransforms(transforms)(image=image((9, 14, 11))[0])["image"]
    same(mine[0], other, 1e-4)
    swapped = [transforms[-1], *transforms[1:-1], transforms[0]]
    assert (mine[0] - ComposeTransforms(swapped)(image=image((9, 14, 11))[0])["image"]).abs().max() > 0.01


@DIMENSIONS
@pytest.mark.parametrize("sigma", [0.5, 0.6, 0.75, 0.9, 1.0])
def test_blur_of_any_strength_is_the_same(shape, sigma):
    blur = Blur(probability=1, channel_probability=1, sigma_range=(sigma, sigma))
    mine = augment_intensity(image(shape), Recipe((blur,)), [torch.Generator()])
    same(mine[0], theirs(blur)(image=image(shape)[0])["image"])


@pytest.mark.parametrize("name", list(DRAWN))
def test_changes_are_drawn_as_often_and_as_strongly(name):
    """The same images on both sides: how far each is changed, and how widely its values then spread."""
    count, operation = 3000, DRAWN[name]
    given = image((6, 5), count)
    mine = augment_intensity(given, Recipe((operation,)), [torch.Generator().manual_seed(n) for n in range(len(given))])
    transform = theirs(operation)
    other = torch.stack([transform(image=sample.clone())["image"] for sample in given])
    for what in (lambda x: (x - given).abs().mean((2, 3)), lambda x: x.std((2, 3)) / given.std((2, 3))):
        for channel in range(2):
            actual = [what(changed)[:, channel].numpy() for changed in (mine, other)]
            assert stats.ks_2samp(*actual).pvalue > SIGNIFICANCE
    together = [((x != given).any((2, 3)).sum(1).bincount(minlength=3) / count) for x in (mine, other)]
    assert torch.allclose(*together, atol=0.03)  # no, one, or both channels


@pytest.mark.parametrize("bounds", [(0.75, 1.25), (0.7, 1.5), (1.1, 1.3)])
def test_factors_have_the_same_distribution(bounds):
    source = torch.Generator().manual_seed(1)
    mine = np.array([draw_factor(bounds, source) for _ in range(4000)])
    draw = BGContrast(bounds)
    assert stats.ks_2samp(mine, [draw() for _ in range(4000)]).pvalue > SIGNIFICANCE


def spatial(patch: tuple[int, ...], rotation: object, scaling: object, share: float) -> SpatialTransform:
    return SpatialTransform(
        patch, 0, random_crop=False, p_rotation=share, rotation=rotation, p_scaling=share, scaling=scaling,
        p_synchronize_scaling_across_axes=1, border_mode_seg="constant", padding_value_seg=-1,
    )  # fmt: skip


def test_rotation_matrices_are_the_same():
    angles = (0.3, -0.2, 0.5)
    assert np.allclose(rotation_matrix(angles) * 1.3, create_affine_matrix_3d(angles, [1.3] * 3))
    assert np.allclose(rotation_matrix(angles[:1]) * 0.8, create_affine_matrix_2d(angles[0], [0.8] * 2))


@pytest.mark.parametrize("n_axes", [2, 3])
def test_transforms_have_the_same_distribution(n_axes):
    count, patch = 4000, (4,) * n_axes
    transform = spatial(patch, (-math.pi / 6, math.pi / 6), (0.7, 1.4), 0.2)
    drawn = (transform.get_parameters(image=torch.zeros(1, *patch))["affine"] for _ in range(count))
    other = np.stack([np.eye(n_axes) if affine is None else affine for affine in drawn])
    rng = np.random.default_rng(0)
    mine = np.stack([draw_warp(moving(share=0.2), (1,) * n_axes, rng).array for _ in range(count)])
    shares = [np.mean((actual == np.eye(n_axes)).all((1, 2))) for actual in (mine, other)]
    assert shares == pytest.approx([0.64, 0.64], abs=0.03)
    mine, other = mine.round(9), other.round(9)
    scales = [np.linalg.det(actual).round(6) for actual in (mine, other)]
    assert stats.ks_2samp(*scales).pvalue > SIGNIFICANCE
    for row in range(n_axes):
        for column in range(n_axes):
            assert stats.ks_2samp(mine[:, row, column], other[:, row, column]).pvalue > SIGNIFICANCE


def test_axes_are_mirrored_as_often():
    transform, rng = MirrorTransform((0, 1, 2)), np.random.default_rng(0)
    drawn = [transform.get_parameters(image=torch.zeros(1, 1, 1, 1))["axes"] for _ in range(2000)]
    other = np.mean([[axis in axes for axis in range(3)] for axes in drawn], axis=0)
    mine = np.mean([draw_warp(moving(share=0.2), (1,) * 3, rng).mirrors for _ in range(2000)], axis=0)
    assert mine == pytest.approx(other, abs=0.06)


def blocks(shape: tuple[int, ...]) -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 4, [-(-edge // 5) for edge in shape]).astype(np.uint8)
    for axis in range(len(shape)):
        coarse = coarse.repeat(5, axis)
    return coarse[tuple(slice(edge) for edge in shape)]


@pytest.mark.parametrize(("angle", "scale"), [(0.4, 1.0), (0.0, 0.77), (0.0, 1.33), (0.4, 0.77), (-0.3, 1.33)])
@pytest.mark.parametrize(
    ("shape", "patch", "in_plane"),
    [((40, 36), (30, 31), False), ((20, 24, 22), (16, 15, 18), False), ((6, 30, 34), (6, 22, 25), True)],
    ids=["2d", "3d", "in plane"],
)
def test_images_and_dense_labels_are_moved_alike(shape, patch, in_plane, angle, scale):
    moving = patch[1:] if in_plane else patch
    transform = spatial(moving, angle, (scale, scale), 1)
    values, labels = image(shape, channels=1)[0], blocks(shape)
    flat: Callable[[torch.Tensor], torch.Tensor] = (lambda x: x[0]) if in_plane else (lambda x: x)
    moved = transform(image=flat(values), segmentation=flat(torch.from_numpy(labels.astype(np.int16))[None]))
    matrix = np.eye(len(shape))
    angles = [angle] * (3 if len(moving) == 3 else 1)
    matrix[in_plane:, in_plane:] = rotation_matrix(angles) * scale
    draw = Warp(tuple(map(tuple, matrix.tolist())), (False,) * len(shape))
    centre = [(edge - 1) / 2 for edge in shape]
    same(move_image(values, draw, centre, patch).view_as(moved["image"]), moved["image"], 1e-4)
    mine = move_codes(torch.from_numpy(labels), draw, centre, patch, unknown=9, outside=5)
    other = moved["segmentation"].view_as(mine)
    assert (mine == torch.where(other == -1, 5, other)).float().mean() > 0.998  # but for ties of rounded votes
