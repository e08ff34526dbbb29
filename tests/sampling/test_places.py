"""Positions of patches: informative, balanced over the data set, and inside the image."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.cases.cache import cached_source
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Head, Labels
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.patches import covered_box, draw_place
from autoseg.sampling.places import (
    Aim,
    CaseContent,
    Sampler,
    box_anywhere,
    box_around,
    draw_voxel,
    intensity_generators,
    sample_rng,
)


def content(name: str, counts: dict[int, int], *, dense: bool = False, priority: float = 1.0) -> CaseContent:
    """A case of a data set with classes 0 (background), 1, 2, softmax."""
    heads = ((), *(((code,) if code in counts else ()) for code in (1, 2)))
    return CaseContent(
        cached_source(Path(), name, priority), (10, 10, 10), counts, heads, dense, tuple((code,) for code in counts)
    )


def draws(sampler: Sampler, count: int = 3000):
    return [sampler.draw(sample_rng(0, iteration, 0)) for iteration in range(count)]


def test_a_class_of_one_case_in_twenty_is_forced_as_often_as_the_others():
    cases = [content(f"c{i}", {0: 900, 1: 100}, dense=True) for i in range(19)]
    cases.append(content("rare", {0: 900, 1: 99, 2: 1}, dense=True))
    aims = Counter(aim.code for aim in draws(Sampler(cases, SamplingConfig(forced_fraction=1))))
    assert aims[2] / 3000 == pytest.approx(0.5, abs=0.04)
    assert set(aims) == {1, 2}


def test_forced_fraction_is_a_probability_per_sample():
    cases = [content("dense", {0: 500, 1: 500}, dense=True)]
    for fraction in (0.0, 1 / 3, 1.0):
        aims = draws(Sampler(cases, SamplingConfig(forced_fraction=fraction)))
        assert np.mean([aim.code is not None for aim in aims]) == pytest.approx(fraction, abs=0.04)


def test_sparse_cases_are_not_dominated_by_the_most_voluminous_annotation():
    cases = [content("sparse", {0: 990, 1: 9, 2: 1})]
    aims = Counter(aim.code for aim in draws(Sampler(cases, SamplingConfig(forced_fraction=0))))
    assert all(aims[code] / 3000 == pytest.approx(1 / 3, abs=0.04) for code in (0, 1, 2))


def test_context_patches_are_drawn_at_the_set_rate():
    sampler = Sampler([content("sparse", {0: 9, 1: 9})], SamplingConfig(forced_fraction=0.5, context_fraction=0.5))
    assert np.mean([aim.code is None for aim in draws(sampler)]) == pytest.approx(0.25, abs=0.04)


def test_priority_weighs_cases_and_cases_without_annotation_are_never_drawn():
    cases = [content("often", {1: 5}, priority=3), content("seldom", {1: 5}), content("empty", {})]
    cases.append(content("never", {1: 5}, priority=0))
    for fraction in (0.0, 1.0):
        names = Counter(aim.case.name for aim in draws(Sampler(cases, SamplingConfig(forced_fraction=fraction))))
        assert set(names) == {"often", "seldom"}
        assert names["often"] / 3000 == pytest.approx(0.75, abs=0.04)


def test_a_data_set_without_annotation_is_refused():
    with pytest.raises(ConfigError, match="found no annotated voxel in 1 cases"):
        Sampler([content("empty", {})], SamplingConfig())


def test_region_heads_are_forced_through_any_code_inside_the_region(write):
    heads = (Head("whole", (1, 2), (1, 2)), Head("core", (2,), (2,)))
    labels = Labels((0, 1, 2), ("background", "rim", "core"), heads, paint_values=(1, 2), ignore=3)
    codes = np.full((4, 5, 6), 3)
    codes[0, 0, :4], codes[0, 1, :2], codes[1, 0, :3], codes[2, 2, 2] = 1, 2, 4, 0
    case = write("case", codes, further=((1, 2),))
    summary = CaseContent.from_entry(case.source, case.entry, labels)
    assert summary.head_codes == ((1, 2, 4), (2,))
    assert summary.counts == {0: 1, 1: 4, 2: 2, 4: 3}
    assert not summary.is_dense
    aims = Counter(aim.code for aim in draws(Sampler([summary], SamplingConfig(forced_fraction=1))))
    assert aims[2] / 3000 == pytest.approx(0.5 + 0.5 * 2 / 9, abs=0.04)


def test_a_case_is_dense_when_every_voxel_says_something_and_most_carry_one_class(write, make_labels):
    def is_dense(codes: np.ndarray, **more) -> bool:
        case = write("case", codes, **more)
        return CaseContent.from_entry(case.source, case.entry, make_labels()).is_dense

    codes = np.zeros((2, 3, 3))
    assert is_dense(codes)
    assert not is_dense(codes + 4, further=((0, 2),))
    codes[0, 0, 0] = 4  # a coarse value in a dense case
    assert is_dense(codes, further=((1, 2),))
    codes[0, 0, 0] = 3
    assert not is_dense(codes)


@pytest.mark.parametrize("shape", [(1, 20, 30), (6, 20, 30)], ids=["2d", "3d"])
def test_a_case_that_only_says_what_it_does_not_hold_is_drawn_everywhere_but_never_forced(write, make_labels, shape):
    case = write("lazy", np.full(shape, 4), further=((0, 1),))
    other = write("drawn", np.arange(np.prod(shape)).reshape(shape) % 3)
    lazy, drawn = (CaseContent.from_entry(c.source, c.entry, make_labels()) for c in (case, other))
    assert lazy.head_codes == ((), (), ())
    aims = draws(Sampler([lazy, drawn], SamplingConfig(forced_fraction=0)))
    of_lazy = [aim for aim in aims if aim.case.name == "lazy"]
    assert len(of_lazy) / 3000 == pytest.approx(0.5, abs=0.04)
    assert {aim.code for aim in of_lazy} == {4}
    rng = np.random.default_rng(0)
    voxels = np.array([draw_voxel(case, 4, rng) for _ in range(2000)])
    assert (np.abs(voxels.mean(0) - (np.array(shape) - 1) / 2) < 0.1 * np.array(shape)).all()
    forced = draws(Sampler([lazy, drawn], SamplingConfig(forced_fraction=1)))
    assert {aim.case.name for aim in forced} == {"drawn"}
    alone = Sampler([lazy], SamplingConfig(forced_fraction=1))
    assert alone.heads == () and {aim.code for aim in draws(alone, 50)} == {4}


def test_scribbles_are_found_in_a_case_that_also_says_what_it_does_not_hold(write, make_labels):
    codes = np.full((4, 20, 20), 4)  # "not class 2" wherever nothing is drawn
    codes[1, 3, :10], codes[2, 5, :4] = 0, 1
    case = write("case", codes, further=((0, 1),))
    content = CaseContent.from_entry(case.source, case.entry, make_labels())
    aims = Counter(aim.code for aim in draws(Sampler([content], SamplingConfig(forced_fraction=0))))
    assert all(aims[code] / 3000 == pytest.approx(1 / 3, abs=0.04) for code in (0, 1, 4))


def test_codes_of_the_same_drawn_set_count_as_one(write, make_labels):
    """As when a promise narrows a part of what was drawn alike: (drawn, inferred) pairs share their drawn set."""
    codes = np.full((3, 10, 10), 3)
    codes[0, 0, :8], codes[1, 0, :6], codes[2, 0, :2] = 1, 4, 5
    case = write("case", codes, further=((0, 1), (0, 1)))
    content = CaseContent.from_entry(case.source, case.entry, make_labels())
    assert content.code_groups == ((1,), (4, 5))
    aims = Counter(aim.code for aim in draws(Sampler([content], SamplingConfig(forced_fraction=0))))
    assert aims[1] / 3000 == pytest.approx(1 / 2, abs=0.04)
    assert aims[4] / 3000 == pytest.approx(3 / 8, abs=0.04)


@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 12, 12)], ids=["2d", "3d"])
def test_a_class_of_two_cases_in_a_hundred_is_drawn_as_often_as_the_others(write, make_labels, shape):
    common = np.full(shape, 3)
    common[0, 2, :5], common[0, 8, :9] = 0, 1
    rare = common.copy()
    rare[0, 5, 5] = 2
    contents = []
    for name, codes in (("common", common), ("rare", rare)):
        case = write(name, codes)
        contents.append(CaseContent.from_entry(case.source, case.entry, make_labels()))
    cases = [replace(contents[0], source=replace(contents[0].source, name=f"c{index}")) for index in range(98)]
    cases += [replace(contents[1], source=replace(contents[1].source, name=f"rare{index}")) for index in range(2)]
    aims = draws(Sampler(cases, SamplingConfig(forced_fraction=1)))
    assert np.mean([aim.code == 2 for aim in aims]) == pytest.approx(0.5, abs=0.04)
    holders = Counter(aim.case.name for aim in aims if aim.code == 2)
    assert set(holders) == {"rare0", "rare1"} and min(holders.values()) > 0.4 * sum(holders.values())
    usual = draws(Sampler(cases, SamplingConfig()))
    assert np.mean([aim.code == 2 for aim in usual]) > 1 / 6 - 0.03


def test_drawn_voxels_carry_the_code(write):
    codes = np.random.default_rng(0).integers(0, 4, (3, 4, 5))
    case = write("case", codes)
    rng = np.random.default_rng(1)
    seen = {(code, draw_voxel(case, code, rng)) for code in (0, 1, 2) for _ in range(400)}
    assert all(codes[voxel] == code for code, voxel in seen)
    assert len(seen) == (codes < 3).sum()


@pytest.mark.parametrize("shape", [(30, 9), (30, 9, 12)], ids=["2d", "3d"])
def test_boxes_lie_in_the_image_or_centre_it(shape):
    patch = (10, 12, 12)[: len(shape)]
    rng = np.random.default_rng(0)
    lows = {tuple(box_anywhere(shape, patch, rng)) for _ in range(600)}
    assert {low[0] for low in lows} == set(range(21))
    assert {low[1] for low in lows} == {-2, -1}
    assert len(shape) == 2 or {low[2] for low in lows} == {0}


def test_boxes_around_a_voxel_are_centred_and_moved_inside_at_both_borders():
    rng = np.random.default_rng(0)
    for voxel, low in ((50, 18), (2, 0), (98, 36), (99, 36)):
        assert box_around([voxel], [100], [64], rng) == [low]
    assert {box_around([4], [5], [8], rng)[0] for _ in range(50)} == {-2, -1}


@pytest.mark.parametrize("patch", [(4, 6), (2, 4, 6), (5, 30, 6)], ids=["2d", "3d", "larger than the box"])
def test_patches_of_a_dense_box_lie_in_it_and_reach_into_its_context(write, make_labels, patch):
    codes = np.full((12, 40, 40), 3)
    own = (slice(4, 8), slice(0, 20), slice(20, 30))
    codes[own] = 1
    case = write("case", codes, context=((4, 0, 20), (4, 20, 10)))
    content = CaseContent.from_entry(case.source, case.entry, make_labels())
    assert content.is_dense  # its context does not count
    aim, rng = Aim(content, None), np.random.default_rng(0)
    covered = [covered_box(draw_place(aim, case, patch, None, rng), patch) for _ in range(400)]
    lows = np.rint([low for low, _ in covered]).astype(int)
    edges = (1,) * (3 - len(patch)) + patch
    for axis, (part, edge, whole) in enumerate(zip(own, edges, codes.shape, strict=True)):
        first, room = part.start, part.stop - part.start - edge
        expected = set(range(first, first + room + 1)) if room >= 0 else {first - (1 - room) // 2, first - -room // 2}
        assert {*lows[:, axis]} == {min(max(at, 0), whole - edge) for at in expected}


def test_streams_of_random_numbers_differ_by_seed_iteration_and_sample():
    keys = [(seed, iteration, sample) for seed in (0, 1) for iteration in (0, 1) for sample in (0, 1)]
    assert len({sample_rng(*key).random() for key in keys}) == 8
    assert sample_rng(0, 1, 0).random() == sample_rng(0, 1, 0).random()
    made = [intensity_generators(seed, iteration, range(2)) for seed in (0, 1) for iteration in (0, 1)]
    assert len({generator.initial_seed() for generators in made for generator in generators}) == 8
    assert intensity_generators(1, 1, [1])[0].initial_seed() == made[3][1].initial_seed()


def test_fractions_outside_0_to_1_are_refused():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        SamplingConfig(forced_fraction=1.5)
