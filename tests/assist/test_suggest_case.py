from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from autoseg.assist.suggest_case import (
    Candidates,
    LeftOver,
    Selection,
    candidates_of,
    choose,
    left_over,
    pooled,
    sharpness,
)
from autoseg.core.errors import ConfigError
from autoseg.inference.box_sums import patch_grid, slice_grid
from autoseg.inference.box_uncertainty import BoxUncertainty

CLASSES = ("liver", "tumour")


def slices(case, scores, class_scores=None, predicted=None, *, spread=0.0) -> Candidates:
    """Slices of 2 x 3 voxels with given mean entropies."""
    n = len(scores)
    per_class = np.zeros((2, n)) if class_scores is None else np.asarray(class_scores, dtype=float)
    measured = BoxUncertainty(
        slice_grid((n, 2, 3), 0),
        np.full((n, 1, 1), 6.0),
        np.reshape(scores, (n, 1, 1)) * 6.0,
        per_class.reshape(2, n, 1, 1) * 6.0,
        np.zeros((2, n, 1, 1)) if predicted is None else np.reshape(predicted, (2, n, 1, 1)).astype(float),
    )
    return candidates_of(case, measured, CLASSES, spread=spread)


def chosen(candidates, **settings):
    return [
        (candidates.cases[candidates.case[choice.index]], int(candidates.low[choice.index, 0]))
        for choice in choose(candidates, Selection(**settings))
    ]


def test_candidates_are_averaged_over_what_is_not_annotated():
    measured = BoxUncertainty(
        slice_grid((3, 2, 4), 0), np.array([8, 5, 3]).reshape(3, 1, 1), np.array([2, 2, 2]).reshape(3, 1, 1),
        np.ones((2, 3, 1, 1)), np.zeros((2, 3, 1, 1)),
    )  # fmt: skip
    candidates = candidates_of("a", measured, CLASSES)
    assert candidates.low[:, 0].tolist() == [0, 1]  # the third is drawn already, but for 3 of its 8 voxels
    np.testing.assert_allclose(candidates.score, [2 / 8, 2 / 5])
    np.testing.assert_allclose(candidates.class_score, [[1 / 8] * 2, [1 / 5] * 2])
    np.testing.assert_allclose(candidates.open_share, [1, 5 / 8])


def test_entropy_takes_the_highest_first():
    candidates = slices("a", [0.1, 0.4, 0.2, 0.3])
    assert chosen(candidates, method="entropy", number=3) == [("a", 1), ("a", 3), ("a", 2)]


def test_no_case_takes_more_than_its_share_while_others_have_some_left():
    candidates = pooled([slices("odd", [0.9, 0.8, 0.7, 0.6]), slices("b", [0.1, 0.2]), slices("c", [0.05])])
    assert chosen(candidates, method="entropy", number=4, case_share=0.5) == [
        ("odd", 0), ("odd", 1), ("b", 1), ("b", 0),
    ]  # fmt: skip
    everything = chosen(candidates, method="entropy", number=9, case_share=0.1)
    assert everything == [("odd", 0), ("b", 1), ("c", 0), ("odd", 1), ("b", 0), ("odd", 2), ("odd", 3)]


def test_slices_keep_apart():
    candidates = slices("a", [0.5, 0.9, 0.8, 0.4, 0.7, 0.3, 0.2, 0.1], spread=0.25)
    assert chosen(candidates, method="entropy", number=3, case_share=1.0) == [("a", 1), ("a", 4), ("a", 7)]


def test_what_was_not_chosen_is_counted_with_the_reason():
    """Slices 1, 4, 7 are taken; 3 and 6 and 8 are neighbours, 9 is certain, of one more slice all is annotated."""
    candidates = slices("a", [0.0, 0.9, 0.0, 0.4, 0.7, 0.0, 0.2, 0.3, 0.1, 0.0], spread=0.1)
    candidates = replace(candidates, n_annotated=1)
    choices = choose(candidates, Selection(method="entropy", number=1000, case_share=1.0))
    assert [choice.index for choice in choices] == [1, 4, 7]
    assert left_over(candidates, choices) == LeftOver(n_close=6, n_certain=1, n_annotated=1)
    assert left_over(slices("a", [0.0, 0.0]), ()) == LeftOver(0, 2, 0)
    assert pooled([candidates, candidates]).n_annotated == 2


def test_patches_do_not_overlap():
    grid = patch_grid((8, 8, 8), (4, 4, 4))
    rng = np.random.default_rng(0)
    measured = BoxUncertainty(
        grid, np.full(grid.shape, 64.0), rng.random(grid.shape), rng.random((2, *grid.shape)), np.ones((2, *grid.shape))
    )
    candidates = candidates_of("a", measured, CLASSES)
    for method in ("clasp", "entropy", "random"):
        covered = np.zeros((8, 8, 8), dtype=int)
        choices = choose(candidates, Selection(20, method))
        assert 1 < len(choices) <= 8
        for choice in choices:
            z, y, x = candidates.low[choice.index]
            covered[z : z + 4, y : y + 4, x : x + 4] += 1
        assert covered.max() == 1


def test_two_thirds_of_the_budget_are_drawn_per_class_in_turn():
    rng = np.random.default_rng(0)
    candidates = pooled([slices(f"case{case}", rng.random(30), rng.random((2, 30))) for case in range(10)])
    drawn = [choice.drawn_for for choice in choose(candidates, Selection(50, "clasp"))]
    assert Counter(drawn) == {None: 17, "liver": 17, "tumour": 16}
    assert set(drawn[:3]) == {None, "liver", "tumour"}
    half = Counter(drawn[:24])
    assert max(half.values()) - min(half.values()) <= 1


def test_a_rare_class_gets_its_turn():
    scores = np.full(20, 0.5)
    per_class = np.stack([np.full(20, 0.4), np.where(np.arange(20) == 7, 0.01, 0.0)])
    candidates = slices("a", scores, per_class)
    choices = choose(candidates, Selection(6, "clasp", round=5, case_share=1.0))
    assert [choice.index for choice in choices if choice.drawn_for == "tumour"] == [7]
    assert len(choices) == 6


@pytest.mark.parametrize("seed", range(3))
def test_random_draws_half_where_foreground_is_predicted(seed):
    predicted = np.zeros((2, 100))
    predicted[0, :12], predicted[1, 50:62] = 5, 3
    candidates = slices("a", np.zeros(100), predicted=predicted)
    choices = choose(candidates, Selection(20, "random", case_share=1.0, seed=seed))
    by_turn = Counter(choice.drawn_for for choice in choices)
    assert by_turn == {"liver": 5, "tumour": 5, None: 10}
    for choice in choices:
        if choice.drawn_for is not None:
            assert predicted[CLASSES.index(choice.drawn_for), choice.index] > 0


def test_random_gives_every_case_the_same_chance():
    candidates = pooled([slices("long", np.zeros(90)), slices("short", np.zeros(10))])
    first = Counter(chosen(candidates, method="random", number=1, seed=seed)[0][0] for seed in range(400))
    assert 150 < first["short"] < 250


def test_noise_draws_in_proportion_to_the_score_at_first_and_fades():
    candidates = replace(
        slices("a", [0.75, 0.25]), classes=(), class_score=np.zeros((2, 0)), predicted=np.zeros((2, 0))
    )

    def share(round_):
        picks = [choose(candidates, Selection(1, round=round_, seed=seed))[0].index for seed in range(400)]
        return picks.count(0) / 400

    assert share(1) == pytest.approx(0.75, abs=0.07)
    assert share(9) == 1
    assert [sharpness(number) for number in (1, 3, 5, 50)] == [1, 10, 100, 100]


def test_the_same_seed_chooses_the_same():
    rng = np.random.default_rng(1)
    candidates = slices("a", rng.random(40), rng.random((2, 40)), rng.random((2, 40)))
    for method in ("clasp", "random"):
        assert chosen(candidates, method=method, seed=4) == chosen(candidates, method=method, seed=4)
        assert chosen(candidates, method=method, seed=4) != chosen(candidates, method=method, seed=5)


def test_nothing_is_suggested_where_the_model_is_certain():
    assert chosen(slices("a", [0.0, 0.0]), method="clasp") == []
    assert choose(slices("a", []), Selection()) == ()


def test_main_class_is_the_one_most_unsure():
    candidates = slices("a", [0.2, 0.2], [[0.1, 0.0], [0.15, 0.0]])
    assert candidates.main_class(0) == "tumour"
    assert candidates.main_class(1) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "guess"}, "method: found 'guess', expected one of clasp, entropy, random"),
        ({"number": 0}, "number 0, round 1, seed 0: expected a number and a round of 1 or more"),
        ({"case_share": 0.0}, "share per case: found 0.0, expected above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Selection(**settings)


def test_candidates_of_other_classes_do_not_mix():
    with pytest.raises(ValueError, match="all of the same classes"):
        pooled([slices("a", [0.1]), replace(slices("b", [0.1]), classes=("other",))])
