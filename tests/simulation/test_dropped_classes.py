"""Classes are left out equally often, and never for good."""

from __future__ import annotations

from collections import Counter

import pytest

from autoseg.core.errors import ConfigError
from autoseg.simulation.dropped_classes import choose_left_out


def counts(left_out):
    return Counter(value for values in left_out.values() for value in values)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("n_classes", "n", "n_cases"), [(2, 1, 130), (3, 1, 20), (5, 3, 17)])
def test_every_class_is_left_out_equally_often(seed, n_classes, n, n_cases):
    values = range(1, n_classes + 1)
    present = {f"case_{number}": frozenset(values) for number in range(n_cases)}
    left_out = choose_left_out(present, values, n, seed=seed)
    assert all(len(chosen) == n for chosen in left_out.values())
    numbers = counts(left_out).values()
    assert sum(numbers) == n * n_cases
    assert max(numbers) - min(numbers) <= 1


def test_the_seed_and_not_the_order_of_the_cases_decides():
    present = {f"case_{number}": frozenset({1, 2}) for number in range(10)}
    turned = dict(reversed(present.items()))
    assert choose_left_out(present, (1, 2), 1, seed=0) == choose_left_out(turned, (1, 2), 1, seed=0)
    assert choose_left_out(present, (1, 2), 1, seed=0) != choose_left_out(present, (1, 2), 1, seed=1)


def test_cases_with_and_without_a_class_are_balanced_apart():
    present = {f"case_{number}": frozenset({1, 2} if number < 10 else {1}) for number in range(40)}
    left_out = choose_left_out(present, (1, 2), 1, seed=3)
    assert counts({name: left_out[name] for name in list(present)[:10]}) == {1: 5, 2: 5}


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_class_is_kept_in_one_case_at_least(seed):
    present = {f"case_{number}": frozenset({1, 2, 3} if number < 2 else {1, 2}) for number in range(9)}
    left_out = choose_left_out(present, (1, 2, 3), 2, seed=seed)
    assert any(3 not in left_out[f"case_{number}"] for number in range(2))


def test_zero_left_out_classes_leave_every_class():
    assert choose_left_out({"a": frozenset({1})}, (1, 2), 0, seed=0) == {"a": frozenset()}


def test_leaving_out_every_class_is_refused():
    with pytest.raises(ConfigError, match="--drop-classes: found 2, expected 0 to 1"):
        choose_left_out({"a": frozenset({1, 2})}, (1, 2), 2, seed=0)


@pytest.mark.parametrize("seed", range(40))
def test_every_class_stays_in_a_case_that_holds_it(seed):
    """Class 2 is held by one case only, and class 1 by that one and another, which can spare what it does not hold."""
    present = {"c0": frozenset(), "c1": frozenset({1, 2}), "c2": frozenset({1}), "c3": frozenset()}
    left_out = choose_left_out(present, (1, 2), 1, seed=seed)
    assert left_out["c1"] == {1}
    assert left_out["c2"] == {2}
