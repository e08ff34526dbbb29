"""Plan a data set in its workspace: use the present plan or make a new one, and split the cases into folds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from autoseg.core.config_levels import Level, Resolved
from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.findings import listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.parallel import Workers
from autoseg.core.plan import Plan
from autoseg.core.progress import Stages, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import planning_command
from autoseg.dataset.dataset import Dataset
from autoseg.planning.files import PLAN_FILE, load_plan, save_plan
from autoseg.planning.measure_dataset import current_fingerprint
from autoseg.planning.network_options import PlanSettings, network_level, resolve_network, set_options
from autoseg.planning.network_plan import network_notes
from autoseg.planning.plan_edits import (
    PlanChoice,
    PlanningOptions,
    PlanRecord,
    choose_configurations,
    choose_plan,
    load_record,
    save_record,
)
from autoseg.planning.plan_like import plan_like
from autoseg.planning.planner import network_budget, plan
from autoseg.planning.presets import planner_settings
from autoseg.planning.splits import load_or_make_splits, refuse_forgotten_cases, warn_of_gaps

log = logging.getLogger(__name__)


class Planned(NamedTuple):
    """The plan of a data set, and the fingerprint that it was made from."""

    plan: Plan
    fingerprint: Fingerprint
    edits: tuple[str, ...]
    """Edits of plans.json that are kept, one line each."""
    configurations: tuple[str, ...]
    """Names of the configurations to preprocess."""


class Former(NamedTuple):
    """The plan of an earlier run and its record; None where there is none."""

    plan: Plan | None
    record: PlanRecord | None


def plan_dataset(
    dataset: Dataset,
    workspace: Workspace,
    options: PlanningOptions,
    workers: Workers | None = None,
    stages: Stages = silent_stages,
    *,
    configurations: Sequence[str] | None = (),
) -> Planned:
    """Check and measure the files, plan, and split into folds; write all of it to the workspace.

    ``configurations`` are to be preprocessed next, as in
    :func:`autoseg.planning.plan_edits.choose_configurations`; () for none yet.
    ``workers`` as for :func:`autoseg.planning.workers.fitting_workers`.

    Raises
    ------
    DatasetError
        The files have faults: all of them.
    PlanError
        There is no such planner, an edit of plans.json cannot work, the plan lacks one of the
        configurations, or the data do not fit the model to follow; no plan is written.
    ConfigError
        Edits would be lost without ``options.replan``, or an option of the network is wrong.
    """
    planner_settings(options.planner or "default")  # a misspelt name is refused before the files are read
    folder = workspace.preprocessed(dataset.name)
    former = former_plan(folder, planning_command(workspace, dataset), options)
    network = network_settings(former, options)
    fingerprint = current_fingerprint(dataset, folder, workers, stages)
    choice, memory_gb = _chosen_plan(
        dataset, fingerprint, former, options, network, planning_command(workspace, dataset, "--replan")
    )
    for name in configurations or ():
        choice.plan.configuration(name)
    splits = load_or_make_splits(dataset, folder, fingerprint.informative_cases, fingerprint)
    refuse_forgotten_cases(dataset, folder, fingerprint.informative_cases)
    warn_of_gaps(splits, dataset, fingerprint)
    save_plan(choice.plan, folder / PLAN_FILE)
    chosen = () if configurations == () else choose_configurations(choice.plan, configurations, former.record)
    used = () if former.record is None else former.record.configurations
    record = PlanRecord(
        plan=choice.made, gpu_memory_gb=memory_gb, configurations=used, model_plan=options.followed(former.record),
        network=network.config.network, network_origins=dict(network.origins),
    )  # fmt: skip
    save_record(record.with_used(chosen, choice.plan) if chosen else record, folder)
    return Planned(choice.plan, fingerprint, choice.edits, chosen)


def network_settings(former: Former, options: PlanningOptions) -> Resolved[PlanSettings]:
    """Return the options of the network, each with where it came from; what ``options`` do not name is as before.

    Options of an earlier run keep the name of the place that set them. Raises ``ConfigError`` that names every fault.
    There are none if the plan follows that of a model.
    """
    record = former.record
    if options.followed(record) is not None:
        _say_that_the_model_decides(options)
        return Resolved(PlanSettings(), {})
    before = Level("the present plan", {} if record is None else set_options(record.network))
    user = options.user_file if record is None or options.replan else None
    files = [] if options.run_file is None else [options.run_file]
    network = resolve_network(files, options.settings, before, user)
    places = {} if record is None else record.network_origins
    origins = {key: places.get(key, name) if name == before.name else name for key, name in network.origins.items()}
    return Resolved(network.config, origins)


def _say_that_the_model_decides(options: PlanningOptions) -> None:
    """Raise ``ConfigError`` for options of the network on the command line; name those of the run's file."""
    if options.settings:
        raise ConfigError(
            f"--set {options.settings[0]}: the plan follows that of a model (--plan-of), which decides about the "
            "network. Leave out --set, or plan from the data again with --planner default"
        )
    keys = [] if options.run_file is None else list(network_level(options.run_file).values)
    if keys:
        log.warning(
            "%s: %s not taken: the plan follows that of a model, which decides about the network",
            options.run_file, listed(keys),
        )  # fmt: skip


def former_plan(folder: Path, command: str, options: PlanningOptions) -> Former:
    """Return the plan in ``folder`` and its record; raise ``PlanError`` if an edit of it cannot work.

    ``command`` plans the data set. With ``options.replan``, an unusable plan counts as none.
    """
    if not (folder / PLAN_FILE).is_file():
        return Former(None, None)
    try:
        return Former(load_plan(folder / PLAN_FILE, command), load_record(folder))
    except PlanError:
        if not options.replan:
            raise
        return Former(None, load_record(folder))


def _chosen_plan(
    dataset: Dataset,
    fingerprint: Fingerprint,
    former: Former,
    options: PlanningOptions,
    network: Resolved[PlanSettings],
    replanning: str,
) -> tuple[PlanChoice, float | None]:
    """Return the plan to use, and the memory (GB) that it was made for; log its edits, and what a new one would change.

    ``replanning`` is the command that plans anew.
    """
    before = former.plan or (None if former.record is None else former.record.plan)
    planner = None if before is None else before.planner
    model_plan = options.followed(former.record)
    is_same = options.planner is None or options.planner == planner
    known_gb = former.record.gpu_memory_gb if former.record is not None and is_same else None
    memory_gb = options.gpu_memory_gb if options.gpu_memory_gb is not None else known_gb
    name = options.planner or planner or "default"
    wanted = network.config.network
    if model_plan is None:
        fresh = plan(dataset, fingerprint, name, memory_gb, wanted)
    else:
        fresh = plan_like(model_plan, dataset, fingerprint)
    choice = choose_plan(fresh, former.plan, former.record, options, wanted)
    if model_plan is None and not (choice.edits or choice.drift):
        budget = network_budget(dataset, fingerprint, name, memory_gb)
        for note, is_warning in network_notes(choice.plan.configurations, wanted, budget):
            log.log(logging.WARNING if is_warning else logging.INFO, "%s", note)
    if choice.edits:
        log.warning("plans.json was edited, which is kept: %s. To plan anew: %s", listed(choice.edits), replanning)
    if choice.drift:
        log.warning(
            "the plan is kept though the data changed; a new one would differ in %s. To take it: %s",
            listed(choice.drift), replanning,
        )  # fmt: skip
    return choice, memory_gb
