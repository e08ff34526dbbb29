"""Operations of electron microscopy that change intensities: artefacts of sections, and parts of a patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from autoseg.augmentation.cut_blur import CutBlur
from autoseg.augmentation.cut_noise import CutNoise
from autoseg.augmentation.grayscale import Grayscale
from autoseg.augmentation.missing_parts import MissingParts
from autoseg.augmentation.motion_blur import MotionBlur
from autoseg.augmentation.recipes import Recipe, augment_intensity
from autoseg.augmentation.sub_box import draw_box

OPERATIONS = [CutNoise, CutBlur, MotionBlur, MissingParts, Grayscale]
EACH = pytest.mark.parametrize("kind", OPERATIONS)
SHAPES = pytest.mark.parametrize("shape", [(20, 24), (6, 20, 24), (1, 20, 24)], ids=["2d", "3d", "one section"])


def images(shape, *, samples: int = 3, channels: int = 2) -> torch.Tensor:
    return torch.randn(samples, channels, *shape, generator=torch.Generator().manual_seed(1))


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + sample) for sample in range(n)]


def changed(operation, before: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return augment_intensity(before, Recipe((operation,)), generators(len(before), seed))


@EACH
@SHAPES
def test_probability_0_changes_nothing_and_1_every_sample(kind, shape):
    before = images(shape)
    assert torch.equal(changed(kind(probability=0), before), before)
    after = changed(kind(probability=1), before)
    assert after.isfinite().all()
    assert ((after != before).flatten(1).any(1)).all()


@EACH
@SHAPES
def test_a_sample_changes_by_its_own_generator_alone(kind, shape):
    before, operation = images(shape), kind(probability=0.8)
    together = changed(operation, before)
    for sample in range(3):
        alone = augment_intensity(before[sample : sample + 1], Recipe((operation,)), generators(3)[sample : sample + 1])
        assert torch.equal(alone[0], together[sample])
    assert torch.equal(changed(operation, before), together)
    assert any(not torch.equal(changed(operation, before, seed=seed), together) for seed in range(10, 30))


@pytest.mark.parametrize("kind", [CutNoise, CutBlur])
@pytest.mark.parametrize("shape", [(20, 30), (10, 20, 30)], ids=["2d", "3d"])
def test_cut_operations_change_a_box_and_nothing_else(kind, shape):
    before = images(shape)
    differs = (changed(kind(probability=1), before) != before).any(1)
    for each in differs.numpy():
        (box,) = ndimage.find_objects(each.astype(int))
        lengths = [part.stop - part.start for part in box]
        assert lengths == pytest.approx([0.4 * edge for edge in shape], abs=1)
        assert each[box].mean() > 0.95


def test_boxes_lie_everywhere_and_inside():
    boxes = [draw_box((10, 20), 0.4, torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert {box[0].start for box in boxes} == set(range(7))
    assert {box[1].start for box in boxes} == set(range(13))
    assert {(box[0].stop - box[0].start, box[1].stop - box[1].start) for box in boxes} == {(4, 8)}


def test_noise_is_uniform_in_units_of_the_range_and_stays_in_it():
    before = torch.full((1, 1, 40, 40), 5.0)
    before[..., 0, 0], before[..., 0, 1] = 0, 10
    noise = changed(CutNoise(probability=1, length_ratio=1, scale=0.3), before) - before
    inner = noise[0, 0, 1:]
    assert -3 <= inner.min() < -2.9 and 2.9 < inner.max() <= 3
    assert inner.std() == pytest.approx(6 / np.sqrt(12), rel=0.05)
    assert noise[0, 0, 0, 0] >= 0 >= noise[0, 0, 0, 1]


def test_a_box_of_lower_resolution_holds_means_of_blocks():
    before = images((4, 16, 16), samples=1)
    after = changed(CutBlur(probability=1, length_ratio=1, down_ratio_min=4, down_ratio_max=4), before)
    blocks = before.view(1, 2, 4, 4, 4, 4, 4).mean((4, 6))
    expected = blocks.repeat_interleave(4, 3).repeat_interleave(4, 4)
    assert torch.allclose(after, expected, atol=1e-6)
    deep = CutBlur(probability=1, length_ratio=1, down_ratio_min=4, down_ratio_max=4, downsample_z=True)
    assert torch.allclose(changed(deep, before), expected.mean(2, keepdim=True).expand_as(before), atol=1e-6)


def test_motion_blur_is_a_box_filter_along_one_axis_of_some_sections():
    before, axes = images((8, 20, 24), samples=30, channels=1), []
    after = changed(MotionBlur(probability=1, sections=3, kernel_size=5), before)
    for old, new in zip(before[:, 0].numpy(), after[:, 0].numpy(), strict=True):
        sections = [z for z in range(8) if not np.array_equal(old[z], new[z])]
        assert len(sections) == 3
        for z in sections:
            filtered = [ndimage.uniform_filter1d(old[z], 5, axis=axis, mode="nearest") for axis in (0, 1)]
            axes.append([np.allclose(new[z], each, atol=1e-5) for each in filtered].index(True))
    assert 0.3 < np.mean(axes) < 0.7


def test_no_two_consecutive_sections_miss_parts_and_parts_are_the_mean():
    before = images((9, 30, 30), samples=40)
    for share in (0.5, 1.0):
        after = changed(MissingParts(probability=share, iterations=3), before)
        hit = (after != before).any(1)  # (B, z, y, x)
        sections = hit.flatten(2).any(2)
        assert not (sections[:, 1:] & sections[:, :-1]).any()
        if share == 1:
            assert sections[0].tolist() == [True, False] * 4 + [True]
        for sample, z in sections.nonzero().tolist():
            section = before[sample, :, z]
            expected = torch.where(hit[sample, z], section.mean((1, 2), keepdim=True), section)
            assert torch.equal(after[sample, :, z], expected)


def test_a_missing_part_is_a_dilated_line_between_opposite_borders():
    across = set()
    for seed in range(40):
        after = changed(MissingParts(probability=1, iterations=4), images((41, 41), samples=1, channels=1), seed)
        band = (after != images((41, 41), samples=1, channels=1))[0, 0].numpy()
        thin = np.argwhere(ndimage.binary_erosion(band, iterations=4, border_value=1))
        assert len(thin)
        assert np.array_equal(ndimage.label(band)[1], 1)
        spans = [tuple(band[[0, -1]].any(1)), tuple(band[:, [0, -1]].any(0))]
        across |= {axis for axis, span in enumerate(spans) if all(span)}
        along = 0 if all(spans[0]) else 1
        widths = band.sum(1 - along)
        assert widths.max() <= 2 * 4 + 2 + 1 and widths[20] >= 5
    assert across == {0, 1}


def test_grayscale_by_its_formula():
    before = torch.linspace(-2, 6, 101).view(1, 1, 1, 101)
    for seed in range(20):
        after = changed(Grayscale(probability=1, mode="3D"), before, seed)[0, 0, 0]
        units = (after + 2) / 8
        u1, u2, u3, _ = numbers_of(seed)
        linear = np.clip(np.linspace(0, 1, 101) * (1 + (u1 - 0.5) * 0.3) + (u2 - 0.5) * 0.3, 0, 1)
        assert np.allclose(units, linear ** (2 ** (2 * u3 - 1)), atol=1e-5)


def numbers_of(seed: int) -> list[float]:
    """Those that a one-channel sample draws after its own choice and that of the mode."""
    generator = torch.Generator().manual_seed(seed)
    torch.rand(1, generator=generator), torch.rand(1, generator=generator)
    return torch.rand(4, 1, generator=generator).flatten().tolist()


@pytest.mark.parametrize(("mode", "share"), [("3D", 0.0), ("2D", 1.0), ("mix", 0.5)])
def test_sections_have_their_own_numbers_in_2d_mode_and_in_half_of_the_mixed(mode, share):
    section = images((10, 12), samples=1, channels=1)
    before = section[:, :, None].expand(60, 1, 5, 10, 12).contiguous()
    after = changed(Grayscale(probability=1, mode=mode), before)
    own = [bool((sample[0] - sample[0, :1]).abs().max() > 1e-4) for sample in after]
    assert np.mean(own) == pytest.approx(share, abs=0.2 if mode == "mix" else 0)


def test_inverted_images_are_negatives():
    operation = Grayscale(probability=1, contrast=0, brightness=0, mode="3D", invert=True)
    before = torch.linspace(0, 1, 50).view(1, 1, 5, 10).expand(80, 1, 5, 10).contiguous()
    after = changed(operation, before)
    falls = [bool(sample[0, 0, 0] > sample[0, -1, -1]) for sample in after]
    assert 0.3 < np.mean(falls) < 0.7


@EACH
def test_a_constant_channel_stays(kind):
    before = torch.full((2, 1, 4, 12, 12), 3.0)
    assert torch.allclose(changed(kind(probability=1), before), before, atol=1e-5)


def test_wrong_parameters_are_refused():
    with pytest.raises(ValueError, match=r"expected an odd number\. Write 5"):
        MotionBlur(kernel_size=4)
    with pytest.raises(ValueError, match="expected the former not to be larger"):
        CutBlur(down_ratio_min=9)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        CutNoise(length_ratio=1.5)


def test_half_of_the_shorter_edge_is_never_exceeded_by_a_band():
    before = images((32, 60), samples=40, channels=1)
    after = changed(MissingParts(probability=1), before)
    hit = (after != before)[:, 0]
    crosses_x = hit.any(1).all(1)  # the line rises by less than one row per column
    assert 0 < crosses_x.sum() < 40
    assert hit.sum(1)[crosses_x].max() <= 2 * 8 + 1
