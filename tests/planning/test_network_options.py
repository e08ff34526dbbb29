"""Options of the network: what they mean, where they come from, and what they do to a plan."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from autoseg.core.config_levels import Level, file_level
from autoseg.core.errors import ConfigError, PlanError
from autoseg.planning.memory import feature_map_values
from autoseg.planning.network_options import (
    NetworkOptions,
    network_level,
    refuse_network_settings,
    resolve_network,
    set_options,
    unplanned_options,
)
from autoseg.planning.network_plan import NetworkBudget, network_notes, with_network
from autoseg.planning.planner import PlannerInput, make_decisions
from autoseg.planning.presets import PLANNERS
from autoseg.training.run_config import NOT_OF_TRAINING

FACTS = PlannerInput(
    spacings=((3.0, 1.0, 1.0),) * 4,
    shapes=((20, 96, 96),) * 4,
    channel_names=("MR",),
    relative_size_after_cropping=1.0,
    n_cases=4,
    n_outputs=2,
)
BUDGET = NetworkBudget(PLANNERS["small"], 1.0, 2, 4)
NOTHING = Level("before", {})


def options(*assignments: str) -> NetworkOptions:
    return resolve_network([], assignments, NOTHING).config.network


def planned(*assignments: str, planner: str = "small"):
    budget = NetworkBudget(PLANNERS[planner], 1.0, 2, 4)
    return with_network(make_decisions(FACTS, PLANNERS[planner]).configurations, options(*assignments), budget)


@pytest.mark.parametrize("planner", ["default", "resenc_m", "small"])
def test_no_option_is_the_plan_as_it_was(planner):
    assert planned(planner=planner) == make_decisions(FACTS, PLANNERS[planner]).configurations


@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
@pytest.mark.parametrize("planner", ["small", "resenc_m"])
@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("network.activation=relu", "activation", "relu"),
        ("network.normalization=group", "normalization", "group"),
        ("network.normalization=none", "normalization", "none"),
        ("network.pooling=max", "pooling", "max"),
        ("network.levels=3", "n_stages", 3),
        ("network.features=8,16,24", "features", (8, 16, 24)),
        ("network.dropout=0,0.1,0.2", "dropout", (0.0, 0.1, 0.2)),
        ("features=8,16,24", "features", (8, 16, 24)),
    ],
)
def test_an_option_is_in_the_topology_of_every_configuration(name, planner, assignment, key, value):
    configuration = planned(assignment, planner=planner)[name]
    assert getattr(configuration.topology, key) == value
    before = make_decisions(FACTS, PLANNERS[planner]).configurations[name]
    assert configuration.spacing == before.spacing


@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
def test_features_double_from_the_first_up_to_the_largest(name):
    topology = planned("network.first_features=6", "network.max_features=20", "network.levels=4")[name].topology
    assert topology.features == (6, 12, 20, 20)
    assert planned("network.features=10")[name].topology.features == (10,) * planned()[name].topology.n_stages


@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
def test_one_entry_is_for_all_levels_and_one_number_for_all_axes(name):
    topology = planned("network.kernels=5", "network.strides=2", "network.levels=3", "network.dropout=0.3")[
        name
    ].topology
    n_dims = topology.n_dims
    assert topology.kernels == ((5,) * n_dims,) * 3
    assert topology.strides == ((1,) * n_dims, (2,) * n_dims, (2,) * n_dims)
    assert topology.dropout == (0.3, 0.3, 0.3)
    assert (len(topology.encoder_blocks), len(topology.decoder_blocks)) == (3, 2)


def test_what_is_given_per_axis_is_for_configurations_with_as_many_axes():
    plan = planned(
        "network.strides=1x1x1,1x3x3,2x2x2", "network.kernels=1x3x3,3x3x3,3x3x3", "network.patch_size=12,96,96"
    )
    assert plan["2d"] == planned()["2d"]
    volume = plan["3d_fullres"]
    assert volume.topology.strides == ((1, 1, 1), (1, 3, 3), (2, 2, 2))
    assert volume.topology.kernels == ((1, 3, 3), (3, 3, 3), (3, 3, 3))
    assert volume.patch_size == (12, 96, 96)


def test_options_can_be_for_some_configurations_only():
    plan = planned("network.activation=elu", "network.configurations=2d")
    assert [item.topology.activation for item in plan.values()] == ["elu", "leaky_relu"]


@pytest.mark.parametrize(
    ("wanted", "levels", "expected"),
    [
        ("31,100,98", 3, (32, 100, 96)),
        ("31,130,65", 4, (32, 128, 64)),
        ("8,36,37", 4, (8, 32, 40)),
        ("16", 3, (16, 16, 16)),
    ],
)
def test_the_nearest_valid_patch_is_taken_and_said(wanted, levels, expected):
    network = options(f"network.patch_size={wanted}", f"network.levels={levels}", "network.strides=2")
    plan = with_network(planned(), network, BUDGET)
    patch = plan["3d_fullres"].patch_size
    assert patch == expected
    steps = [math.prod(each) for each in zip(*plan["3d_fullres"].topology.strides, strict=True)]
    assert all(edge % step == 0 for edge, step in zip(patch, steps, strict=True))
    notes = [text for text, is_warning in network_notes(plan, network, BUDGET) if not is_warning]
    asked = " x ".join(wanted.split(",") * (3 if "," not in wanted else 1))
    said = [text for text in notes if f"{asked} asked for, {' x '.join(map(str, expected))} taken" in text]
    assert len(said) == (tuple(map(int, asked.split(" x "))) != expected)


def test_more_levels_than_planned_are_pooled_to_two_voxels_at_least():
    before = planned()["2d"].topology.n_stages
    deeper = planned(f"network.levels={before + 1}")["2d"]
    assert deeper.topology.n_stages == before + 1
    with pytest.raises(PlanError, match=r"2d: 12 levels, .*room for \d"):
        planned("network.levels=12")


def test_the_patch_and_the_batch_follow_from_what_the_network_needs():
    narrow, wide = planned("network.features=4"), planned("network.features=64")
    assert math.prod(wide["3d_fullres"].patch_size) < math.prod(planned()["3d_fullres"].patch_size)
    assert narrow["2d"].batch_size * math.prod(narrow["2d"].patch_size) >= wide["2d"].batch_size * math.prod(
        wide["2d"].patch_size
    )


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"activation": "relu"}, 1),
        ({"activation": "gelu"}, 1.5),
        ({"normalization": "none"}, 0.5),
        ({"normalization": "batch", "activation": "silu"}, 1.5),
        ({"dropout": (0.5, 0.5, 0.5)}, 1),
    ],
)
def test_the_memory_counts_what_is_kept_for_each_convolution(changes, factor):
    configuration = planned("network.features=8,8,8")["2d"]
    topology, patch = configuration.topology, configuration.patch_size
    plain = feature_map_values(topology, patch, 0)
    upsampled = 8 * (math.prod(patch) + math.prod(patch) // 4)
    changed = feature_map_values(topology.model_copy(update=changes), patch, 0)
    assert changed - upsampled == factor * (plain - upsampled)
    pooled = feature_map_values(topology.model_copy(update={"pooling": "max"}), patch, 0)
    assert pooled - plain == 8 * (math.prod(patch) // 4 + math.prod(patch) // 16)


def test_a_patch_over_the_budget_is_planned_with_a_warning_that_names_one_that_fits():
    network = options("network.patch_size=24,192,192")
    plan = with_network(planned(), network, BUDGET)
    (warning,) = [text for text, is_warning in network_notes(plan, network, BUDGET) if is_warning]
    assert warning.startswith("network: 3d_fullres needs about ")
    assert "planned for 1 GB" in warning
    fitting = warning.partition("network.patch_size=")[2].partition(" ")[0]
    again = options(f"network.patch_size={fitting}")
    fitted = with_network(planned(), again, BUDGET)
    assert fitted["3d_fullres"].patch_size == tuple(map(int, fitting.split(",")))
    assert not [text for text, is_warning in network_notes(fitted, again, BUDGET) if is_warning]
    gb = float(warning.partition("about ")[2].partition(" ")[0])
    assert gb > 1


def test_a_network_too_wide_for_any_patch_is_planned_with_the_features_that_fit():
    network = options("network.features=9000", "network.levels=5", "network.configurations=2d")
    plan = with_network(planned(), network, BUDGET)
    (warning,) = [text for text, is_warning in network_notes(plan, network, BUDGET) if is_warning]
    fitting = warning.partition("network.features=")[2].partition(" ")[0]
    topology = plan["2d"].topology.model_copy(update={"features": tuple(map(int, fitting.split(",")))})
    assert not BUDGET.is_exceeded(plan["2d"].model_copy(update={"topology": topology}))


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["network.activation=tanh"], "network.activation = 'tanh'.*leaky_relu"),
        (["network.activatoin=relu"], "no such setting.*network.activation"),
        (["network.dropout=1.0"], "network.dropout.*less than 1"),
        (["network.levels=0"], "network.levels.*greater than or equal to 1"),
        (["network.features=8,x"], "network.features.*integer"),
        (["network.kernels=2"], "kernels are 2, expected odd edges"),
        (["network.strides=2,2"], "strides are 2,2, expected 1 for the first level"),
        (["network.strides=1x1,2x2x2"], "strides have 2 axes in one level and 3 in another"),
        (["network.patch_size=8,8,8,8"], "patch_size has 4 edges"),
        (["network.features=8,16", "network.levels=3"], r"numbers of levels differ \(features 2, levels 3\)"),
        (["network.features=8", "network.max_features=16"], "to none"),
        (["levels"], "expected KEY=VALUE"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_with_what_was_expected(assignments, message):
    with pytest.raises(ConfigError, match=message):
        options(*assignments)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["network.configurations=3d_full"], r"network.configurations: the plan has no '?3d_full"),
        (["network.patch_size=32,32", "network.configurations=3d_fullres"], "network.patch_size: found 2 axes, but"),
        (["network.patch_size=4,4,4", "network.strides=4", "network.levels=2"], "3d_fullres: 2 levels .* single voxel"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_built_is_refused(assignments, message):
    with pytest.raises(PlanError, match=message):
        planned(*assignments)


def test_a_file_is_shared_by_planning_and_training(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(
        'iterations = 5\n[network]\nkernels = [[1, 3, 3], 3]\nfeatures = [8, 16]\n[optimizer]\nname = "sgd"\n'
    )
    assert network_level(path).values == {"network.kernels": [[1, 3, 3], 3], "network.features": [8, 16]}
    assert file_level(path, without=NOT_OF_TRAINING).values == {"iterations": 5, "optimizer.name": "sgd"}
    resolved = resolve_network([path], ["network.features=8,24"], NOTHING)
    assert resolved.config.network.kernels == ((1, 3, 3), (3,))
    assert dict(resolved.origins) == {"network.kernels": str(path), "network.features": "--set"}
    assert unplanned_options(path, resolved.config.network) == ["network.features=[8, 16]"]


def test_later_levels_win_and_none_takes_an_option_back(tmp_path: Path):
    user = tmp_path / "config.toml"
    user.write_text('[network]\nlevels = 3\nactivation = "elu"\n')
    before = Level("before", {"network.levels": 4})
    assert resolve_network([], [], before, user).config.network == NetworkOptions(levels=4, activation="elu")
    assert resolve_network([], ["network.levels=none"], before).config.network == NetworkOptions()


def test_set_options_are_those_that_differ_and_resolve_to_the_same():
    network = options("network.kernels=1x3x3,3", "network.dropout=0.1", "network.levels=2")
    assert set(set_options(network)) == {"network.kernels", "network.dropout", "network.levels"}
    assert resolve_network([], [], Level("before", set_options(network))).config.network == network
    assert set_options(NetworkOptions()) == {}


def test_training_refuses_the_network_with_the_command_that_plans_it():
    refuse_network_settings(["learning_rate=0.1"], "plan it")
    with pytest.raises(ConfigError, match=r"plan it --set network.levels=4 network.pooling=max"):
        refuse_network_settings(["network.levels=4", "iterations=3", "network.pooling=max"], "plan it")
