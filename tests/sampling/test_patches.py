"""Patches: image and codes move together, annotation stays in, and nothing is invented outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.augmentation.warp import Warp, identity
from autoseg.sampling.patches import Place, draw_place, read_cutout
from autoseg.sampling.places import Aim

WILD = moving(180, (0.5, 2.0))
MILD = moving(30)
SHAPE = (9, 30, 26)


def blocks() -> np.ndarray:
    """Codes 0, 1 and 2 in large blocks."""
    codes = np.zeros(SHAPE, np.uint8)
    codes[:, 10:20, 5:15], codes[3:, 15:, 12:] = 1, 2
    return codes


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16)], ids=["2d", "3d"])
def test_image_and_codes_stay_aligned_under_any_transform(write, patch):
    case = write("case", blocks(), image=blocks()[None] + np.float32(1))
    for seed in range(25):
        rng = np.random.default_rng(seed)
        place = draw_place(Aim(None, 2), case, patch, WILD, rng)
        sample = read_cutout(case, place, patch, unknown=3, outside=3).moved()
        near_integer = (sample.image[0] - sample.image[0].round()).abs() < 1e-4
        plain = near_integer & (sample.codes != 3)
        rough = (sample.image[0] - 1 - sample.codes.float())[plain].abs() > 0.5
        assert plain.sum() > 20
        # linear values between two blocks may hit a third value by chance, never more than a few
        assert rough.float().mean() < 0.02
        assert (sample.codes[sample.image[0] == 0] == 3).all()


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16), (14, 40, 40)], ids=["2d", "3d", "larger than the image"])
@pytest.mark.parametrize("in_plane", [False, True], ids=["", "in plane"])
def test_the_voxel_that_a_patch_was_drawn_for_is_in_it(write, patch, in_plane):
    case_codes = np.full(SHAPE, 3, np.uint8)
    rng = np.random.default_rng(0)
    for code in (0, 1, 2):
        case_codes[tuple(rng.integers(edge) for edge in SHAPE)] = code
    case_codes[0, 0, 0], case_codes[8, 29, 25] = 1, 2
    case = write("case", case_codes)
    recipe = moving(180, (0.5, 2.0), in_plane=in_plane and len(patch) == 3)
    for seed in range(40):
        code = seed % 3
        place = draw_place(Aim(None, code), case, patch, recipe, np.random.default_rng(seed))
        assert (read_cutout(case, place, patch, unknown=3, outside=3).moved().codes == code).any()


@pytest.mark.parametrize("patch", [(40, 40), (14, 40, 40)], ids=["2d", "3d"])
@pytest.mark.parametrize("recipe", [None, WILD], ids=["plain", "moved"])
def test_nothing_outside_is_background_in_sparse_data(write, patch, recipe):
    case = write("case", np.zeros(SHAPE, np.uint8), image=np.ones((1, *SHAPE), np.float32))
    place = draw_place(Aim(None, 0), case, patch, recipe, np.random.default_rng(3))
    sparse = read_cutout(case, place, patch, unknown=3, outside=3).moved()
    outside = sparse.image[0] == 0
    assert outside.any() and (sparse.codes[outside] == 3).all()
    assert (read_cutout(case, place, patch, unknown=3, outside=0).moved().codes == 0).all()


@pytest.mark.parametrize("patch", [(10, 12), (5, 10, 12)], ids=["2d", "3d"])
def test_an_identity_is_a_plain_crop(write, patch):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    case = write("case", rng.integers(0, 4, SHAPE), image=image)
    low = (3, 7, 9)[-len(patch) :]
    centre = tuple(start + (edge - 1) / 2 for start, edge in zip(low, patch, strict=True))
    draw = Warp(identity(len(patch)).matrix, (False,) * (len(patch) - 1) + (True,))
    sample = read_cutout(case, Place(centre, draw, 4 if len(patch) == 2 else None), patch, unknown=3, outside=3).moved()
    box = (slice(7, 17), slice(9, 21))
    where = (4, *box) if len(patch) == 2 else (slice(3, 8), *box)
    assert torch.equal(sample.image, torch.from_numpy(image[(slice(None), *where)][..., ::-1].copy()))
    assert torch.equal(sample.codes, torch.from_numpy(case.codes[where][..., ::-1].copy()))


def test_a_box_wholly_outside_the_image_holds_nothing(write):
    case = write("case", blocks())
    for draw in (identity(3), Warp(((1.5, 0, 0), (0, 1.5, 0), (0, 0, 1.5)), (False,) * 3)):
        sample = read_cutout(case, Place((100, 100, 100), draw), (4, 4, 4), unknown=3, outside=3).moved()
        assert not sample.image.any() and (sample.codes == 3).all()


def test_a_2d_patch_lies_in_the_slice_of_its_voxel_or_in_any(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[6, 4, 4] = 1
    case = write("case", codes)
    places = [draw_place(Aim(None, 1), case, (8, 8), MILD, np.random.default_rng(seed)) for seed in range(9)]
    assert {place.slice_index for place in places} == {6}
    places = [draw_place(Aim(None, None), case, (8, 8), MILD, np.random.default_rng(seed)) for seed in range(99)]
    assert {place.slice_index for place in places} == set(range(9))


def test_codes_beyond_uint8_are_kept(write):
    case = write("case", blocks())
    store = replace(case.arrays, codes=case.codes.astype(np.uint16) + np.uint16(400))
    sample = read_cutout(store, Place((4, 15, 13), identity(3)), (3, 8, 8), unknown=3, outside=3).moved()
    assert sample.codes.dtype == torch.int32 and sample.codes.min() >= 400


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16)], ids=["2d", "3d"])
def test_scribbles_between_voxels_that_say_only_what_is_absent_survive_any_transform(write, patch):
    codes = np.full(SHAPE, 4, np.uint8)  # {0, 1}: class 2 is absent
    codes[:, 12, 3:24], codes[:, 4:28, 11] = 1, 0
    absent = write("absent", codes, further=((0, 1),), undrawn=4)
    ignored = write("ignored", np.where(codes == 4, 3, codes))
    shrink = moving(20, (1.5, 1.5))
    for seed in range(10):
        place = draw_place(Aim(None, 1), absent, patch, shrink, np.random.default_rng(seed))
        one, other = (
            read_cutout(case, place, patch, unknown=case.entry.undrawn, outside=3).moved().codes
            for case in (absent, ignored)
        )
        inside = one != 3  # beyond the image both know nothing, and there it may win a vote against "not class 2"
        assert inside.float().mean() > 0.5
        drawn = other[inside] != 3
        assert (one[inside][drawn] != 4).float().mean() > 0.97
        assert drawn.sum() > 10
