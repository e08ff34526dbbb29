"""The description of a training patch: its position, its transform, and the meaning of its codes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.augmentation.recipes import nnunet_recipe
from autoseg.augmentation.sections import Section
from autoseg.augmentation.warp import identity
from autoseg.cases.cache import cached_source
from autoseg.cases.code_table import CodeTable
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.sampling.origin import Origin, origin_of
from autoseg.sampling.patch_view import Meaning, PatchView, class_set_name, meanings_of, scale_and_angle, section_moves
from autoseg.sampling.patches import Place
from autoseg.sampling.places import Aim, CaseContent

SHAPE = (12, 40, 36)


def view(codes, meanings, labels, **origin):
    given = {"centre": (1.0, 2.0, 3.0), "head": None, "code": None, "is_context": False} | origin
    n = np.ndim(codes)
    moved = {"matrix": tuple(map(tuple, np.eye(n).tolist())), "mirrors": (False,) * n}
    return PatchView(
        "case", 0, 0, np.zeros((1, *np.shape(codes)), np.float32), np.asarray(codes, np.uint8), tuple(meanings),
        (1.0,) * n, Origin(**(moved | given)), (1.0, 2.0, 3.0),
    )  # fmt: skip


@pytest.mark.parametrize("patch", [(11, 11), (5, 11, 11)], ids=["2d", "3d"])
def test_every_patch_voxel_shows_the_place_that_its_origin_says(write, make_labels, make_configuration, patch):
    """The image is its own coordinates, which linear interpolation reproduces wherever the patch lies."""
    codes = np.full(SHAPE, 3, np.uint8)
    codes[4:8, 15:25, 14:22] = 1
    coordinates = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")).astype(np.float32)
    case = write("case", codes, image=coordinates)
    configuration = make_configuration(patch, 4, (False,) * 3)
    batches = make_loader(
        [case.source], configuration, SamplingConfig(), nnunet_recipe(configuration), labels=make_labels(), start=0,
        stop=8, seed=1, changes_intensities=False,
    )  # fmt: skip
    n_axes, checked, moved = len(patch), 0, 0
    offsets = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in patch), indexing="ij")).reshape(n_axes, -1)
    for batch in batches:
        for sample, origin in enumerate(batch.origins):
            flipped = [axis for axis, is_mirrored in enumerate(origin.mirrors) if is_mirrored]
            image = np.flip(batch.images[sample].numpy(), [1 + axis for axis in flipped])
            expected = np.asarray(origin.centre)[3 - n_axes :, None] + np.asarray(origin.matrix) @ offsets
            edges = np.asarray(SHAPE[3 - n_axes :])[:, None]
            inside = ((expected >= 0) & (expected <= edges - 1)).all(axis=0)
            found = image[3 - n_axes :].reshape(n_axes, -1)
            np.testing.assert_allclose(found[:, inside], expected[:, inside], atol=1e-3)
            assert n_axes == 3 or (image[0].reshape(-1)[inside] == origin.centre[0]).all()
            checked += int(inside.sum())
            moved += not np.array_equal(origin.matrix, np.eye(n_axes))
    assert checked > 1000 and moved > 3


def test_the_class_that_was_forced_is_the_one_at_the_aim(write, make_labels, make_configuration):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[6, 20, 18], codes[2, 5, 6] = 1, 2
    case = write("case", codes)
    sampling = SamplingConfig(forced_fraction=1)
    loader = make_loader(
        [case.source], make_configuration((3, 5, 5), 8), sampling, None, labels=make_labels(), start=0, stop=1, seed=0
    )
    origins = next(loader).origins
    assert {(origin.head, origin.centre) for origin in origins} == {(1, (6, 20, 18)), (2, (2, 5, 6))}
    assert all(origin.code == origin.head and not origin.is_context for origin in origins)


def test_meanings_tell_annotated_held_out_promised_and_unannotated_apart():
    everything = [True, True, True]
    drawn = np.array([[1, 0, 0], [0, 1, 1], everything, everything, everything], bool)
    learnt = np.array([[1, 0, 0], [0, 1, 1], [1, 0, 1], everything, everything], bool)
    held_out = np.arange(5) == 3
    drawn[3] = [False, True, False]
    table = replace(CodeTable.of_sets(drawn, learnt, 4), held_out=held_out)
    assert meanings_of(table) == (
        Meaning("annotated", frozenset({0})),
        Meaning("annotated", frozenset({1, 2})),
        Meaning("inferred", frozenset({0, 2})),
        Meaning("held out", frozenset({1})),
        Meaning("unannotated", frozenset({0, 1, 2})),
    )


def test_a_voxel_of_which_only_an_absent_class_is_known_is_not_annotated(make_labels):
    table = np.array([[1, 1, 0], [0, 1, 0]], bool)
    unannotated, annotated = meanings_of(CodeTable.of_sets(table, table, 0))
    assert unannotated == ("unannotated", {0, 1})
    assert unannotated.text(make_labels()) == "unannotated, not class2"
    assert annotated.text(make_labels()) == "class1"


@pytest.mark.parametrize(
    ("classes", "name"),
    [
        ((1,), "class1"),
        ((1, 2), "class1 or class2"),
        ((0, 1, 2), "class0, class1 or class2"),
        ((0, 1, 2, 3, 4), "any but class5"),
        ((), "no class"),
    ],
)
def test_sets_are_named_by_what_is_shorter(make_labels, classes, name):
    assert class_set_name(frozenset(classes), make_labels(6)) == name


def test_shares_and_counts(make_labels):
    labels = make_labels()
    kinds = [Meaning("annotated", frozenset({1})), Meaning("unannotated", frozenset({0, 1, 2}))]
    seen = view([[0, 1], [1, 1]], kinds, labels, head=1, code=1)
    assert seen.annotated_share == 0.25
    assert seen.counts() == {kinds[1]: 3, kinds[0]: 1}
    listed = seen.as_json(labels)
    assert listed["forced"] == "class1" and listed["centre"] == {"z": 1.0, "y": 2.0, "x": 3.0}
    assert listed["voxels"][1] == {"kind": "annotated", "classes": ["class1"], "n": 1}


def test_a_displaced_patch_says_so(make_labels):
    field = np.zeros((2, 5, 5), np.float32)
    field[:, 1, 2] = 3, -4
    content = CaseContent(cached_source(Path(), "case"), SHAPE, {}, (), False, ())
    place = Place((2.0, 2.0), identity(2).displaced(field), slice_index=7)
    origin = origin_of(Aim(content, None), place)
    assert origin.centre == (7, 2, 2) and origin.displaced == 5
    seen = view([[0]], [Meaning("annotated", frozenset({1}))], make_labels(), displaced=origin.displaced)
    assert seen.transform() == "displaced by up to 5.0 voxels"
    assert seen.as_json(make_labels())["displaced"] == 5


def rotation(angle, n_axes=2, plane=(0, 1)):
    matrix = np.eye(n_axes)
    matrix[np.ix_(plane, plane)] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return matrix


@pytest.mark.parametrize("matrix", [rotation(0.5), rotation(-0.5, 3, (0, 2)), rotation(0.5, 3, (1, 2))])
def test_scale_and_angle_of_a_rotation(matrix):
    assert scale_and_angle(0.8 * matrix) == pytest.approx((0.8, math.degrees(0.5)))


def test_a_rotation_in_the_plane_of_a_volume_scales_the_plane():
    matrix = np.eye(3)
    matrix[1:, 1:] = 1.25 * rotation(0.5)
    assert scale_and_angle(matrix) == pytest.approx((1.25, math.degrees(0.5)))


def test_moved_sections_are_named_in_words():
    shifted = Section(shift=(2.0, -3.0))
    assert section_moves(()) == []
    assert section_moves((Section(), shifted, Section())) == ["section 1 shifted by 2, -3"]
    assert section_moves((Section(), Section(angle=np.pi / 60), Section(angle=np.pi / 60))) == [
        "sections 1 on turned by 3.0 degrees"
    ]
    assert section_moves((Section(), Section(1), Section(2))) == ["2 sections missing"]
