"""The plan that follows a model: its networks, spacing and normalisation; shapes of the data themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.plan import Plan
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.transfer import Ends, transfer
from autoseg.planning import extract_fingerprint, plan
from autoseg.planning.plan_dataset import plan_dataset
from autoseg.planning.plan_edits import PlanningOptions
from autoseg.planning.plan_like import plan_like


@pytest.fixture(scope="module")
def toy(toy_folder):
    dataset = Dataset.load(toy_folder)
    return dataset, extract_fingerprint(dataset)


def model_of(planned: Plan, factor: float = 2.0) -> Plan:
    """A plan with coarser spacing and another number of features, of another data set."""
    changed = {
        name: item.model_copy(
            update={
                "spacing": tuple(edge * factor for edge in item.spacing),
                "normalization": ("ct",),
                "topology": item.topology.model_copy(
                    update={"features": tuple(number + 2 for number in item.topology.features)}
                ),
            }
        )
        for name, item in planned.configurations.items()
    }
    statistics = (planned.intensities[0].model_copy(update={"mean": 123.0}),)
    return planned.model_copy(
        update={"configurations": changed, "dataset_name": "other", "intensities": statistics, "planner": "small"}
    )


@pytest.mark.parametrize("name", ["2d", "3d_fullres"])
def test_all_weights_of_the_model_fit_in_2d_and_3d(toy, name):
    dataset, fingerprint = toy
    own = plan(dataset, fingerprint, "small")
    model = model_of(own)
    followed = plan_like(model, dataset, fingerprint)
    mine, theirs = followed.configuration(name), model.configuration(name)
    for key in ("spacing", "patch_size", "batch_size", "normalization", "topology"):
        assert getattr(mine, key) == getattr(theirs, key)
    assert mine.median_shape != theirs.median_shape == own.configuration(name).median_shape
    assert followed.dataset_name == dataset.name and followed.intensities[0].mean == 123
    with torch.device("meta"):
        states = [build_network(item.topology, 1, 3).state_dict() for item in (mine, theirs)]
    ends = Ends(("CT",), ("background", "a", "b"), False)
    assert len(transfer(*states, ends, ends).matched) == len(states[0])


def test_without_ct_the_intensities_are_those_of_the_data(toy):
    dataset, fingerprint = toy
    model = model_of(plan(dataset, fingerprint, "small"))
    scores = {
        name: item.model_copy(update={"normalization": ("zscore",)}) for name, item in model.configurations.items()
    }
    followed = plan_like(model.model_copy(update={"configurations": scores}), dataset, fingerprint)
    assert followed.intensities == plan(dataset, fingerprint).intensities


def test_other_channels_and_other_dimensions_are_refused(toy):
    dataset, fingerprint = toy
    model = model_of(plan(dataset, fingerprint, "small"))
    with pytest.raises(PlanError, match=r"trained on 2 channels \(T1, T2\)"):
        plan_like(model.model_copy(update={"channel_names": ("T1", "T2")}), dataset, fingerprint)
    flat = tuple((1, y, x) for _, y, x in fingerprint.shapes_after_crop)
    slices = fingerprint.model_copy(update={"shapes_after_crop": flat})
    assert list(plan_like(model, dataset, slices).configurations) == ["2d"]
    volumes = {"3d_fullres": model.configuration("3d_fullres")}
    with pytest.raises(PlanError, match="single slices"):
        plan_like(model.model_copy(update={"configurations": volumes}), dataset, slices)


def test_a_plan_goes_on_to_follow_the_model_until_a_planner_is_named(toy, tmp_path):
    dataset, fingerprint = toy
    model = model_of(plan(dataset, fingerprint, "small"))
    space = Workspace(tmp_path)

    def features(options: PlanningOptions) -> tuple[int, ...]:
        made = plan_dataset(dataset, space, options, 1)
        assert not made.edits
        return made.plan.configuration("2d").topology.features

    first = features(PlanningOptions("small"))
    followed = features(PlanningOptions(model_plan=model))
    assert followed == model.configuration("2d").topology.features != first
    assert features(PlanningOptions()) == followed
    assert features(PlanningOptions("small")) == first
    with pytest.raises(ConfigError, match="--plan-of: the model decides"):
        replace(PlanningOptions("small"), model_plan=model)


def test_options_of_the_network_say_that_a_model_decides(toy, tmp_path, caplog):
    dataset, fingerprint = toy
    model = model_of(plan(dataset, fingerprint, "small"))
    space, run = Workspace(tmp_path), tmp_path / "run.toml"
    run.write_text("iterations = 5\n[network]\nfeatures = [4, 8]\n")
    made = plan_dataset(dataset, space, PlanningOptions(model_plan=model, run_file=run), 1)
    assert made.plan.configuration("2d").topology.features == model.configuration("2d").topology.features
    assert f"{run}: network.features not taken" in caplog.text
    with pytest.raises(ConfigError, match=r"--set network\.levels=2: the plan follows that of a model"):
        plan_dataset(dataset, space, PlanningOptions(settings=["network.levels=2"]), 1)
    alone = plan_dataset(dataset, space, PlanningOptions("small", settings=["network.features=4,8"]), 1)
    assert alone.plan.configuration("2d").topology.features == (4, 8)
