"""Codes under a transform: votes as nnU-Net's on dense labels, and thin annotation neither vanishes nor swells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.augmentation import move_labels
from autoseg.augmentation.move_labels import move_codes
from autoseg.augmentation.recipes import Recipe, draw_warp
from autoseg.augmentation.rotate import rotation_matrix
from autoseg.augmentation.warp import Warp, identity, move_image

UNKNOWN = 3
DIMENSIONS = pytest.mark.parametrize("n_axes", [2, 3])


def recipe(low: float, high: float, degrees: float = 30, **more) -> Recipe:
    return moving(degrees, (low, high), **more)


def dense(n_axes: int, seed: int = 0) -> torch.Tensor:
    """Blocks of 4 voxels with codes 0, 1 or 2."""
    codes = np.random.default_rng(seed).integers(0, 3, (6,) * n_axes).astype(np.uint8)
    for axis in range(n_axes):
        codes = codes.repeat(4, axis)
    return torch.from_numpy(codes)


def line(n_axes: int, rng: np.random.Generator) -> torch.Tensor:
    """A one-voxel-wide scribble of code 1 and some 21 voxels, along an axis or not, in unknown surroundings."""
    codes = torch.full((36,) * n_axes, UNKNOWN, dtype=torch.uint8)
    direction = np.eye(n_axes)[rng.integers(n_axes)] if rng.random() < 0.5 else rng.normal(size=n_axes)
    direction /= np.abs(direction).max()
    path = np.rint(rng.uniform(15, 20, n_axes) + np.linspace(-10, 10, 300)[:, None] * direction).astype(int)
    codes[tuple(torch.from_numpy(path.T))] = 1
    return codes


@pytest.mark.parametrize(("n_axes", "in_plane"), [(2, False), (3, False), (3, True)], ids=["2d", "3d", "in plane"])
def test_dense_codes_are_the_argmax_of_linear_one_hot_maps(n_axes, in_plane):
    codes = dense(n_axes)
    rng = np.random.default_rng(0)
    for _ in range(6):
        draw = draw_warp(recipe(0.7, 1.4, in_plane=in_plane), (1,) * n_axes, rng)
        centre = (11.0,) * in_plane + tuple(rng.uniform(10, 13, n_axes - in_plane))
        patch = (15,) * n_axes
        moved = move_codes(codes, draw, centre, patch, unknown=UNKNOWN, outside=0)
        votes = move_image(torch.stack([codes == code for code in range(3)]).float(), draw, centre, patch)
        votes[0] += 1 - votes.sum(0)  # what comes from outside is background
        top = votes.sort(0, descending=True).values
        clear = top[0] - top[1] > 1e-3
        assert clear.float().mean() > 0.95
        assert torch.equal(moved[clear].long(), votes.argmax(0)[clear])


@DIMENSIONS
@pytest.mark.parametrize("scale", [1.0, 1.1, 1.4])
def test_one_voxel_wide_scribbles_keep_their_length(n_axes, scale):
    shares = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        codes = line(n_axes, rng)
        draw = draw_warp(recipe(scale, scale), (1,) * n_axes, rng)
        centre = tuple(17.5 + rng.uniform(-0.5, 0.5, n_axes))
        moved = move_codes(codes, draw, centre, (44,) * n_axes, unknown=UNKNOWN, outside=UNKNOWN)
        shares.append(float((moved == 1).sum() / (codes == 1).sum()) * scale)
        assert set(moved.unique().tolist()) == {1, UNKNOWN}
    # nearest-neighbour lookup keeps 0.5 on average at 1.4 in 3-D, and loses some scribbles wholly
    assert min(shares) > 0.7
    assert max(shares) < 1.4
    assert 0.95 < np.mean(shares) < 1.15


@DIMENSIONS
def test_annotated_regions_keep_their_size(n_axes):
    codes = torch.full((28,) * n_axes, UNKNOWN, dtype=torch.uint8)
    codes[(slice(6, 22),) * n_axes] = 2
    for seed in range(4):
        draw = draw_warp(recipe(0.7, 1.4), (1,) * n_axes, np.random.default_rng(seed))
        moved = move_codes(codes, draw, (13.5,) * n_axes, (40,) * n_axes, unknown=UNKNOWN, outside=UNKNOWN)
        share = float((moved == 2).sum()) * abs(np.linalg.det(draw.array)) / 16**n_axes
        assert 0.93 < share < 1.25


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_rot90(quarters):
    codes = dense(2, seed=4)
    matrix = rotation_matrix([quarters * math.pi / 2])
    draw = Warp(tuple(map(tuple, matrix.tolist())), (False, False))
    moved = move_codes(codes, draw, (11.5, 11.5), (24, 24), unknown=UNKNOWN, outside=UNKNOWN)
    assert np.array_equal(moved, np.rot90(codes, -quarters))


def test_votes_by_hand():
    """Between four voxels: known ones vote among themselves; unknown wins only if nearest and heavier."""
    assert halfway([[1, 2], [2, 0]], 0.4, 0.4) == 2  # 0.36 against 0.24 + 0.24
    assert halfway([[1, 2], [2, 0]], 0.2, 0.2) == 1  # 0.64
    assert halfway([[1, 3], [3, 3]], 0.4, 0.4) == 1  # nearest is known
    assert halfway([[3, 1], [1, 1]], 0.4, 0.4) == 1  # 0.64 known
    assert halfway([[3, 1], [1, 1]], 0.2, 0.2) == UNKNOWN  # 0.36 known
    assert halfway([[3, 1], [2, 2]], 0.45, 0.45) == 2  # 0.4525 against 0.2475


@DIMENSIONS
def test_everything_beyond_the_box_has_the_code_for_outside(n_axes):
    codes = torch.full((4,) * n_axes, 1, dtype=torch.uint8)
    draw = draw_warp(recipe(0.8, 0.9), (1,) * n_axes, np.random.default_rng(0))
    for outside in (0, UNKNOWN):
        moved = move_codes(codes, draw, (1.5,) * n_axes, (20,) * n_axes, unknown=UNKNOWN, outside=outside)
        assert set(moved.unique().tolist()) == {1, outside}
        assert (moved[0] == outside).all()
    empty = codes[:0]
    assert (move_codes(empty, draw, (0,) * n_axes, (3,) * n_axes, unknown=UNKNOWN, outside=UNKNOWN) == UNKNOWN).all()


@DIMENSIONS
def test_the_identity_copies_and_flips(n_axes):
    codes = dense(n_axes)
    draw = Warp(identity(n_axes).matrix, (True,) + (False,) * (n_axes - 1))
    moved = move_codes(codes, draw, (11.5,) * n_axes, (24,) * n_axes, unknown=UNKNOWN, outside=UNKNOWN)
    assert torch.equal(moved, codes.flip(0))


def test_codes_above_255_are_moved_as_int32():
    codes = dense(2).int() * 300
    moved = move_codes(
        codes,
        draw_warp(recipe(0.9, 1.1), (1,) * 2, np.random.default_rng(0)),
        (11, 11),
        (9, 9),
        unknown=1000,
        outside=1000,
    )
    assert moved.dtype == torch.int32 and set(moved.unique().tolist()) == {0, 300, 600}


def test_a_map_with_the_code_255_is_moved_as_any_other():
    """255 is what marks contested cells of uint8 maps where no voxel has it."""
    codes = dense(2)
    draw = draw_warp(recipe(0.9, 1.1), (1,) * 2, np.random.default_rng(0))
    low, high = (
        move_codes(map_, draw, (11, 11), (15, 15), unknown=9, outside=9)
        for map_ in (codes, torch.where(codes == 2, 255, codes.int()).to(torch.uint8))
    )
    assert high.dtype == torch.uint8
    assert torch.equal(torch.where(low == 2, 255, low.int()), high.int())


def halfway(codes: list[list[int]], y: float, x: float, **options) -> int:
    """Code between four voxels, at (y, x) from the first."""
    draw = Warp(((0.5, 0.0), (0.0, 0.5)), (False, False))
    box = torch.tensor(codes, dtype=torch.uint8)
    return int(move_codes(box, draw, (y + 0.25, x + 0.25), (2, 2), unknown=UNKNOWN, outside=UNKNOWN, **options)[0, 0])


def test_codes_drawn_alike_vote_together_and_then_among_themselves():
    alike = {"to_drawn": torch.tensor([0, 1, 2, 3, 1, 3])}  # 4 was drawn as 1, and 5 says nothing as 3 does
    assert halfway([[1, 2], [4, 2]], 0.4, 0.45, **alike) == 1  # 0.33 + 0.22 were drawn as 1, against 0.27 + 0.18
    assert halfway([[1, 2], [4, 2]], 0.6, 0.45, **alike) == 4
    assert halfway([[1, 2], [4, 2]], 0.4, 0.45, to_drawn=torch.arange(6)) == 2
    assert halfway([[5, 4], [3, 3]], 0.1, 0.2, **alike) == 5  # unknown wins, and what is told apart of it stays
    assert halfway([[5, 4], [3, 3]], 0.1, 0.45, **alike) == 5
    assert halfway([[5, 4], [3, 3]], 0.1, 0.6, **alike) == 4
    assert halfway([[5, 3], [3, 3]], 0.4, 0.4, **alike) == 5  # nobody drew anything: the nearest


@DIMENSIONS
@pytest.mark.parametrize("scale", [0.8, 1.3])
def test_what_is_told_apart_beside_it_changes_nothing_of_what_was_drawn(n_axes, scale):
    rng = np.random.default_rng(n_axes)
    to_drawn = torch.tensor([0, 1, 2, 3, 0, 1, 3, 3])
    finer = torch.from_numpy(rng.integers(0, 8, (12,) * n_axes).astype(np.uint8))
    for axis in range(n_axes):
        finer = finer.repeat_interleave(2, axis)
    for _ in range(5):
        draw = draw_warp(recipe(scale, scale), (1,) * n_axes, rng)
        arguments = (draw, (11.5,) * n_axes, (18,) * n_axes)
        plain = move_codes(to_drawn[finer.long()].byte(), *arguments, unknown=UNKNOWN, outside=UNKNOWN)
        moved = move_codes(finer, *arguments, unknown=UNKNOWN, outside=UNKNOWN, to_drawn=to_drawn)
        assert torch.equal(to_drawn[moved.long()].byte(), plain)
        assert len(moved.unique()) == 8


def test_votes_counted_in_pieces_are_the_same(monkeypatch):
    codes = dense(3, seed=2)
    draw = draw_warp(recipe(0.9, 1.1), (1,) * 3, np.random.default_rng(0))
    whole = move_codes(codes, draw, (11.5,) * 3, (16,) * 3, unknown=UNKNOWN, outside=UNKNOWN)
    monkeypatch.setattr("autoseg.augmentation.move_labels.VOTES", 7)
    assert torch.equal(move_codes(codes, draw, (11.5,) * 3, (16,) * 3, unknown=UNKNOWN, outside=UNKNOWN), whole)


@DIMENSIONS
def test_a_known_voxel_falls_on_the_patch_voxel_next_to_it(n_axes):
    """Every voxel of a coarser patch stands for 1.4 source voxels per axis: a single one is never passed over."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        codes = torch.full((15,) * n_axes, UNKNOWN, dtype=torch.uint8)
        codes[(7,) * n_axes] = 2
        draw = draw_warp(recipe(1.4, 1.4, degrees=15), (1,) * n_axes, rng)
        centre = tuple(7 + rng.uniform(-1, 1, n_axes))
        moved = move_codes(codes, draw, centre, (9,) * n_axes, unknown=UNKNOWN, outside=UNKNOWN)
        place = np.linalg.solve(draw.array, np.full(n_axes, 7) - np.array(centre)) + 4
        mirrored = np.where(draw.mirrors, 8 - place, place)
        actual = (moved == 2).nonzero().numpy()
        assert 1 <= len(actual) <= 2**n_axes
        assert np.abs(actual - mirrored).max(axis=1).min() <= 0.5 + 1e-5


@pytest.mark.parametrize(("n_axes", "in_plane"), [(2, False), (3, False), (3, True)], ids=["2d", "3d", "in plane"])
@pytest.mark.parametrize("has_bases", [False, True], ids=["plain", "base codes"])
def test_working_out_every_voxel_as_on_a_gpu_gives_the_same_codes(monkeypatch, n_axes, in_plane, has_bases):
    rng = np.random.default_rng(n_axes)
    base = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3]) if has_bases else None  # 4 to 6 alike 0 to 2, 7 and 8 unknown
    for low, high in ((0.5, 1.0), (1.0, 2.0)):
        codes = torch.from_numpy(rng.choice(9 if has_bases else 4, (14,) * n_axes).astype(np.uint8))
        codes[rng.random(codes.shape) < 0.6] = UNKNOWN
        codes[(slice(4, 9),) * n_axes] = 1
        for _ in range(4):
            draw = draw_warp(recipe(low, high, in_plane=in_plane), (9,) * n_axes, rng)
            centre = (6.0,) * in_plane + tuple(rng.uniform(4, 9, n_axes - in_plane))
            moved = []
            for is_on_cpu in (True, False):
                monkeypatch.setattr(move_labels, "is_on_cpu", lambda box, answer=is_on_cpu: answer)
                arguments = {"unknown": UNKNOWN, "outside": UNKNOWN, "to_drawn": base}
                moved.append(move_codes(codes, draw, centre, (9,) * n_axes, **arguments))
            assert torch.equal(*moved)
