"""Held-out annotation: whole blocks, the same everywhere, unknown to training. Rings: distances in mm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.held_out import Marking, mark_case, plain_tables
from autoseg.sampling.loader import make_loader
from autoseg.sampling.patches import draw_place, read_patch
from autoseg.sampling.places import Aim

SHAPE = (6, 24, 24)
RULE = Marking(0.3, (1, 4, 4), seed=5)
RINGS = Marking(0.3, (1, 4, 4), seed=5, distances=(2.0, 4.0, 8.0))
WILD = moving(180, (0.5, 2.0))


def scribbles() -> np.ndarray:
    """Unknown (3) but for lines of the classes 0, 1 and 2, and some voxels of a coarse set (4)."""
    codes = np.full(SHAPE, 3, np.uint8)
    codes[:, 2], codes[:, 9], codes[:, 16], codes[:, 20] = 0, 1, 2, 4
    return codes


@pytest.fixture
def case(write):
    return write("case", scribbles(), further=((1, 2),))


def test_only_drawn_single_classes_are_held_out_and_in_whole_blocks(case):
    held = mark_case(case, RULE)
    marked = held.mark(case.codes, (0, 0, 0))
    is_held = marked >= 5
    assert 0.15 < is_held.sum() / np.isin(case.codes, (0, 1, 2)).sum() < 0.45
    assert not is_held[np.isin(case.codes, (3, 4))].any()
    assert (marked[is_held] - 5 == case.codes[is_held]).all()
    assert (marked[~is_held] == case.codes[~is_held]).all()
    blocks = is_held[:, 9].reshape(6, 6, 4)  # a line crosses blocks of 4 voxels
    assert (blocks.all(axis=2) == blocks.any(axis=2)).all()


def test_a_box_is_marked_as_the_whole_case_is(case):
    held = mark_case(case, RULE)
    whole = held.mark(case.codes, (0, 0, 0))
    box = (slice(2, 5), slice(3, 19), slice(5, 22))
    assert (held.mark(case.codes[box], (2, 3, 5)) == whole[box]).all()


def test_the_choice_follows_from_seed_and_name(case, write):
    other = write("other", scribbles(), further=((1, 2),))
    assert (mark_case(case, RULE).blocks == mark_case(case, RULE).blocks).all()
    assert (mark_case(case, RULE).blocks != mark_case(other, RULE).blocks).any()
    assert (mark_case(case, RULE).blocks != mark_case(case, Marking(0.3, (1, 4, 4), seed=6)).blocks).any()


def test_a_code_that_would_mostly_be_held_out_stays_in_training(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[:, 2], codes[2, 9, 9] = 0, 1  # class 1: a single voxel, so its share is 0 or 1
    for seed in range(20):
        assert not mark_case(write("case", codes), Marking(0.5, (1, 4, 4), seed)).codes[1]


def test_nothing_is_held_out_without_a_share_or_annotation(case, write):
    assert not mark_case(case, Marking(0.0, (1, 4, 4), 0)).codes.any()
    assert not mark_case(write("empty", np.full(SHAPE, 3, np.uint8)), RULE).codes.any()


def test_tables_hide_held_out_codes_from_training_only(case):
    held = mark_case(case, RULE)
    table = case.entry.table
    tables = held.tables(plain_tables(table, table, 3))
    assert (tables.drawn[:5] == table).all() and tables.drawn[5:].all()
    assert (tables.inferred == tables.drawn).all()
    assert tables.held[:5].all()
    assert (tables.held[5:8] == table[:3]).all() and tables.held[8:].all()
    assert tables.rings.tolist() == [-1] * 10
    plain = plain_tables(table, table, 3)
    assert (len(plain.drawn), len(plain.held), plain.to_drawn.tolist()) == (5, 5, [0, 1, 2, 3, 4])


def test_rings_are_distances_from_foreground_annotation(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[2, 10, 10], codes[2, 0, 0] = 1, 0  # background annotation does not count
    marks = mark_case(write("case", codes), Marking(0.0, (1, 4, 4), 0, distances=(4.0, 8.0)))
    marked = marks.mark(codes, (0, 0, 0))
    z, y, x = np.indices(SHAPE)
    away = np.sqrt((z - 2) ** 2 + (y - 10) ** 2 + (x - 10) ** 2)
    expected = 2 * 4 + np.digitize(away, (4.0, 8.0))
    expected[codes != 3] = codes[codes != 3]
    assert (marked == expected).all()  # cells of one voxel here: exact
    drawn = np.eye(4, 3, dtype=bool) | (np.arange(4) == 3)[:, None]
    tables = marks.tables(plain_tables(drawn, drawn, 3))
    assert tables.rings.tolist() == [-1] * 8 + [0, 1, 2]
    assert tables.to_drawn.tolist() == [*range(4), *range(4), 3, 3, 3]
    assert tables.drawn[8:].all()


def test_without_foreground_annotation_everything_is_near(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[2] = 0
    marks = mark_case(write("case", codes), Marking(0.0, (1, 4, 4), 0, distances=(4.0, 8.0)))
    assert set(np.unique(marks.mark(codes, (0, 0, 0)))) == {0, 8}


@pytest.mark.parametrize("rule", [RULE, RINGS], ids=["held out", "rings too"])
@pytest.mark.parametrize("patch", [(16, 16), (4, 16, 16)], ids=["2d", "3d"])
def test_marks_change_nothing_of_what_was_drawn_through_any_transform(case, patch, rule):
    marks = mark_case(case, rule)
    to_drawn = torch.from_numpy(marks.tables(plain_tables(case.entry.table, case.entry.table, 3)).to_drawn)
    held = 0
    for seed in range(10):
        place = draw_place(Aim(None, 1), case, patch, WILD, np.random.default_rng(seed))
        plain = read_patch(case, place, patch, unknown=3, outside=3)
        marked = read_patch(case, place, patch, unknown=3, outside=3, marks=marks, to_drawn=to_drawn)
        assert torch.equal(marked.image, plain.image)
        assert torch.equal(to_drawn[marked.codes.long()], plain.codes.long())
        held += int(((marked.codes >= 5) & (marked.codes < 10)).sum())
    assert held > 50


def test_codes_drawn_alike_stand_for_the_first_of_them():
    drawn = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 1]], dtype=bool)
    inferred = np.array([[1, 0], [0, 1], [1, 1], [0, 1], [1, 0]], dtype=bool)
    assert plain_tables(drawn, inferred, 2).to_drawn.tolist() == [0, 1, 2, 1, 2]


def test_batches_tell_held_out_sets_and_rings_apart(case, make_labels, make_configuration):
    def batches(marking):
        return list(
            make_loader(
                [case.source],
                make_configuration((16, 16)),
                SamplingConfig(),
                None,
                labels=make_labels(),
                start=0,
                stop=3,
                seed=0,
                marking=marking,
            )
        )

    assert any(batch.held_sets is not None for batch in batches(RULE))
    for batch in batches(RINGS):
        assert batch.inferred_sets is None
        assert batch.rings.shape == batch.label_sets.shape[:2]
        assert batch.label_sets[batch.rings >= 0].all()
        if batch.held_sets is not None:
            assert batch.held_sets.shape == batch.label_sets.shape
            assert (batch.held_sets | batch.label_sets).all()  # what is held out is unknown, and the other way round
    plain = batches(None)[0]
    assert plain.held_sets is None and plain.rings is None


def test_rings_lie_where_nobody_drew_though_a_class_is_absent(write):
    """The voxels keep what is known of them; apart from that they are marked as unknown ones are."""
    codes = scribbles()
    plain = write("plain", codes, further=((1, 2), (0, 2)))
    absent = write("absent", np.where(codes == 3, 5, codes).astype(np.uint8), further=((1, 2), (0, 2)), undrawn=5)
    marks = [mark_case(case, RINGS) for case in (plain, absent)]
    rings = [mark.mark(case.codes, (0, 0, 0)) >= 2 * 6 for mark, case in zip(marks, (plain, absent), strict=True)]
    np.testing.assert_array_equal(*rings)
    assert rings[0].any()
    table = absent.entry.table
    tables = marks[1].tables(plain_tables(table, table, 5))
    assert (tables.drawn[tables.rings >= 0] == table[5]).all()
    assert (tables.inferred[tables.rings >= 0] == table[5]).all()
    assert tables.held[tables.rings >= 0].all()
