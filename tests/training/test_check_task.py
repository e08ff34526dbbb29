"""A task of a user is tried before anything is planned: each member that is not as the contract says is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from split_task import Split

from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Head, Labels
from autoseg.tasks.decoded import decoded, finished
from autoseg.training.check_task import check_task


def labels(task: str) -> Labels:
    heads = tuple(Head(name, (index,), (index,), index == 0) for index, name in enumerate("abc"))
    return Labels((0, 1, 2), ("a", "b", "c"), heads, ignore=3, task=task)


def with_regions(task: str) -> Labels:
    heads = (Head("bc", (1, 2), (1, 2)), Head("c", (2,), (2,)))
    return Labels((0, 1, 2), ("a", "b", "c"), heads, paint_values=(1, 2), task=task)


def changed(**members):
    """A class of tasks like ``Split``, with other members; a function gets what ``Split`` returns."""

    class Changed(Split):
        def __init__(self, given):
            super().__init__(given)
            for name, value in members.items():
                own = getattr(self, name)
                is_method = callable(value) and callable(own)
                setattr(self, name, (lambda *a, own=own, value=value: value(own(*a))) if is_method else value)

    return Changed


def refined(**members):
    """A class of tasks like ``Split``, whose refinement has other members."""

    class Refined(Split):
        def __init__(self, given):
            super().__init__(given)
            for name, value in members.items():
                setattr(self.refinement, name, value)

    return Refined


@pytest.fixture
def of_a_user(monkeypatch):
    import split_task

    return lambda task: monkeypatch.setattr(split_task, "OfAUser", task, raising=False)


NAME = "split_task:OfAUser"


def test_a_good_task_passes_and_leaves_the_generator_as_it_was(of_a_user):
    of_a_user(Split)
    state = torch.get_rng_state()
    check_task(labels(NAME))
    check_task(replace(labels(NAME), task=None))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (changed(finish=None), "found finish = None, expected a method"),
        (changed(finish=lambda values: None), "finish returned an object of NoneType"),
        (changed(decode=lambda values: values + np.uint8(7)), "decode returned the values 7, 8, 9"),
        (changed(decode=lambda values: np.full_like(values, 3)), "decode returned the values 3"),
        (changed(decode=lambda values: values + 0.5), r"decode returned an array of shape .* and float"),
        (changed(decode=lambda values: values[..., ::2]), r"decode returned an array of shape \(6, 4\)"),
        (changed(scores=lambda values: torch.cat([values, values], 1)), r"scores returned \(2, 6, 6, 7\)"),
        (changed(scores=lambda values: values / 0), "scores returned values that are not finite"),
        (changed(probabilities=lambda values: values * 2), "probabilities returned values of"),
        (changed(probabilities=lambda values: values / 2), "do not add up to 1"),
        (changed(probabilities=lambda values: values.numpy()), "probabilities returned an object of ndarray"),
        (changed(score=lambda dice: dice[:2]), r"score returned .*expected 3 numbers or None"),
        (changed(score=lambda dice: dice[0]), r"score returned 0\.6.*expected 3 numbers or None"),
        (changed(outputs="abcd"), "outputs = 'abcd', expected a tuple of names"),
        (changed(outputs=("a",) * 4), "each once"),
        (changed(is_exclusive="yes"), "is_exclusive = 'yes'"),
        (changed(regions=[[True]]), r"found regions list of shape \(\), expected a NumPy array \(4, C"),
        (refined(sets=np.ones((1, 3, 3), bool)), r"expected \(M, 3, 4\)"),
        (refined(rules=lambda codes, sets, objects: torch.full_like(codes, 9)), "rules returned 9 to 9"),
        (refined(rules=lambda codes, sets, objects: torch.ones_like(codes).long()), "of which nothing is known"),
        (refined(rules=lambda codes, sets, objects: torch.zeros(2, 3)), r"rules returned \(2, 3\) of torch.float32"),
        (refined(rules=lambda codes, sets, objects: None), "rules returned an object of NoneType"),
        (refined(rules=lambda codes: codes), r"takes 1 positional argument.*test_check_task\.py, line"),
        (lambda: None, r"takes 0 positional arguments.*test_check_task\.py, line"),
    ],
)
def test_a_member_that_is_not_as_the_contract_says_is_named(of_a_user, task, message):
    of_a_user(task)
    with pytest.raises(ConfigError, match=f"task '{NAME}': .*{message}"):
        check_task(labels(NAME))


def test_a_task_for_classes_is_refused_for_regions(of_a_user):
    of_a_user(Split)
    with pytest.raises(ConfigError, match=r"is_exclusive = True .*with regions"):
        check_task(with_regions(NAME))


def test_values_of_no_class_are_refused_before_they_are_written():
    logits = np.zeros((4, 2, 3), np.float32)
    wrong = changed(decode=lambda values: values + np.uint8(7), finish=lambda values: values + np.uint8(5))
    assert decoded(Split(labels(NAME)), logits).tolist() == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(ConfigError, match=r"decode returned the values 9,"):
        decoded(wrong(labels(NAME)), logits)
    with pytest.raises(ConfigError, match=r"finish returned the values 5,"):
        finished(wrong(labels(NAME)), np.zeros((1, 2, 3), np.uint8))
