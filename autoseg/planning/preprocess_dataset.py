"""Write the caches that training reads, by the plan of a data set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from autoseg.core.errors import AutosegError
from autoseg.core.findings import counted
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.parallel import Workers
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Stages, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import planning_command
from autoseg.dataset.dataset import Dataset
from autoseg.planning.files import PLAN_FILE, load_plan
from autoseg.planning.measure_dataset import current_fingerprint, with_estimated_promises
from autoseg.planning.memory_estimate import preprocessing_bytes
from autoseg.planning.plan_edits import choose_configurations, load_record, save_record
from autoseg.planning.workers import fitting_workers, readers
from autoseg.preprocessing.runner import preprocess_dataset

log = logging.getLogger(__name__)

PreviousMaps = Callable[[Configuration], Mapping[str, Path]]
"""Configuration -> case -> label map that the previous stage of a cascade predicted. Empty for other configurations."""


def no_previous_maps(configuration: Configuration) -> Mapping[str, Path]:
    """Return no label maps."""
    return {}


def preprocess_by_plan(
    dataset: Dataset,
    workspace: Workspace,
    configurations: Sequence[str] | None = None,
    workers: Workers | None = None,
    stages: Stages = silent_stages,
    previous: PreviousMaps = no_previous_maps,
) -> tuple[str, ...]:
    """Write the caches by the plan in the workspace; return the configurations.

    ``configurations`` as in :func:`autoseg.planning.plan_edits.choose_configurations`, the others as in
    :func:`write_caches`, also for errors.
    Raises ``PlanError`` if there is no plan, or it has no such configuration.
    """
    folder = workspace.preprocessed(dataset.name)
    plan = load_plan(folder / PLAN_FILE, planning_command(workspace, dataset))
    record = load_record(folder)
    chosen = choose_configurations(plan, configurations, record)
    if record is not None:
        save_record(record.with_used(chosen, plan), folder)
    fingerprint = current_fingerprint(dataset, folder, workers, stages)
    write_caches(dataset, plan, fingerprint, chosen, folder, workers, stages, previous)
    return chosen


def write_caches(
    dataset: Dataset,
    plan: Plan,
    fingerprint: Fingerprint,
    configurations: Sequence[str],
    folder: Path,
    workers: Workers | None = None,
    stages: Stages = silent_stages,
    previous: PreviousMaps = no_previous_maps,
) -> None:
    """Write ``folder/<configuration>/`` for each of the configurations; cases that are there and current are kept.

    ``workers`` as for :func:`autoseg.planning.workers.fitting_workers`; ``previous`` gives the second stage of a
    cascade its further input. Raises ``AutosegError`` with the cases that cannot be preprocessed, after the others, and
    what ``previous`` raises, before anything is written.
    """
    maps = {name: previous(plan.configuration(name)) for name in configurations}
    skip = frozenset(dataset.case_names) - frozenset(fingerprint.informative_cases)
    dataset = with_estimated_promises(dataset, folder, readers(dataset, workers), stages, warn=True)
    _log_reach(dataset)
    failed: dict[str, object] = {}
    for name in configurations:

        def fitting(cases: Collection[str], name: str = name) -> Workers:
            need = preprocessing_bytes(dataset, fingerprint, plan, plan.configuration(name), cases)
            return fitting_workers(workers, need, len(cases))

        without = frozenset(dataset.case_names) - maps[name].keys() if maps[name] else frozenset[str]()
        with stages(name) as progress:
            result = preprocess_dataset(
                dataset, plan, name, folder / name, workers=fitting, skip=skip | without, previous=maps[name],
                progress=progress,
            )  # fmt: skip
        log.info("%s: %d cases preprocessed, %d were up to date", name, len(result.done), len(result.kept))
        failed |= {f"{name}: {case}": error for case, error in result.failed.items()}
    if failed:
        lines = "\n".join(f"{where}: {error}" for where, error in failed.items())
        raise AutosegError(
            f"{counted(len(failed), 'case')} could not be preprocessed; another run does only what is missing.\n{lines}"
        )


def _log_reach(dataset: Dataset) -> None:
    reach_mm = dataset.protocol.reach_mm
    if isinstance(reach_mm, Mapping) and reach_mm:
        names = dataset.labels.class_names
        log.info("reach: %s", ", ".join(f"{names[index]} {distance:g} mm" for index, distance in reach_mm.items()))
