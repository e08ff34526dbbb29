"""The present plan stays, with its edits, until another one is asked for; no edit is lost."""

from __future__ import annotations

from typing import Any

import pytest

from autoseg.core.errors import ConfigError
from autoseg.core.plan import Plan
from autoseg.core.workspace import Workspace
from autoseg.planning.files import PLAN_FILE, load_plan
from autoseg.planning.plan_edits import (
    PlanningOptions,
    PlanRecord,
    choose_plan,
    differences,
    load_record,
    save_record,
)


@pytest.fixture
def plan(toy_workspace: Workspace) -> Plan:
    return load_plan(toy_workspace.preprocessed("Dataset900_Toy") / PLAN_FILE)


def changed(plan: Plan, **values: Any) -> Plan:
    configuration = plan.configurations["3d_fullres"].model_copy(update=values)
    return plan.model_copy(update={"configurations": {"3d_fullres": configuration}})


def test_an_unedited_plan_is_kept_though_the_data_would_give_another(plan):
    fresh = changed(plan, batch_size=9)
    decision = choose_plan(fresh, plan, PlanRecord(plan=plan), PlanningOptions())
    assert (decision.plan, decision.edits) == (plan, ())
    assert decision.drift == ("configurations.3d_fullres.batch_size: 2 -> 9",)
    assert choose_plan(fresh, plan, PlanRecord(plan=plan), PlanningOptions(replan=True)).plan == fresh
    assert choose_plan(fresh, None, None, PlanningOptions()).plan == fresh


@pytest.mark.parametrize(
    ("fresh", "wishes"),
    [
        ({}, PlanningOptions(planner="default")),
        ({}, PlanningOptions(gpu_memory_gb=5.0)),
        ({"channel_names": ("CT",)}, PlanningOptions()),
    ],
    ids=["planner", "memory", "channels"],
)
def test_what_asks_for_a_new_plan_gets_it_unless_an_edit_would_be_lost(plan, fresh, wishes):
    new = plan.model_copy(update=fresh)
    record = PlanRecord(plan=plan, gpu_memory_gb=4.0)
    assert choose_plan(new, plan, record, wishes).plan == new
    with pytest.raises(ConfigError, match=r"configurations\.3d_fullres\.batch_size: 2 -> 3.*--replan"):
        choose_plan(new, changed(plan, batch_size=3), record, wishes)


def test_what_is_asked_for_again_is_no_new_wish(plan):
    record = PlanRecord(plan=plan, gpu_memory_gb=4.0)
    edited = changed(plan, batch_size=3)
    assert choose_plan(plan, edited, record, PlanningOptions(plan.planner, 4.0)).plan == edited


def test_a_plan_of_which_nobody_wrote_how_it_was_made_is_kept_as_an_edit(plan):
    edited = changed(plan, batch_size=3)
    decision = choose_plan(plan, edited, None, PlanningOptions())
    assert (decision.plan, decision.made) == (edited, plan)
    assert decision.edits == ("configurations.3d_fullres.batch_size: 2 -> 3",)


def test_the_median_shape_follows_an_edited_spacing(plan):
    made = plan.configurations["3d_fullres"]
    edited = changed(plan, spacing=tuple(edge * 2 for edge in made.spacing))
    kept = choose_plan(plan, edited, PlanRecord(plan=plan), PlanningOptions()).plan.configurations["3d_fullres"]
    assert kept.median_shape == tuple(max(1.0, float(round(edge / 2))) for edge in made.median_shape)
    assert kept.spacing == edited.configurations["3d_fullres"].spacing


def test_the_record_survives_its_file(plan, tmp_path):
    assert load_record(tmp_path) is None
    record = PlanRecord(plan=plan, gpu_memory_gb=4.0, configurations=("2d",))
    save_record(record, tmp_path)
    assert load_record(tmp_path) == record
    assert list(differences(plan, record.plan)) == []
