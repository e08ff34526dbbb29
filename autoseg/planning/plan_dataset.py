"""Plan a data set in its workspace: keep the plan that is there, or make one, and split the cases into folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from autoseg.core.errors import PlanError
from autoseg.core.findings import listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.progress import Stages, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import planning_command
from autoseg.dataset.dataset import Dataset
from autoseg.planning.files import PLAN_FILE, load_plan, save_plan
from autoseg.planning.kept_plan import Decision, PlanRecord, Wishes, decide_plan, load_record, save_record
from autoseg.planning.measure_dataset import current_fingerprint
from autoseg.planning.planner import plan
from autoseg.planning.presets import planner_settings
from autoseg.planning.splits import load_or_make_splits, refuse_forgotten_cases
from autoseg.planning.strata import find_gaps, profiles_from_fingerprint

log = logging.getLogger(__name__)


class Planned(NamedTuple):
    """The plan of a data set, and what it was made of."""

    plan: Plan
    fingerprint: Fingerprint
    edits: tuple[str, ...]
    """What was edited in plans.json and is kept, one line each."""


class Former(NamedTuple):
    """What is known of the plan that was there before."""

    plan: Plan | None
    record: PlanRecord | None


def plan_dataset(
    dataset: Dataset,
    workspace: Workspace,
    wishes: Wishes,
    workers: int | None = None,
    stages: Stages = silent_stages,
    *,
    needed: Sequence[str] = (),
) -> Planned:
    """Check and measure the files, plan, and split into folds; write all of it to the workspace.

    ``workers`` as for :func:`autoseg.planning.workers.fitting_workers`.

    Raises
    ------
    DatasetError
        The files have faults: all of them.
    PlanError
        There is no such planner, an edit of plans.json cannot work, or one of the configurations ``needed`` cannot be
        trained; no plan is written.
    ConfigError
        Edits would be lost without ``wishes.replan``.
    """
    planner_settings(wishes.planner or "default")  # a misspelt name is refused before the files are read
    folder = workspace.preprocessed(dataset.name)
    former = former_plan(folder, planning_command(workspace, dataset), wishes)
    fingerprint = current_fingerprint(dataset, folder, workers, stages)
    decision, memory_gb = _decided(
        dataset, fingerprint, former, wishes, planning_command(workspace, dataset, "--replan")
    )
    for name in needed:
        decision.plan.trainable(name)
    splits = load_or_make_splits(dataset, folder, fingerprint.informative_cases, fingerprint)
    refuse_forgotten_cases(dataset, folder, fingerprint.informative_cases)
    heads = [head.name for head in dataset.labels.heads]
    for gap in find_gaps([(fold.train, fold.val) for fold in splits], profiles_from_fingerprint(fingerprint), heads):
        log.warning("%s", gap)
    save_plan(decision.plan, folder / PLAN_FILE)
    used = () if former.record is None else former.record.configurations
    save_record(PlanRecord(plan=decision.made, gpu_memory_gb=memory_gb, configurations=used), folder)
    return Planned(decision.plan, fingerprint, decision.edits)


def former_plan(folder: Path, command: str, wishes: Wishes) -> Former:
    """Return the plan in ``folder`` and how it was made; raise ``PlanError`` if an edit of it cannot work.

    ``command`` plans the data set. With ``wishes.replan`` a plan that cannot be used counts as none.
    """
    if not (folder / PLAN_FILE).is_file():
        return Former(None, None)
    try:
        return Former(load_plan(folder / PLAN_FILE, command), load_record(folder))
    except PlanError:
        if not wishes.replan:
            raise
        return Former(None, load_record(folder))


def _decided(
    dataset: Dataset, fingerprint: Fingerprint, former: Former, wishes: Wishes, replanning: str
) -> tuple[Decision, float | None]:
    """Return the plan to use, and the memory (GB) that it was made for; log what was edited, and what would be new.

    ``replanning`` is the command that plans anew.
    """
    before = former.plan or (None if former.record is None else former.record.plan)
    planner = None if before is None else before.planner
    is_same = wishes.planner is None or wishes.planner == planner
    known_gb = former.record.gpu_memory_gb if former.record is not None and is_same else None
    memory_gb = wishes.gpu_memory_gb if wishes.gpu_memory_gb is not None else known_gb
    fresh = plan(dataset, fingerprint, wishes.planner or planner or "default", memory_gb)
    decision = decide_plan(fresh, former.plan, former.record, wishes)
    if decision.edits:
        log.warning("plans.json was edited, which is kept: %s. To plan anew: %s", listed(decision.edits), replanning)
    if decision.drift:
        log.warning(
            "the plan is kept though the data changed; a new one would differ in %s. To take it: %s",
            listed(decision.drift), replanning,
        )  # fmt: skip
    return decision, memory_gb
