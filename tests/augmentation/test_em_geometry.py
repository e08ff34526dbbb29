"""Operations of electron microscopy that move voxels: what a stack looks like afterwards, and what is read."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from autoseg.augmentation.elastic import Elastic
from autoseg.augmentation.flip import Flip
from autoseg.augmentation.misalignment import MisAlignment, largest_angle
from autoseg.augmentation.missing_section import MissingSection
from autoseg.augmentation.move_labels import move_codes
from autoseg.augmentation.move_nearest import move_nearest
from autoseg.augmentation.recipes import Recipe, draw_warp
from autoseg.augmentation.rescale import Rescale
from autoseg.augmentation.rotate import Rotate
from autoseg.augmentation.sections import Section
from autoseg.augmentation.turn import Turn
from autoseg.augmentation.warp import Warp, identity, keep_inside, move_image, source_box

PATCH = (7, 12, 12)
CENTRE = (10.0, 20.5, 20.5)
UNKNOWN = 9
SHIFTS = MisAlignment(probability=1, displacement=6, rotate_ratio=0)
EVERYTHING = Recipe(
    (
        Turn(), Rescale(probability=1), Flip(z_transpose=True), Elastic(probability=1), MissingSection(probability=1),
        MisAlignment(probability=1, displacement=4),
    )
)  # fmt: skip


def volume(*, constant_in_z: bool = False) -> torch.Tensor:
    """A volume (21, 42, 42) in which every voxel has its own number, or every place of the plane."""
    numbers = torch.arange(21 * 42 * 42, dtype=torch.float32).view(21, 42, 42)
    return numbers[:1].expand(21, 42, 42).contiguous() if constant_in_z else numbers


def drawn(operation, seed: int, patch=PATCH) -> Warp:
    return draw_warp(Recipe((operation,)), patch, np.random.default_rng(seed))


def shown(source: torch.Tensor, warp: Warp, patch=PATCH, centre=CENTRE) -> torch.Tensor:
    return move_image(source[None], warp, centre, patch)[0]


def moved_sections(warp: Warp) -> list[int]:
    plain, stack = (shown(volume(constant_in_z=True), each) for each in (identity(3), warp))
    return [z for z in range(len(stack)) if not torch.equal(stack[z], plain[z])]


def test_half_of_the_misalignments_slip_one_inner_section_the_others_move_all_from_one_on():
    drawings = [moved_sections(drawn(SHIFTS, seed)) for seed in range(200)]
    slips = [moved for moved in drawings if len(moved) == 1]
    assert all(moved == list(range(moved[0], 7)) for moved in drawings if len(moved) > 1)
    assert {moved[0] for moved in slips} == set(range(1, 6))
    assert {moved[0] for moved in drawings if len(moved) > 1} == set(range(1, 6))
    assert 70 < len(slips) < 130


def test_a_shift_copies_voxels_from_less_than_the_displacement_away():
    lengths = set()
    for seed in range(100):
        warp = drawn(SHIFTS, seed)
        (shift,) = {section.shift for section in warp.sections if any(section.shift)}
        lengths |= {abs(part) for part in shift}
        stack = shown(volume(), warp)
        for z, section in enumerate(warp.sections):
            y, x = 15 + int(section.shift[0]), 15 + int(section.shift[1])
            assert torch.equal(stack[z], volume()[7 + z, y : y + 12, x : x + 12])
    assert lengths == set(map(float, range(6)))


def test_a_rotated_section_moves_no_voxel_by_more_than_the_displacement():
    operation = MisAlignment(probability=1, displacement=6, rotate_ratio=1)
    largest = largest_angle(6, PATCH)
    corner = np.array([6.0, 6.0])
    angles = [max(abs(section.angle) for section in drawn(operation, seed).sections) for seed in range(200)]
    assert 0.95 * largest < max(angles) <= largest
    assert 2 * np.linalg.norm(corner) * math.sin(largest / 2) == pytest.approx(6)
    assert largest_angle(16, (8, 256, 256)) == pytest.approx(2 * math.asin(8 / (0.71 * 256)), rel=0.01)


def test_only_the_drawn_share_is_rotated():
    operation = MisAlignment(probability=1, rotate_ratio=0.25)
    rotated = [any(section.angle for section in drawn(operation, seed).sections) for seed in range(400)]
    assert np.mean(rotated) == pytest.approx(0.25, abs=0.06)


def test_a_missing_section_is_left_out_and_those_behind_move_up():
    for seed in range(30):
        stack = shown(volume(), drawn(MissingSection(probability=1, num_sections=1), seed))
        sections = [int(z) for z in stack[:, 0, 0] // (42 * 42)]
        (missing,) = set(range(7, 15)) - set(sections)
        assert 7 < missing < 14
        assert sections == [z for z in range(7, 15) if z != missing]
        assert torch.equal(stack, volume()[sections, 15:27, 15:27])


def test_several_missing_sections_may_lie_side_by_side():
    gaps = set()
    for seed in range(200):
        steps = [section.step for section in drawn(MissingSection(probability=1), seed).sections]
        gaps |= {after - before for before, after in pairwise(steps)}
        assert steps[-1] == 2
    assert gaps == {0, 1, 2}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_patches_with_few_sections_raise_nothing(depth):
    for operation in (MissingSection(probability=1, num_sections=5), SHIFTS, MisAlignment(probability=1)):
        for seed in range(20):
            warp = drawn(operation, seed, (depth, 12, 12))
            assert shown(volume(), warp, (depth, 12, 12)).shape == (depth, 12, 12)
            assert bool(warp.sections) == (depth > 1)


def test_operations_on_sections_leave_2d_patches_alone():
    assert drawn(MissingSection(probability=1), 0, (12, 12)).is_identity
    assert drawn(MisAlignment(probability=1), 0, (12, 12)).is_identity


@pytest.mark.parametrize("patch", [(12, 12), (3, 12, 12)], ids=["2d", "3d"])
def test_quarter_turns_copy_and_all_four_occur(patch):
    source = volume()[0] if len(patch) == 2 else volume()
    centre = CENTRE[-len(patch) :]
    plain = move_image(source[None], identity(len(patch)), centre, patch)[0].numpy()
    turned = [move_image(source[None], drawn(Turn(), seed, patch), centre, patch)[0].numpy() for seed in range(20)]
    quarters = [np.rot90(plain, k, axes=(-2, -1)) for k in range(4)]
    which = [[np.array_equal(each, quarter) for quarter in quarters].index(True) for each in turned]
    assert set(which) == {0, 1, 2, 3}


def test_a_patch_that_is_not_square_is_turned_by_half_turns():
    turned = {tuple(drawn(Turn(), seed, (3, 12, 10)).mirrors) for seed in range(30)}
    assert turned == {(False, False, False), (False, True, True)}
    assert all(drawn(Turn(), seed, (3, 12, 10)).order in ((), (0, 1, 2)) for seed in range(30))


def test_any_angle_occurs_without_rot90():
    angles = [math.atan2(*drawn(Turn(rot90=False), seed).array[2:0:-1, 1]) for seed in range(300)]
    assert np.histogram(angles, bins=4, range=(-math.pi, math.pi))[0].min() > 45


def test_the_orientations_of_a_square_and_of_a_cube_all_occur():
    flat = volume()[0, 15:18, 15:18].contiguous()
    seen = {
        tuple(move_nearest(flat, drawn(Flip(), seed, (3, 3)), (1, 1), (3, 3), outside=0).flatten().tolist())
        for seed in range(200)
    }
    assert len(seen) == 8
    cube = volume()[:3, 15:18, 15:18].contiguous()
    for operation, number in ((Flip(), 16), (Flip(z_transpose=True), 32), (Flip(transpose=False), 8)):
        orientations = {
            tuple(
                move_nearest(cube, drawn(operation, seed, (3, 3, 3)), (1, 1, 1), (3, 3, 3), outside=0)
                .flatten()
                .tolist()
            )
            for seed in range(600)
        }
        assert len(orientations) == number


def test_mirroring_off_leaves_no_orientation_but_rotations():
    recipe = Recipe((Flip(z_transpose=True),))
    assert recipe.mirror_axes == (0, 1, 2)
    still = recipe.without_mirroring()
    assert still.mirror_axes == ()
    assert all(draw_warp(still, (5, 5, 5), np.random.default_rng(seed)).is_identity for seed in range(20))


def test_scales_are_uniform_per_axis_and_equal_with_a_fixed_aspect():
    factors = np.array([1 / np.diag(drawn(Rescale(probability=1), seed).array) for seed in range(500)])
    assert (factors[:, 0] == 1).all()
    assert 0.8 <= factors[:, 1:].min() < 0.81 and 1.24 < factors[:, 1:].max() <= 1.25
    assert factors[:, 1:].mean() == pytest.approx(1.025, abs=0.02)
    assert abs(np.corrcoef(factors[:, 1], factors[:, 2])[0, 1]) < 0.15
    fixed = np.diag(drawn(Rescale(probability=1, fix_aspect=True), 0).array)
    assert fixed[1] == fixed[2] != 1


def test_elastic_fields_have_the_documented_strength_and_are_the_same_in_every_section():
    warp = drawn(Elastic(probability=1), 0, (3, 200, 200))
    assert warp.displacement is not None and warp.displacement.shape == (2, 200, 200)
    expected = 16 / math.sqrt(3) / (2 * math.sqrt(math.pi) * 4)  # white noise blurred by a Gaussian of 4 voxels
    assert warp.displacement.std() == pytest.approx(expected, rel=0.05)
    wave = volume(constant_in_z=True)
    stack = shown(wave, drawn(Elastic(probability=1), 0))
    assert torch.allclose(stack[0], stack[3])
    assert not torch.allclose(stack[0], shown(wave, identity(3))[0])


@pytest.mark.parametrize("operation", EVERYTHING.operations, ids=lambda operation: type(operation).__name__)
def test_probabilities_0_and_1(operation):
    never, always = (operation.model_copy(update={"probability": share}) for share in (0.0, 1.0))
    moves = [
        [not warp.is_identity or warp.order != () or any(warp.mirrors) for warp in warps]
        for warps in ([drawn(each, seed, (6, 6, 6)) for seed in range(40)] for each in (never, always))
    ]
    assert not any(moves[0])
    assert np.mean(moves[1]) > 0.6  # a turn by 0 degrees is one of the turns


@pytest.mark.parametrize("inner", [None, Rotate(probability=1, degrees=20)], ids=["in the plane", "in space"])
def test_labels_move_with_the_image(inner):
    patch, codes = (6, 6, 6), (volume().long() % 7).int()
    recipe = EVERYTHING if inner is None else Recipe((inner, *EVERYTHING.operations))
    for seed in range(12):
        warp = draw_warp(recipe, patch, np.random.default_rng(seed))
        ids = move_nearest(codes, warp, CENTRE, patch, outside=UNKNOWN)
        image = move_nearest(codes.float(), warp, CENTRE, patch, outside=UNKNOWN)
        assert torch.equal(ids.float(), image)
        blocks = (volume() // (42 * 42) // 4).int()  # slabs: interpolated intensities name the slab within them
        voted = move_codes(blocks, warp, CENTRE, patch, unknown=UNKNOWN, outside=UNKNOWN)
        intensities = move_image(blocks[None].float(), warp, CENTRE, patch)[0]
        assert torch.equal(voted.float(), intensities.round()) or (voted - intensities).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize("inner", [None, Rotate(probability=1, degrees=20)], ids=["in the plane", "in space"])
def test_the_box_that_is_read_is_enough(inner):
    recipe = EVERYTHING if inner is None else Recipe((inner, *EVERYTHING.operations))
    for seed in range(15):
        warp = draw_warp(recipe, (5, 6, 6), np.random.default_rng(seed))
        centre = keep_inside(warp, CENTRE, (5, 6, 6), (11, 21, 19))
        low, high = source_box(warp, centre, (5, 6, 6))
        box = volume()[tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))].contiguous()
        assert min(low) >= 0 and all(stop <= edge for stop, edge in zip(high, (21, 42, 42), strict=True))
        inside = [middle - start for middle, start in zip(centre, low, strict=True)]
        whole = move_image(volume()[None], warp, centre, (5, 6, 6), outside=-1)
        assert torch.allclose(move_image(box[None], warp, inside, (5, 6, 6), outside=-1), whole, rtol=1e-4)


def test_a_sections_fast_path_is_the_same_as_a_dense_displacement():
    sections = [Section(), Section(1, 0.1, (2.0, -1.0)), Section(1), Section(2, shift=(0.5, 0))]
    warp = identity(3).after(np.diag([1, 1.2, 0.9])).with_sections(sections)
    elastic = drawn(Elastic(probability=1, alpha=30), 0, (4, 9, 9)).displacement
    for each in (warp, warp.displaced(elastic)):
        half = (np.array((4, 9, 9)) - 1) / 2
        dense = np.zeros((3, 4, 9, 9), np.float32)
        for place in np.ndindex(4, 9, 9):
            dense[(slice(None), *place)] = each.moves_at(np.array(place), np.array(place) - half)
        slow = Warp(each.matrix, each.mirrors, dense)
        centre = (10.5, 20.0, 20.0)
        fast = move_image(volume()[None] / 42, each, centre, (4, 9, 9))
        assert torch.allclose(fast, move_image(volume()[None] / 42, slow, centre, (4, 9, 9)), atol=2e-2)
        (low, high), (low_slow, high_slow) = (source_box(one, centre, (4, 9, 9)) for one in (each, slow))
        assert all(a >= b for a, b in zip(low, low_slow, strict=True))
        assert all(a <= b for a, b in zip(high, high_slow, strict=True))


def test_the_voxel_a_patch_was_drawn_for_is_in_it():
    marked = torch.zeros(21, 42, 42)
    marked[11, 22, 19] = 1
    for seed in range(60):
        warp = draw_warp(EVERYTHING, PATCH, np.random.default_rng(seed))
        centre = keep_inside(warp, CENTRE, PATCH, (11, 22, 19))
        assert move_image(marked[None], warp, centre, PATCH).max() > 0.99


def test_what_enters_from_outside_is_unknown():
    codes = torch.zeros(8, 12, 12, dtype=torch.uint8)
    warp = identity(3).with_sections([Section(shift=(0, 5.0)) if z == 2 else Section(step=z // 6) for z in range(8)])
    patch = move_codes(codes, warp, (3.5, 5.5, 5.5), (8, 12, 12), unknown=UNKNOWN, outside=UNKNOWN)
    expected = torch.zeros(8, 12, 12, dtype=torch.uint8)
    expected[2, :, 7:] = expected[7] = UNKNOWN
    assert torch.equal(patch, expected)
    numbered = move_image(volume()[None, :8, :12, :12].contiguous() + 1, warp, (3.5, 5.5, 5.5), (8, 12, 12))[0]
    assert torch.equal(numbered == 0, patch == UNKNOWN)
