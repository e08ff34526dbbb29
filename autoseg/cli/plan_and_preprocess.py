"""``autoseg_plan_and_preprocess DATASET``: check the files, decide, and write the caches that training reads."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from autoseg.cli import common
from autoseg.core.errors import DatasetError, PlanError
from autoseg.core.findings import counted, listed

if TYPE_CHECKING:
    from autoseg.core.fingerprint import Fingerprint
    from autoseg.core.plan import Plan
    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import Dataset
    from autoseg.planning.plan_edits import PlanChoice, PlanningOptions, PlanRecord

log = logging.getLogger("autoseg.plan_and_preprocess")

CONFIGURATIONS = "2d|3d_fullres|3d_lowres"


def main() -> None:
    """Entry point of the command."""
    common.run(plan_and_preprocess, lists={"-c": CONFIGURATIONS})


def plan_and_preprocess(
    dataset: Annotated[str, typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, or nnU-Net's id.")],
    *,
    configurations: Annotated[
        list[str] | None,
        typer.Option("-c", metavar="NAME ...", help=f"{CONFIGURATIONS} (default: as before, else all of the plan)."),
    ] = None,
    planner: Annotated[
        str | None,
        typer.Option(help="default, resenc_m, resenc_l, resenc_xl, or small for CPUs (default: as planned before)."),
    ] = None,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(min=0.1, help="Plan for a GPU with this much memory (default: as planned before).")
    ] = None,
    replan: Annotated[
        bool, typer.Option("--replan", help="Plan anew from the data, and give up what was edited in plans.json.")
    ] = False,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Only look into the files, and report what is annotated.")
    ] = False,
    root: common.RootOption = None,
    workers: Annotated[
        int | None,
        typer.Option("-j", "--workers", min=0, help="Worker processes (default: all cores that free memory feeds)."),
    ] = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Check every file of DATASET, plan its networks, and preprocess its cases into NumPy caches.

    Results go to ROOT/preprocessed/DATASET. A second run redoes only what has changed, and keeps the plan, with what
    was edited in plans.json, unless it names another planner or other memory, or says --replan.
    """
    from autoseg.cli.check_files import check
    from autoseg.dataset.dataset import Dataset

    common.set_up_logging(verbose=verbose, quiet=quiet)
    space = common.workspace(root)
    described, faults = Dataset.examine(space.find_dataset(dataset))
    if check_only or faults:
        folder = space.preprocessed(described.name)
        check(described, faults, folder, readers(described, workers), as_json=json_, quiet=quiet)
        return
    for warning in described.warnings:
        log.warning("%s", warning)
    from autoseg.planning.plan_edits import PlanningOptions

    folder = space.preprocessed(described.name)
    wishes = PlanningOptions(planner, gpu_memory_gb, replan)
    made = make_plan(described, space, wishes, workers, needed=configurations or (), quiet=quiet)
    planned, chosen = made.plan, chosen_configurations(made.plan, configurations, folder)
    preprocess(described, planned, made.fingerprint, chosen, folder, workers, quiet=quiet)
    if json_:
        common.print_json(
            {
                "plan": planned.model_dump(mode="json"),
                "folder": str(folder),
                "preprocessed": chosen,
                "edited": made.edits,
            }
        )
    elif not quiet:
        print_planned(planned, chosen, folder)


def print_planned(planned: Plan, chosen: Sequence[str], folder: Path) -> None:
    """Say what was planned, and where it lies."""
    print(f"planned and preprocessed in {folder}")
    for name in chosen:
        configuration = planned.configuration(name)
        shape = " x ".join(map(str, configuration.patch_size))
        spacing = " x ".join(f"{edge:.3g}" for edge in configuration.spacing)
        print(f"  {name}: patches of {shape} voxels at {spacing} mm, {configuration.batch_size} per batch")


class Planned(NamedTuple):
    """What :func:`make_plan` decided, and of what."""

    plan: Plan
    fingerprint: Fingerprint
    edits: tuple[str, ...]
    """What was edited in plans.json and is kept, one line each."""


def make_plan(
    dataset: Dataset,
    space: Workspace,
    wishes: PlanningOptions,
    workers: int | None,
    *,
    needed: Sequence[str] = (),
    quiet: bool,
) -> Planned:
    """Check and measure the files, plan, and split into folds; write all of it to the workspace.

    Raises ``PlanError`` before a plan is written if one of the configurations ``needed`` cannot be trained.
    """
    from autoseg.dataset.commands import planning_command
    from autoseg.planning.files import PLAN_FILE, save_plan
    from autoseg.planning.plan_edits import PlanRecord, save_record
    from autoseg.planning.presets import planner_settings
    from autoseg.planning.splits import load_or_make_splits, refuse_forgotten_cases
    from autoseg.planning.strata import find_gaps, profiles_from_fingerprint

    planner_settings(wishes.planner or "default")  # a misspelt name is said before the files are read
    folder = space.preprocessed(dataset.name)
    kept = former_plan(folder, planning_command(space, dataset), wishes)
    fingerprint = current_fingerprint(dataset, folder, workers, quiet=quiet)
    decision, memory = decided(dataset, fingerprint, kept, wishes, planning_command(space, dataset, "--replan"))
    for name in needed:
        decision.plan.trainable(name)
    splits = load_or_make_splits(dataset, folder, fingerprint.informative_cases, fingerprint)
    refuse_forgotten_cases(dataset, folder, fingerprint.informative_cases)
    heads = [head.name for head in dataset.labels.heads]
    for gap in find_gaps([(fold.train, fold.val) for fold in splits], profiles_from_fingerprint(fingerprint), heads):
        log.warning("%s", gap)
    save_plan(decision.plan, folder / PLAN_FILE)
    used = () if kept.record is None else kept.record.configurations
    save_record(PlanRecord(plan=decision.made, gpu_memory_gb=memory, configurations=used), folder)
    return Planned(decision.plan, fingerprint, decision.edits)


class Former(NamedTuple):
    """What is known of the plan that was there before."""

    plan: Plan | None
    record: PlanRecord | None


def former_plan(folder: Path, command: str, wishes: PlanningOptions) -> Former:
    """Return the plan in ``folder`` and how it was made; raise ``PlanError`` if an edit of it cannot work.

    ``command`` plans the data set. With ``wishes.replan`` a plan that cannot be used counts as none.
    """
    from autoseg.planning.files import PLAN_FILE, load_plan
    from autoseg.planning.plan_edits import load_record

    if not (folder / PLAN_FILE).is_file():
        return Former(None, None)
    try:
        return Former(load_plan(folder / PLAN_FILE, command), load_record(folder))
    except PlanError:
        if not wishes.replan:
            raise
        return Former(None, load_record(folder))


def decided(
    dataset: Dataset, fingerprint: Fingerprint, kept: Former, wishes: PlanningOptions, replanning: str
) -> tuple[PlanChoice, float | None]:
    """Return the plan to use, and the memory (GB) that it was made for; say what was edited, and what would be new.

    ``replanning`` is the command that plans anew.
    """
    from autoseg.planning import plan
    from autoseg.planning.plan_edits import choose_plan

    former = kept.plan or (None if kept.record is None else kept.record.plan)
    before = None if former is None else former.planner
    same = wishes.planner is None or wishes.planner == before
    known = kept.record.gpu_memory_gb if kept.record is not None and same else None
    memory = wishes.gpu_memory_gb if wishes.gpu_memory_gb is not None else known
    fresh = plan(dataset, fingerprint, wishes.planner or before or "default", memory)
    decision = choose_plan(fresh, kept.plan, kept.record, wishes)
    if decision.edits:
        log.warning("plans.json was edited, which is kept: %s. To plan anew: %s", listed(decision.edits), replanning)
    if decision.drift:
        log.warning(
            "the plan is kept though the data changed; a new one would differ in %s. To take it: %s",
            listed(decision.drift), replanning,
        )  # fmt: skip
    return decision, memory


def chosen_configurations(planned: Plan, given: Sequence[str] | None, folder: Path) -> list[str]:
    """Return the configurations to preprocess, and keep them in mind for the next time.

    They are those given, else those of before, else all that can be trained by themselves. ``folder`` holds the plan.
    """
    from autoseg.planning.plan_edits import load_record, save_record

    record = load_record(folder)
    chosen = _chosen(planned, given, record)
    if record is not None:
        used = {*chosen, *record.configurations}
        ever = tuple(name for name in planned.configurations if name in used)
        save_record(record.model_copy(update={"configurations": ever}), folder)
    return chosen


def _chosen(planned: Plan, given: Sequence[str] | None, record: PlanRecord | None) -> list[str]:
    if given:
        return [planned.trainable(name).name for name in dict.fromkeys(given)]
    possible = [name for name, item in planned.configurations.items() if item.previous_stage is None]
    before = [name for name in possible if record is not None and name in record.configurations]
    others = [name for name in possible if name not in before]
    if before and others:
        log.info("configurations as before: %s (others: -c %s)", ", ".join(before), " ".join(others))
    return before or possible


def readers(dataset: Dataset, given: int | None) -> int:
    """Return how many processes read and measure cases."""
    from autoseg.planning.memory_estimate import survey_bytes

    return fitting_workers(given, survey_bytes(dataset), len(dataset.cases))


def fitting_workers(given: int | None, need: int, n_cases: int) -> int:
    """Return as many processes as ``given``, else as cores and free memory allow; say where memory matters.

    ``need``: bytes for the largest of ``n_cases`` cases.
    """
    from autoseg.core.parallel import available_cores
    from autoseg.core.resources import GB, choose_workers, free_memory

    cores = min(available_cores(), max(n_cases, 1))
    wanted = None if given is None else min(given, max(n_cases, 1))
    workers, warning = choose_workers(wanted, need, cores=cores, free=free_memory())
    if warning is not None:
        log.warning("%s", warning)
    elif wanted is None and workers < cores:
        log.info("%d processes on %d cores: the largest case needs about %.1f GB", workers, cores, need / GB)
    return workers


def current_fingerprint(dataset: Dataset, folder: Path, given: int | None, *, quiet: bool) -> Fingerprint:
    """Return the fingerprint in ``folder`` if the files are still those it was made of; else check and measure them."""
    from autoseg.inspection.measure import fingerprint_is_current, fingerprint_of
    from autoseg.inspection.survey import survey_dataset
    from autoseg.inspection.survey_cache import SURVEY_FILE
    from autoseg.planning.files import FINGERPRINT_FILE, load_fingerprint, save_fingerprint

    path = folder / FINGERPRINT_FILE
    try:
        known = load_fingerprint(path)
    except PlanError:
        known = None
    if known is not None and fingerprint_is_current(known, dataset):
        log.info("the files are those of %s; not read again", path)
        return known
    workers = readers(dataset, given)
    with common.progress("check and measure", quiet=quiet) as report:
        found = survey_dataset(dataset, workers=workers, progress=report, cache=folder / SURVEY_FILE)
    for warning in found.report.warnings[len(dataset.warnings) :]:
        log.warning("%s", warning)
    for note in found.report.notes:
        log.info("%s", note)
    found.report.raise_if_faulty()
    spelt_out(dataset, folder, workers, quiet=quiet)  # before planning: promises that cannot be read are refused
    fingerprint = fingerprint_of(dataset, found.measures, workers=workers)
    save_fingerprint(fingerprint, path)
    return fingerprint


def spelt_out(dataset: Dataset, folder: Path, workers: int, *, quiet: bool, warn: bool = False) -> Dataset:
    """Return the data set with its promises spelt out; what is left to be estimated is, once, and kept in ``folder``.

    Raises ``DatasetError`` where nothing tells across which axis the slices of a promise lie. ``warn`` says which
    classes have no reach although one should have been estimated.
    """
    if dataset.protocol.is_empty:
        return dataset
    from autoseg.inspection.statements import (
        current_estimates,
        leaves_to_estimate,
        not_estimated,
        settled,
        settles_anything,
        unclear_slices,
    )  # fmt: skip

    if not settles_anything(dataset):
        return dataset
    with common.progress("read promises", quiet=quiet or not leaves_to_estimate(dataset.protocol)) as report:
        estimates = current_estimates(dataset, folder, workers=workers, progress=report)
    if faults := unclear_slices(dataset, estimates):
        raise DatasetError(faults)
    for warning in not_estimated(dataset, estimates) if warn else ():
        log.warning("%s", warning)
    return settled(dataset, estimates)


def preprocess(
    dataset: Dataset,
    plan: Plan,
    fingerprint: Fingerprint,
    chosen: list[str],
    folder: Path,
    given: int | None,
    *,
    quiet: bool,
) -> None:
    """Write the caches of the chosen configurations; raise ``IncompleteError`` naming the cases that failed."""
    from autoseg.planning.memory_estimate import preprocessing_bytes
    from autoseg.preprocessing.runner import preprocess_dataset

    skip = frozenset(dataset.case_names) - frozenset(fingerprint.informative_cases)
    dataset = spelt_out(dataset, folder, readers(dataset, given), quiet=quiet, warn=True)
    if isinstance(dataset.protocol.reach_mm, Mapping) and dataset.protocol.reach_mm:
        names = dataset.labels.class_names
        reaches = (f"{names[index]} {distance:g} mm" for index, distance in dataset.protocol.reach_mm.items())
        log.info("reach: %s", ", ".join(reaches))
    failed: dict[str, object] = {}
    for name in chosen:

        def workers(cases: Collection[str], name: str = name) -> int:
            need = preprocessing_bytes(dataset, fingerprint, plan, plan.configuration(name), cases)
            return fitting_workers(given, need, len(cases))

        with common.progress(name, quiet=quiet) as report:
            result = preprocess_dataset(dataset, plan, name, folder / name, workers=workers, skip=skip, progress=report)
        log.info("%s: %d cases preprocessed, %d were up to date", name, len(result.done), len(result.kept))
        failed |= {f"{name}: {case}": error for case, error in result.failed.items()}
    if failed:
        lines = "\n".join(f"{where}: {error}" for where, error in failed.items())
        raise common.IncompleteError(
            f"{counted(len(failed), 'case')} could not be preprocessed; another run does only what is missing.\n{lines}"
        )


if __name__ == "__main__":
    main()
