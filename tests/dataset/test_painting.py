"""Regions become one value: what a perfect prediction means comes back, everything else is painted as in nnU-Net."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels, painting_of
from autoseg.dataset.painting import Painting, dice_of_regions, sound_order

NESTED = {"whole": [1, 2, 3], "core": [2, 3], "spot": 3}
REVERSED = {"spot": 3, "core": [2, 3], "whole": [1, 2, 3]}
CROSSED = {"duct": [1, 3, 5], "start": [2, 3], "end": [4, 5]}
BITS = {f"bit{bit}": [value for value in range(1, 8) if value >> bit & 1] for bit in range(3)}


def make(regions: dict, order: list[int] | None, **keys) -> Labels:
    content = {"channel_names": {"0": "MR"}, "file_ending": ".png", "labels": {"background": 0, **regions}, **keys}
    content |= {} if order is None else {"regions_class_order": order}
    return Dataset.from_json(content, name="toy", folder=None).labels


def theirs(labels: Labels, logits: np.ndarray) -> np.ndarray:
    """nnU-Net's rule, as its ``label_handling.py`` states it."""
    painted = np.zeros(logits.shape[1:], dtype=int)
    for index, value in enumerate(labels.paint_values or ()):
        painted[logits[index] > 0] = value
    return painted


def all_combinations(n_regions: int) -> np.ndarray:
    """(H, 2^H) logits: every combination of regions once."""
    return np.array(list(itertools.product((-1.0, 1.0), repeat=n_regions))).T


def perfect(labels: Labels, file_labels: np.ndarray) -> np.ndarray:
    """Logits (H, *S) of a prediction without any mistake."""
    return np.stack([np.where(np.isin(file_labels, head.values), 2.0, -2.0) for head in labels.heads])


@pytest.mark.parametrize(
    ("regions", "order"),
    [
        (NESTED, [1, 2, 3]),
        ({"kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}, [1, 3, 2]),
        ({"a": 1, "b": 2, "both": [1, 2]}, [1, 2, 1]),
        ({"organ": [1, 2, 4], "left": 1, "right": 2}, [4, 1, 2]),
    ],
)
def test_every_combination_is_painted_as_in_nnunet_where_that_order_is_sound(regions, order):
    labels = make(regions, order)
    painting = painting_of(labels)
    assert painting is not None
    logits = all_combinations(len(regions))
    if painting.is_sound:
        np.testing.assert_array_equal(labels.decode(logits), theirs(labels, logits))
    assert painting.is_sound == (regions != {"a": 1, "b": 2, "both": [1, 2]})


@pytest.mark.parametrize("shape", [(6, 7), (3, 6, 7)], ids=["2d", "3d"])
@pytest.mark.parametrize(
    ("regions", "order"),
    [(REVERSED, [3, 2, 1]), (CROSSED, [1, 2, 4]), (BITS, [1, 2, 4]), (NESTED, [1, 1, 1]), (NESTED, [1, 2, 3])],
)
@pytest.mark.parametrize("background", [0, 9])
def test_a_perfect_prediction_comes_back(shape, regions, order, background):
    labels = make(regions | {"background": background}, order, unlabelled=None)
    file_labels = np.random.default_rng(0).choice(labels.class_values, shape)
    np.testing.assert_array_equal(labels.decode(perfect(labels, file_labels)), file_labels)


@pytest.mark.parametrize(("regions", "order"), [(REVERSED, [3, 2, 1]), (CROSSED, [1, 2, 4]), (BITS, [4, 2, 1])])
def test_other_combinations_are_painted_in_order(regions, order):
    labels = make(regions, order)
    logits = all_combinations(len(regions))
    own = {tuple(row) for row in labels.regions.T.tolist()}
    expected = theirs(labels, logits)
    decoded = labels.decode(logits)
    for column, combination in enumerate((logits > 0).T.tolist()):
        if tuple(combination) not in own:
            assert decoded[column] == expected[column]


@st.composite
def region_tables(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """(H, K) regions, none of them empty, every class in one, and a class of each to paint."""
    n_classes, n_regions = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    regions = rng.random((n_regions, n_classes)) < draw(st.sampled_from([0.3, 0.6]))
    regions[:, 0] = False
    regions[np.arange(n_regions), rng.integers(1, n_classes, n_regions)] = True
    regions = regions[:, [True, *regions[:, 1:].any(axis=0)]]
    return regions, [int(rng.choice(np.flatnonzero(row))) for row in regions]


@given(region_tables())
def test_own_combinations_first_then_the_order(table):
    """By brute force: a class of exactly the predicted regions, the painted one if it is such a class."""
    regions, order = table
    painting = Painting(regions, tuple(order))
    combinations = all_combinations(len(regions))
    labels = _labels(regions, order)
    decoded = labels.decode(combinations)
    for column, combination in enumerate((combinations > 0).T):
        painted = 0
        for painted_class, chosen in zip(order, combination, strict=True):
            painted = painted_class if chosen else painted
        exact = np.flatnonzero((combination == regions.T).all(axis=1))
        if painted in exact or len(exact) == 0:
            assert decoded[column] == painted
        else:
            assert decoded[column] in exact
    assert (regions[:, painting.returned] == regions).all()


@given(region_tables())
def test_an_order_is_found_if_there_is_one(table):
    regions, given_order = table
    found = sound_order(regions)
    if found is not None:
        rows, classes = zip(*found, strict=True)
        assert sorted(rows) == list(range(len(regions)))
        assert Painting(regions[list(rows)], tuple(classes)).is_sound
        if Painting(regions, tuple(given_order)).is_sound:
            assert list(rows) == sorted(rows)  # the order of declaration is kept
    elif len(regions) <= 4:
        for rows in itertools.permutations(range(len(regions))):
            table_ = regions[list(rows)]
            choices = itertools.product(*(np.flatnonzero(row).tolist() for row in table_))
            assert not any(Painting(table_, choice).is_sound for choice in choices)


def _labels(regions: np.ndarray, order: list[int]) -> Labels:
    from autoseg.dataset.labels import Head

    values = tuple(range(regions.shape[1]))
    heads = tuple(
        Head(f"r{index}", tuple(np.flatnonzero(row).tolist()), tuple(np.flatnonzero(row).tolist()))
        for index, row in enumerate(regions)
    )
    return Labels(values, tuple(map(str, values)), heads, tuple(order))


def test_what_the_order_loses_is_told_in_dice():
    painting = painting_of(make(CROSSED, [1, 2, 4]))
    assert painting is not None and sound_order(painting.regions) is None
    voxels = [1000, 50, 30, 20, 40, 10]  # duct: 50 + 20 + 10, of which 50 come back
    theirs_, ours = (
        dice_of_regions(painting.regions, back, voxels) for back in (painting.returned_in_order, painting.returned)
    )
    assert theirs_ == pytest.approx([2 * 50 / (80 + 50), 1, 1]) and ours == [1, 1, 1]
    assert dice_of_regions(painting.regions, painting.returned, [5, 0, 0, 0, 0, 0]) == [None, None, None]


@pytest.mark.parametrize(
    ("regions", "written"),
    [
        (NESTED, '"regions_class_order": [1, 2, 3]'),
        (
            REVERSED,
            '"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": 3}, "regions_class_order": '
            "[1, 2, 3]",
        ),
        ({"kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}, '"regions_class_order": [1, 3, 2]'),
        (CROSSED, '"regions_class_order": [1, 2, 4]'),
    ],
)
def test_the_order_that_a_fault_proposes_is_sound(regions, written):
    with pytest.raises(DatasetError) as raised:
        make(regions, None)
    assert f"Write {written};" in raised.value.faults[0].fix


def test_many_regions_take_little_longer_than_painting():
    """20 regions that cross: as many tables of two columns, not 2^20 combinations."""
    regions = {f"r{index}": [index + 1, 21 + index] for index in range(20)} | {"odd": list(range(21, 41))}
    labels = make(regions, [*range(1, 21), 21])
    file_labels = np.random.default_rng(0).integers(0, 41, 20_000)
    logits = perfect(labels, file_labels)
    started = time.perf_counter()
    np.testing.assert_array_equal(labels.decode(logits), file_labels)
    assert time.perf_counter() - started < 1
