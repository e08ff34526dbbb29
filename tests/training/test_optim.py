from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.core.errors import ConfigError
from autoseg.training.config import TrainingConfig
from autoseg.training.optim import LONG_RUN, build_optimization, optimizer_name


def optimization(**settings):
    return build_optimization(nn.Linear(2, 2).parameters(), TrainingConfig(**settings))


def test_nnunets_schedule_is_its_formula():
    built = optimization(optimizer="sgd", iterations=1000)
    assert built.learning_rate_at(0) == 0.01
    assert built.learning_rate_at(500) == pytest.approx(0.01 * 0.5**0.9)
    assert isinstance(built.optimizer, torch.optim.SGD)
    assert built.optimizer.param_groups[0]["momentum"] == 0.99


def test_adamw_warms_up_and_ends_near_zero():
    built = optimization(optimizer="adamw", iterations=1000)
    rates = [built.learning_rate_at(iteration) for iteration in range(1000)]
    assert rates.index(max(rates)) == 50
    assert max(rates) == pytest.approx(2e-3)
    assert rates[-1] < 1e-5 < rates[0] < 1e-4


def test_warm_up_never_takes_more_than_a_tenth_of_a_short_run():
    built = optimization(optimizer="adamw", iterations=20)
    assert built.learning_rate_at(2) == pytest.approx(2e-3)


def test_auto_takes_what_fits_the_length():
    assert optimizer_name(TrainingConfig(iterations=LONG_RUN - 1)) == "muon"
    assert optimizer_name(TrainingConfig(iterations=LONG_RUN)) == "sgd"


def test_settings_override_the_optimizers_own():
    built = optimization(optimizer="adamw", learning_rate=0.5, weight_decay=0.25, warmup_iterations=0)
    assert built.set_learning_rate(0) == 0.5
    assert built.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_an_unknown_optimizer_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"optimizer: found 'sdg', expected one of \['adamw', 'muon', 'sgd'\]"):
        optimization(optimizer="sdg")
