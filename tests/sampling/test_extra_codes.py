"""Held-out annotation: whole blocks, the same everywhere, unknown to training. Zones: distances in mm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moving import moving

from autoseg.sampling import extra_codes
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.extra_codes import ExtraCodeRule, choose_extra_codes
from autoseg.sampling.loader import make_loader
from autoseg.sampling.patches import draw_place, read_cutout
from autoseg.sampling.places import Aim

SHAPE = (6, 24, 24)
RULE = ExtraCodeRule(0.3, (1, 4, 4), seed=5)
ZONES = ExtraCodeRule(0.3, (1, 4, 4), seed=5, zone_borders_mm=(2.0, 4.0, 8.0))
WILD = moving(180, (0.5, 2.0))


def scribbles() -> np.ndarray:
    """Unknown (3) but for lines of the classes 0, 1 and 2, and some voxels of a coarse set (4)."""
    codes = np.full(SHAPE, 3, np.uint8)
    codes[:, 2], codes[:, 9], codes[:, 16], codes[:, 20] = 0, 1, 2, 4
    return codes


@pytest.fixture
def case(write):
    return write("case", scribbles(), further=((1, 2),))


def test_only_single_classes_are_held_out_and_in_whole_blocks(case):
    changed = choose_extra_codes(case, RULE).apply(case.codes, (0, 0, 0))
    is_held_out = changed >= 5
    assert 0.15 < is_held_out.sum() / np.isin(case.codes, (0, 1, 2)).sum() < 0.45
    assert not is_held_out[np.isin(case.codes, (3, 4))].any()
    assert (changed[is_held_out] - 5 == case.codes[is_held_out]).all()
    assert (changed[~is_held_out] == case.codes[~is_held_out]).all()
    blocks = is_held_out[:, 9].reshape(6, 6, 4)  # a line crosses blocks of 4 voxels
    assert (blocks.all(axis=2) == blocks.any(axis=2)).all()


def test_a_box_gets_the_codes_of_the_whole_case(case):
    extra_codes = choose_extra_codes(case, RULE)
    whole = extra_codes.apply(case.codes, (0, 0, 0))
    box = (slice(2, 5), slice(3, 19), slice(5, 22))
    assert (extra_codes.apply(case.codes[box], (2, 3, 5)) == whole[box]).all()


def test_grids_over_large_cases_have_larger_cells(case, monkeypatch):
    monkeypatch.setattr(extra_codes, "MOST_CELLS", 30)
    found = choose_extra_codes(case, ZONES)
    assert found.held_out_blocks.values.size <= 30 and found.zones.values.size <= 30
    changed = found.apply(case.codes, (0, 0, 0))
    assert set(np.unique(changed)) > {0, 1, 2}
    for grid in (found.held_out_blocks, found.zones):
        assert all(n * edge >= length for n, edge, length in zip(grid.values.shape, grid.cell, SHAPE, strict=True))


def test_the_choice_follows_from_seed_and_name(case, write):
    def blocks(store, rule=RULE):
        return choose_extra_codes(store, rule).held_out_blocks.values

    other = write("other", scribbles(), further=((1, 2),))
    assert (blocks(case) == blocks(case)).all()
    assert (blocks(case) != blocks(other)).any()
    assert (blocks(case) != blocks(case, ExtraCodeRule(0.3, (1, 4, 4), seed=6))).any()


def test_a_code_that_would_mostly_be_held_out_stays_in_training(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[:, 2], codes[2, 9, 9] = 0, 1  # class 1: a single voxel, so its share is 0 or 1
    for seed in range(20):
        assert not choose_extra_codes(write("case", codes), ExtraCodeRule(0.5, (1, 4, 4), seed)).held_out[1]


def test_nothing_is_held_out_without_a_share_or_annotation(case, write):
    assert not choose_extra_codes(case, ExtraCodeRule(0.0, (1, 4, 4), 0)).held_out.any()
    assert not choose_extra_codes(write("empty", np.full(SHAPE, 3, np.uint8)), RULE).held_out.any()


def test_tables_hide_held_out_codes_from_training_only(case):
    plain = case.entry.table
    table = choose_extra_codes(case, RULE).extend(plain)
    assert table.held_out.tolist() == [False] * 5 + [True] * 3 + [False] * 2
    assert (table.drawn[:5] == plain.drawn).all() and (table.learnt[:5] == plain.drawn).all()
    assert (table.drawn[5:8] == plain.drawn[:3]).all() and table.drawn[8:].all()
    assert table.learnt[5:].all()
    assert table.zone.tolist() == [-1] * 10
    assert (len(plain), plain.base.tolist()) == (5, [0, 1, 2, 3, 4])


def test_zones_are_distances_from_foreground_annotation(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[2, 10, 10], codes[2, 0, 0] = 1, 0  # background annotation does not count
    case = write("case", codes)
    extra_codes = choose_extra_codes(case, ExtraCodeRule(0.0, (1, 4, 4), 0, zone_borders_mm=(4.0, 8.0)))
    z, y, x = np.indices(SHAPE)
    distance = np.sqrt((z - 2) ** 2 + (y - 10) ** 2 + (x - 10) ** 2)
    expected = 2 * 4 + np.digitize(distance, (4.0, 8.0))
    expected[codes != 3] = codes[codes != 3]
    assert (extra_codes.apply(codes, (0, 0, 0)) == expected).all()  # cells of one voxel here: exact
    table = extra_codes.extend(case.entry.table)
    assert table.zone.tolist() == [-1] * 8 + [0, 1, 2]
    assert table.base.tolist() == [*range(4), *range(4), 3, 3, 3]
    assert table.drawn[8:].all()


def test_without_foreground_annotation_everything_is_near(write):
    codes = np.full(SHAPE, 3, np.uint8)
    codes[2] = 0
    rule = ExtraCodeRule(0.0, (1, 4, 4), 0, zone_borders_mm=(4.0, 8.0))
    assert set(np.unique(choose_extra_codes(write("case", codes), rule).apply(codes, (0, 0, 0)))) == {0, 8}


@pytest.mark.parametrize("rule", [RULE, ZONES], ids=["held out", "zones too"])
@pytest.mark.parametrize("patch", [(16, 16), (4, 16, 16)], ids=["2d", "3d"])
def test_extra_codes_change_nothing_of_the_annotation_through_any_transform(case, patch, rule):
    extra_codes = choose_extra_codes(case, rule)
    base = torch.from_numpy(extra_codes.extend(case.entry.table).base)
    n_held_out = 0
    for seed in range(10):
        place = draw_place(Aim(None, 1), case, patch, WILD, np.random.default_rng(seed))
        plain = read_cutout(case, place, patch, unknown=3, outside=3).moved()
        changed = read_cutout(case, place, patch, unknown=3, outside=3, extra_codes=extra_codes, base=base).moved()
        assert torch.equal(changed.image, plain.image)
        assert torch.equal(base[changed.codes.long()], plain.codes.long())
        n_held_out += int(((changed.codes >= 5) & (changed.codes < 10)).sum())
    assert n_held_out > 50


def test_batches_tell_held_out_sets_and_zones_apart(case, make_labels, make_configuration):
    def batches(rule):
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
                extra_codes=rule,
            )
        )

    assert all(batch.table.held_out.any() for batch in batches(RULE))
    for batch in batches(ZONES):
        table = batch.table
        assert torch.equal(table.learnt, table.visible)  # nothing is promised
        assert set(table.zone.unique().tolist()) == {-1, 0, 1, 2, 3}
        assert table.drawn[table.zone >= 0].all()
        assert table.held_out.any() and table.visible[table.held_out].all()
        assert (table.drawn[table.held_out].sum(1) == 1).all()
    plain = batches(None)[0].table
    assert not plain.held_out.any() and (plain.zone == -1).all()


def test_zones_lie_where_nobody_annotated_though_a_class_is_absent(write):
    """The voxels keep what is known of them; apart from that their zones are those of unknown ones."""
    codes = scribbles()
    plain = write("plain", codes, further=((1, 2), (0, 2)))
    absent = write("absent", np.where(codes == 3, 5, codes).astype(np.uint8), further=((1, 2), (0, 2)), undrawn=5)
    of_plain, of_absent = (choose_extra_codes(case, ZONES) for case in (plain, absent))
    in_zones = of_plain.apply(plain.codes, (0, 0, 0)) >= 2 * 6
    np.testing.assert_array_equal(in_zones, of_absent.apply(absent.codes, (0, 0, 0)) >= 2 * 6)
    assert in_zones.any()
    table = of_absent.extend(absent.entry.table)
    assert (table.drawn[table.zone >= 0] == [True, False, True]).all()
    assert (table.learnt[table.zone >= 0] == [True, False, True]).all()
    assert not table.held_out[table.zone >= 0].any()
