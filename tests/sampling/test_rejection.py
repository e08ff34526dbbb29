"""Rejection: counts by summed-area tables, and places drawn again only where, and as often as, it was asked for."""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from moving import moving

from autoseg.dataset.labels import CaseStatement, foreground_codes, informative_codes
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.loader import make_loader
from autoseg.sampling.patches import covered_box, draw_place, read_cutout
from autoseg.sampling.places import Aim, CaseContent, Sampler, sample_rng
from autoseg.sampling.rejection import AreaTable, PatchContent, Rejection

SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1]], dtype=bool)
SPEAKS = informative_codes(SETS), foreground_codes(SETS)
UNKNOWN = 3
MILD = moving(30)


def by_hand(codes: np.ndarray, low, high) -> tuple[int, int, int]:
    box = tuple(slice(max(a, 0), max(min(b, n), 0)) for a, b, n in zip(low, high, codes.shape, strict=True))
    part = codes[box]
    return part.size, int((part != UNKNOWN).sum()), int(np.isin(part, (1, 2, 4)).sum())


def rejection(**settings) -> Rejection:
    return Rejection(SamplingConfig(**settings), n_cases=1)


@pytest.mark.parametrize("shape", [(1, 17, 23), (9, 14, 11)], ids=["2d", "3d"])
def test_a_table_of_every_voxel_counts_exactly(shape):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 6, shape).astype(np.uint8)
    table = AreaTable.build(codes.shape, lambda box: codes[box.slices], *SPEAKS, 10**6)
    assert table.sums.shape == (2, *(length + 1 for length in shape))
    for _ in range(100):
        low = rng.integers(-4, np.array(shape) + 2)
        high = low + rng.integers(1, 12, 3)
        found = table.count((low, high))
        assert (found.voxels, found.annotated, found.foreground) == by_hand(codes, low, high)


@pytest.mark.parametrize("n_axes", [2, 3])
def test_a_coarse_table_is_exact_at_its_corners_and_off_by_its_border_blocks_at_most(n_axes):
    rng = np.random.default_rng(1)
    codes = np.where(rng.random((12, 40, 33)) < 0.2, rng.integers(0, 3, (12, 40, 33)), UNKNOWN).astype(np.uint8)
    table = AreaTable.build(codes.shape, lambda box: codes[box.slices], *SPEAKS, 2000, n_axes=n_axes)
    assert np.prod([len(corners) - 1 for corners in table.corners]) <= 2000
    assert n_axes == 3 or len(table.corners[0]) == 13  # slices stay apart
    for _ in range(100):
        first, last = zip(*(sorted(rng.choice(corners, 2, replace=False)) for corners in table.corners), strict=True)
        assert table.count((first, last)).annotated == pytest.approx(by_hand(codes, first, last)[1])
        low = rng.integers(-2, 30, 3)
        high = low + rng.integers(6, 20, 3)
        found, size = table.count((low, high)), by_hand(codes, low, high)[0]
        inner = [corners[np.searchsorted(corners, [a, b])] for a, b, corners in _clipped(low, high, table)]
        outer = [corners[np.searchsorted(corners, [a, b], "right") - 1] for a, b, corners in _clipped(low, high, table)]
        least = by_hand(codes, [i[0] for i in inner], [max(o[1], i[0]) for i, o in zip(inner, outer, strict=True)])
        most = by_hand(codes, [o[0] for o in outer], [i[1] for i in inner])
        assert found.voxels == size
        assert least[1] - 1e-9 <= found.annotated <= most[1] + 1e-9
        assert least[2] - 1e-9 <= found.foreground <= most[2] + 1e-9


def _clipped(low, high, table):
    for a, b, corners in zip(low, high, table.corners, strict=True):
        yield min(max(a, 0), corners[-1]), min(max(b, 0), corners[-1]), corners


@pytest.mark.parametrize("read_box", [(4, 8, 16), (64, 2, 2), (1, 64, 4)])
@pytest.mark.parametrize("n_axes", [2, 3])
def test_a_table_is_the_same_whatever_boxes_it_is_read_in(monkeypatch, read_box, n_axes):
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 6, (13, 40, 33)).astype(np.uint8)
    whole = AreaTable.build(codes.shape, lambda box: codes[box.slices], *SPEAKS, 300, n_axes=n_axes)
    largest = []

    def read(box):
        largest.append(box.shape)
        return codes[box.slices]

    monkeypatch.setattr("autoseg.sampling.rejection.READ_BOX", read_box)
    in_boxes = AreaTable.build(codes.shape, read, *SPEAKS, 300, n_axes=n_axes)
    np.testing.assert_array_equal(in_boxes.sums, whole.sums)
    assert (np.max(largest, axis=0) <= read_box).all()


def test_a_uniform_case_is_counted_exactly_by_any_table():
    codes = np.ones((30, 31, 32), np.uint8)
    found = AreaTable.build(codes.shape, lambda box: codes[box.slices], *SPEAKS, 50).count(
        ((1, -3, 7.5), (9, 5, 12.25))
    )
    assert (found.voxels, found.annotated, found.foreground) == pytest.approx((8 * 5 * 4.75,) * 3)
    assert found.annotated_share == pytest.approx(1)


def test_nothing_lies_outside_the_image():
    codes = np.zeros((3, 4, 5), np.uint8)
    table = AreaTable.build(codes.shape, lambda box: codes[box.slices], *SPEAKS, 100)
    assert table.count(((50, 0, 0), (60, 4, 5))) == PatchContent(0, 0, 0)
    assert PatchContent(0, 0, 0).annotated_share == 0


def patches(case, aim, patch, recipe=None, count=200, **settings):
    """Codes of patches drawn with the settings."""
    chosen = rejection(**settings)
    for seed in range(count):
        place = draw_place(aim, case, patch, recipe, np.random.default_rng(seed), chosen)
        yield read_cutout(case, place, patch, unknown=UNKNOWN, outside=UNKNOWN).moved().codes.numpy()


def half_annotated(shape=(6, 30, 40)) -> np.ndarray:
    """Annotated in the left half, with a small square of class 1 there."""
    codes = np.full(shape, UNKNOWN, np.uint8)
    codes[..., : shape[2] // 2] = 0
    codes[:, 10:14, 5:9] = 1
    return codes


@pytest.mark.parametrize("patch", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_every_patch_is_as_annotated_as_asked_for(write, patch):
    case = write("case", half_annotated())
    aim = Aim(None, None)
    shares = [(codes != UNKNOWN).mean() for codes in patches(case, aim, patch, min_annotated=0.75)]
    assert min(shares) >= 0.75
    assert min((codes != UNKNOWN).mean() for codes in patches(case, aim, patch)) == 0
    assert max((codes != UNKNOWN).mean() for codes in patches(case, aim, patch)) == 1


@pytest.mark.parametrize("patch", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_the_forced_code_stays_in_a_patch_that_was_drawn_again(write, patch):
    codes = half_annotated()
    codes[:, :, 22] = 2  # only unknown beside it, so that most of it is refused
    codes[:, 28:, 18:] = 2
    case = write("case", codes)
    drawn = list(patches(case, Aim(None, 2), patch, MILD, min_annotated=0.4, count=60))
    assert all((part == 2).any() for part in drawn)
    plain = list(patches(case, Aim(None, 2), patch, MILD, count=60))
    assert np.mean([(part != UNKNOWN).mean() for part in drawn]) > np.mean([(part != UNKNOWN).mean() for part in plain])


def test_too_little_foreground_is_refused_with_the_set_probability(write):
    """Of places of which a share a is good, a/(a + (1 - a)(1 - P)) are taken when attempts abound."""
    codes = np.zeros((1, 64, 64), np.uint8)
    codes[:, 20:36, 20:36] = 1
    case, patch, count = write("case", codes), (8, 8), 400

    def good(**settings) -> float:
        chosen = rejection(max_attempts=100, **settings)
        places = (
            draw_place(Aim(None, None), case, patch, None, np.random.default_rng(i), chosen) for i in range(count)
        )
        return float(np.mean([by_hand(codes, *map(_whole, covered_box(place, patch)))[2] >= 16 for place in places]))

    usual = 0.114  # exactly: of 57 x 57 places
    assert good() == pytest.approx(usual, abs=0.04)
    found = good(min_foreground_voxels=16, reject_probability=0.9)
    assert found == pytest.approx(usual / (usual + (1 - usual) * 0.1), abs=0.06)
    assert good(min_foreground_voxels=16, reject_probability=1) == 1
    assert good(min_foreground_voxels=16, reject_probability=0) == pytest.approx(usual, abs=0.04)


@pytest.mark.parametrize("patch", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_the_best_place_is_taken_and_the_case_named_once_when_none_is_good_enough(write, caplog, patch):
    codes = half_annotated()
    codes[:, ::2] = UNKNOWN
    case = write("thin", codes)
    chosen = rejection(min_annotated=0.9, max_attempts=15)

    def annotated(place) -> int:
        return by_hand(codes, *map(_whole, covered_box(place, patch)))[1]

    for seed in range(5):
        best = draw_place(Aim(None, None), case, patch, None, np.random.default_rng(seed), chosen)
        rng = np.random.default_rng(seed)
        places = [draw_place(Aim(None, None), case, patch, None, rng) for _ in range(15)]
        assert annotated(best) == max(map(annotated, places))
    ((case, note),) = chosen.notes.items()
    assert case == "thin" and "Lower these settings" in note
    assert "case thin: found no place for a patch in 15 tries, expected one with at least 90 % of its" in note


def _whole(edge) -> list[int]:
    return [int(value) for value in edge]


def test_context_patches_are_never_refused(write, caplog):
    case = write("case", half_annotated())
    settings = {"min_annotated": 1.0, "max_attempts": 3}
    assert min((part != UNKNOWN).mean() for part in patches(case, Aim(None, None, True), (4, 8, 8), **settings)) == 0
    assert not caplog.records


@pytest.mark.parametrize("patch", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_rejection_that_refuses_nothing_changes_no_draw(write, patch):
    case = write("case", half_annotated())
    for seed in range(30):
        for aim in (Aim(None, None), Aim(None, 1)):
            plain = draw_place(aim, case, patch, MILD, np.random.default_rng(seed))
            assert plain == draw_place(aim, case, patch, MILD, np.random.default_rng(seed), rejection())


def test_it_is_off_by_default_and_counts_only_what_was_drawn(write):
    assert not SamplingConfig().rejects
    assert not SamplingConfig(min_foreground_voxels=9, reject_probability=0).rejects
    assert SamplingConfig(min_annotated=0.1).rejects and SamplingConfig(min_foreground_voxels=1).rejects
    case = write("case", half_annotated())
    assert case.entry.table.informative.tolist() == [True, True, True, False]
    found = rejection(min_annotated=0.5).content(case, ((0, 0, 0), case.codes.shape), n_axes=3)
    assert found == PatchContent(6 * 30 * 40, 6 * 30 * 20, 6 * 16)


def test_the_tables_of_all_cases_share_the_memory(write, monkeypatch):
    monkeypatch.setattr("autoseg.sampling.rejection.MAX_TABLE_BYTES", 8 * 10_000)
    monkeypatch.setattr("autoseg.sampling.rejection.MIN_ENTRIES", 10)
    sizes = []
    for n_cases in (1, 10):
        chosen = Rejection(SamplingConfig(min_annotated=0.5), n_cases=n_cases)
        chosen.content(write("case", half_annotated()), ((0, 0, 0), (1, 1, 1)), n_axes=3)
        sizes += [table.sums[0].size for table in chosen._tables.values()]
    assert sizes[0] == 7 * 31 * 41
    assert sizes[1] < 1300


@pytest.mark.parametrize("patch", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_the_loader_rejects_the_same_way_with_any_number_of_workers(
    write, make_labels, make_configuration, patch, caplog
):
    cases = [write("half", half_annotated()), write("hopeless", np.where(half_annotated() == 1, 1, UNKNOWN))]

    def load(workers: int):
        return list(
            make_loader(
                [case.source for case in cases], make_configuration(patch), SamplingConfig(min_annotated=0.6), None,
                labels=make_labels(),
                start=0, stop=6, seed=0, workers=workers, batch_size=4,
            )
        )  # fmt: skip

    here = load(0)
    caplog.clear()
    there = load(1)  # what its worker notes is said here, once
    for one, other in zip(here, there, strict=True):
        assert one.cases == other.cases and bool((one.codes == other.codes).all())
        for name, codes in zip(one.cases, one.codes, strict=True):
            assert name == "hopeless" or (codes != UNKNOWN).float().mean() >= 0.6
    (record,) = caplog.records
    assert record.getMessage().startswith("case hopeless: found no place for a patch in 20 tries")


def test_the_log_says_once_how_many_places_the_first_patches_took(write, make_labels, make_configuration, caplog):
    case = write("half", half_annotated())

    def tries(settings: SamplingConfig) -> list[str]:
        caplog.clear()
        options = {"labels": make_labels(), "start": 0, "stop": 60, "seed": 0, "batch_size": 4}
        with caplog.at_level(logging.INFO):
            list(make_loader([case.source], make_configuration((4, 8, 8)), settings, None, **options))
        return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]

    (text,) = tries(SamplingConfig(min_annotated=0.99))
    pattern = r"took (\S+) places each; (\d+) were drawn again, (\d+) took all 20 tries"
    places, again, all_tries = map(float, re.findall(pattern, text)[0])
    assert places > 1 and 0 < again <= 100 and all_tries <= again
    assert 100 * places + 5 >= 100 + again  # the text is rounded
    assert tries(SamplingConfig()) == []


def test_the_sampler_carries_it_only_when_asked(write, make_labels):
    case = write("case", half_annotated())
    content = CaseContent.from_entry(case.source, case.entry, make_labels())
    assert Sampler([content], SamplingConfig()).rejection is None
    found = Sampler([content] * 3, SamplingConfig(min_annotated=0.5, max_attempts=7)).rejection
    assert found == Rejection(SamplingConfig(min_annotated=0.5, max_attempts=7), 3)
    plain, strict = Sampler([content], SamplingConfig()), Sampler([content], SamplingConfig(min_annotated=1.0))
    assert [plain.draw(sample_rng(0, i, 0)) for i in range(50)] == [strict.draw(sample_rng(0, i, 0)) for i in range(50)]


def test_voxels_of_which_only_an_absence_is_known_are_not_annotated(write, make_labels):
    """Said of the whole case, it would otherwise make every place of it good enough."""
    codes = np.full((6, 10, 10), 5, dtype=np.uint8)  # background or class 2: class 1 is absent
    codes[:, 2, :] = 0
    case = write("case", codes, further=((1, 2), (0, 2)), undrawn=5)
    labels = replace(make_labels(), statements={"case": CaseStatement(absent=frozenset({1}))})
    content = CaseContent.from_entry(case.source, case.entry, labels)
    rejection = Sampler([content], SamplingConfig(min_annotated=0.5)).rejection
    assert rejection.content(case, ((0, 0, 0), (6, 10, 10)), n_axes=3).annotated == 60
