"""A regression counts, scores and decodes known voxels; tools for classes refuse it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from regression import DEPTH, TWO

from autoseg.core.errors import ConfigError
from autoseg.core.fingerprint import TargetProperties
from autoseg.tasks.regression import Regression
from autoseg.tasks.task import outputs_of, task_of

TASK = Regression(TWO)


def example(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    outputs, numbers = (torch.randn(2, 2, 5, 6, generator=generator) for _ in range(2))
    numbers[torch.rand(numbers.shape, generator=generator) < 0.3] = torch.nan
    return outputs, numbers


def test_the_score_is_r2_over_known_voxels():
    outputs, numbers = example()
    scores = TASK.score(TASK.count(outputs, numbers))
    for target, score in enumerate(scores):
        known = ~numbers[:, target].isnan()
        true, predicted = numbers[:, target][known].double(), outputs[:, target][known].double()
        expected = 1 - (predicted - true).square().sum() / (true - true.mean()).square().sum()
        assert score == pytest.approx(expected.item(), rel=1e-9)


def test_counts_of_patches_add_up():
    outputs, numbers = example()
    parts = sum(TASK.count(outputs[index : index + 1], numbers[index : index + 1]) for index in range(2))
    torch.testing.assert_close(parts, TASK.count(outputs, numbers))


def test_nothing_depends_on_outputs_where_nothing_is_known():
    outputs, numbers = example()
    changed = outputs + 99 * numbers.isnan()
    assert torch.equal(TASK.count(changed, numbers), TASK.count(outputs, numbers))


def test_a_perfect_prediction_scores_1_and_the_mean_scores_0():
    _, numbers = example()
    means = numbers.double().transpose(0, 1).flatten(1).nanmean(1)
    assert TASK.score(TASK.count(numbers.nan_to_num(0), numbers)) == [1, 1]
    constant = means.view(1, 2, 1, 1).expand(numbers.shape)
    assert TASK.score(TASK.count(constant, numbers)) == pytest.approx([0, 0], abs=1e-9)


def test_there_is_no_score_where_nothing_is_known_or_nothing_varies():
    numbers = torch.full((1, 2, 3, 3), torch.nan)
    numbers[0, 1] = 4.25
    assert TASK.score(TASK.count(torch.zeros(1, 2, 3, 3), numbers)) == [None, None]


def test_decoding_leads_back_to_the_units_of_the_files():
    targets = [TargetProperties(mean=mean, std=std, min=0, max=0, n_voxels=9) for mean, std in ((50, 10), (-3, 0))]
    decoded = TASK.decode(np.array([[[-1.0, 2.0]], [[0.0, 1.0]]], dtype=np.float32), targets)
    np.testing.assert_array_equal(decoded, [[[40, 70]], [[-3, -2]]])  # without variation numbers are only shifted
    assert decoded.dtype == np.float32


def test_tools_for_classes_refuse_a_regression_by_name():
    assert outputs_of(DEPTH) == ("depth",)
    with pytest.raises(ConfigError, match=r"task regression \(depth\), expected classes"):
        task_of(DEPTH)
