from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.core.errors import ConfigError
from autoseg.training.optim import BUILT_IN, LONG_RUN, OptimizerConfig, build_optimization, optimizer_name


def optimization(*, iterations: int = 1000, optimizer: str = "auto", **settings):
    return build_optimization(nn.Linear(2, 2), OptimizerConfig(name=optimizer, **settings), iterations)


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
    assert optimizer_name(OptimizerConfig(), LONG_RUN - 1) == "muon"
    assert optimizer_name(OptimizerConfig(), LONG_RUN) == "sgd"


def test_settings_override_the_optimizers_own():
    built = optimization(optimizer="adamw", learning_rate=0.5, weight_decay=0.25, warmup_iterations=0)
    assert built.set_learning_rate(0) == 0.5
    assert built.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_an_unknown_optimizer_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"optimizer: found 'sdg'.*'adamw'.*'muon'.*'sgd'"):
        optimization(optimizer="sdg")


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_checkpoint_of_another_device_does_not_change_how_weights_are_updated(name):
    trained, fresh = optimization(optimizer=name), optimization(optimizer=name)
    weights = [weight for group in trained.optimizer.param_groups for weight in group["params"]]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    trained.optimizer.step()
    state = trained.optimizer.state_dict()
    as_built = [group["fused"] for group in fresh.optimizer.param_groups]
    fresh.load_state({**state, "param_groups": [group | {"fused": True, "lr": 0.3} for group in state["param_groups"]]})
    assert [group["fused"] for group in fresh.optimizer.param_groups] == as_built
    assert all(group["lr"] == 0.3 for group in fresh.optimizer.param_groups)
    loaded = fresh.optimizer.state_dict()["state"]
    for index, moments in state["state"].items():
        assert all(torch.equal(value, loaded[index][key]) for key, value in moments.items())


def test_biases_and_norms_do_not_decay():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4, affine=True))
    built = build_optimization(network, OptimizerConfig(name="adamw", weight_decay=0.1), 10)
    decays = {weight: group["weight_decay"] for group in built.optimizer.param_groups for weight in group["params"]}
    assert [decays[weight] for weight in network.parameters()] == [0.1, 0, 0, 0]


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [("poly", 0.5**0.9), ("cosine", 0.5), ("constant", 1), ("exponential", 0.9**0.5)],
)
def test_schedules_are_their_formulas(schedule, factor):
    built = optimization(optimizer="sgd", schedule=schedule, learning_rate=2, decay_per_1000=0.9)
    assert built.learning_rate_at(0) == 2
    assert built.learning_rate_at(500) == pytest.approx(2 * factor)


def test_a_table_from_a_file_is_in_order_and_has_each_step_once():
    assert OptimizerConfig(table=[[100, 0.5], [10, 0.25]]).table == ((10, 0.25), (100, 0.5))
    with pytest.raises(ValueError, match="each step once"):
        OptimizerConfig(table=[[10, 0.5], [10, 0.25]])


def test_a_table_sets_the_rate_from_its_steps_on_and_an_exponential_decay_goes_on_from_there():
    table = "100:0.5,10:0.25"
    built = optimization(optimizer="sgd", schedule="constant", table=table, learning_rate=2)
    assert [built.learning_rate_at(step) for step in (0, 9, 10, 99, 100, 999)] == [2, 2, 0.25, 0.25, 0.5, 0.5]
    decaying = optimization(optimizer="sgd", schedule="exponential", table=table, decay_per_1000=0.5)
    assert decaying.learning_rate_at(100) == 0.5
    assert decaying.learning_rate_at(350) == pytest.approx(0.5 * 0.5**0.25)


def test_a_schedule_follows_the_time_where_that_is_further_than_the_steps():
    built = optimization(optimizer="sgd")
    assert built.learning_rate_at(500, time_share=0.1) == built.learning_rate_at(500)
    assert built.learning_rate_at(500, time_share=0.8) == pytest.approx(built.learning_rate_at(800))
    assert built.learning_rate_at(1, time_share=1) == 0


@pytest.mark.parametrize("name", [name for name in BUILT_IN])
def test_every_optimiser_lowers_a_simple_loss(name):
    torch.manual_seed(0)
    network = nn.Linear(3, 1)
    inputs, truth = torch.randn(32, 3), torch.randn(32, 1)
    optimizer = build_optimization(network, OptimizerConfig(name=name), 50).optimizer

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(inputs), truth)
        loss.backward()
        return loss

    first = closure().item()
    for _ in range(50):
        optimizer.step(closure)
    assert closure().item() < first


OF_A_USER = """
import torch
from autoseg.training.optim import OptimizerSettings

def sgd(groups, rate, decay, momentum):
    return torch.optim.SGD(groups, rate, momentum=momentum)

def good(): return OptimizerSettings(build=sgd, learning_rate=0.5, weight_decay=0)
def nothing(): good()
def unknown_schedule(): return OptimizerSettings(build=sgd, learning_rate=0.5, weight_decay=0, schedule="linear")
def no_function(): return OptimizerSettings(build=None, learning_rate=0.5, weight_decay=0)
def few_arguments(): return OptimizerSettings(build=lambda groups: None, learning_rate=0.5, weight_decay=0)
def no_optimizer(): return OptimizerSettings(build=lambda *given: None, learning_rate=0.5, weight_decay=0)
SETTINGS = good()
"""


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("SETTINGS", "found an object of OptimizerSettings, expected a function or a class"),
        ("nothing", "found a function that returned None, expected one that returns OptimizerSettings"),
        ("unknown_schedule", "found schedule='linear', expected one of"),
        ("no_function", "found build=None"),
        ("few_arguments", r"takes 1 positional argument but 4 were given \(.*optimizers_of_a_user\.py, line 12\)"),
        ("no_optimizer", "build that returned None"),
    ],
)
def test_an_optimiser_of_a_user_that_cannot_be_used_is_named(tmp_path, monkeypatch, attribute, message):
    (tmp_path / "optimizers_of_a_user.py").write_text(OF_A_USER)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = nn.Linear(2, 1)
    good = OptimizerConfig(name="optimizers_of_a_user:good")
    assert build_optimization(network, good, 100).learning_rate_at(0) == 0.5
    with pytest.raises(ConfigError, match=f"optimizer 'optimizers_of_a_user:{attribute}': .*{message}"):
        build_optimization(network, OptimizerConfig(name=f"optimizers_of_a_user:{attribute}"), 100)
