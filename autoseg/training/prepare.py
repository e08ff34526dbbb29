"""From a workspace and what the user asked for to a :class:`FoldRequest`; what is wrong is said before computing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from autoseg.cases.cache import CaseCache
from autoseg.core.config_levels import Resolved
from autoseg.core.errors import CacheError, ConfigError
from autoseg.core.findings import counted, listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Configuration, Plan
from autoseg.core.workspace import ALL, Workspace, fold_folder, parse_fold
from autoseg.dataset.commands import PLANNING, planning_command
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.measure import fingerprint_is_current
from autoseg.inspection.statements import with_known_promises
from autoseg.nn.device import select_device
from autoseg.nn.losses.registry import CPU
from autoseg.planning.files import FINGERPRINT_FILE, PLAN_FILE, load_fingerprint, load_plan
from autoseg.planning.network_options import NetworkOptions, refuse_network_settings, unplanned_options
from autoseg.planning.plan_edits import PlanRecord, load_record
from autoseg.planning.splits import Split, load_or_make_splits, refuse_forgotten_cases, select_fold, warn_of_gaps
from autoseg.preprocessing.runner import NO_FILES, stale_cases
from autoseg.training.batches import recipe
from autoseg.training.cascade import previous_maps
from autoseg.training.case_preview import preview_names
from autoseg.training.check_task import check_task
from autoseg.training.config import TrainingConfig
from autoseg.training.objective import objective_of
from autoseg.training.optim import optimizer_settings
from autoseg.training.pretrained import check_pretrained, pretrained_checkpoint
from autoseg.training.request import FoldRequest
from autoseg.training.resuming import find_run
from autoseg.training.run_checkpoints import BEST, FINAL, LATEST, PREVIOUS, has_checkpoint, load_latest
from autoseg.training.run_config import RunOptions, fold_config
from autoseg.training.run_lock import check_not_running
from autoseg.training.run_loss import run_loss, run_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _ChosenRun:
    """The run that options mean, in a workspace."""

    plan: Plan
    fingerprint: Fingerprint
    configuration: Configuration
    name: str
    folder: Path
    """Of the fold."""


def prepare_fold(workspace: Workspace, dataset: Dataset, options: RunOptions) -> FoldRequest:
    """Find plan, split and cache of ``dataset`` and resolve the configuration.

    Raises
    ------
    PlanError
        No plan yet, or no such configuration.
    ConfigError
        No such fold, or a setting that is wrong.
    ModelError
        The second stage of a cascade, and the first is not trained; says which folds are missing.
    CacheError
        A case of the fold is not preprocessed, or its cache is stale; says which and why.
    """
    preprocessed = workspace.preprocessed(dataset.name)
    planning = _planning(workspace, dataset, options)
    member = parse_fold(options.fold)
    options = replace(options, fold=str(member))  # "00" is fold 0
    refuse_network_settings(options.settings, planning)
    warn_of_other_network(options.run_file, load_record(preprocessed), planning)
    run = _chosen_run(workspace, dataset, options, planning)
    plan, fingerprint, configuration = run.plan, run.fingerprint, run.configuration
    check_all_planned(dataset, fingerprint, planning)
    names = fingerprint.informative_cases
    splits = load_or_make_splits(dataset, preprocessed, names, fingerprint)
    split = select_fold(splits, ALL if member.fold == ALL else int(member.fold), names)
    if member.fold != ALL:
        refuse_forgotten_cases(dataset, preprocessed, names)
        warn_of_gaps(splits, dataset, fingerprint, int(member.fold))
    resolved = _settings(run, with_known_promises(dataset, preprocessed), options)
    cache = CaseCache.read(preprocessed / configuration.name, [*split.train, *split.val, *dataset.case_names])
    previous = previous_maps(workspace, dataset, configuration, splits, options.fold)
    command = f"{planning} -c {configuration.name}"
    check_cache(dataset, plan, configuration.name, cache, split, command=command, previous=previous)
    return FoldRequest(
        dataset=dataset,
        plan=plan,
        configuration=configuration,
        cache=cache,
        train_cases=split.train,
        val_cases=split.val,
        fold=options.fold,
        folder=run.folder,
        config=resolved.config,
        origins=resolved.origins,
        name=run.name,
        device=options.device,
        workers=options.workers,
        pretrained=pretrained_checkpoint(options.pretrained, options.fold),
        batch_devices=_batch_devices(run.folder, options) if resolved.config.batch_per_device else 1,
        data_hash=fingerprint.source_hash,
    )


def resolve_settings(workspace: Workspace, dataset: Dataset, options: RunOptions) -> Resolved[TrainingConfig]:
    """Return the settings that a run would have, with their levels; the data set must be planned, no more.

    Raises the errors of :func:`prepare_fold`, except those about folds and caches.
    """
    options = replace(options, fold=str(parse_fold(options.fold)))
    run = _chosen_run(workspace, dataset, options, _planning(workspace, dataset, options))
    return _settings(run, with_known_promises(dataset, workspace.preprocessed(dataset.name)), options)


def _planning(workspace: Workspace, dataset: Dataset, options: RunOptions) -> str:
    """Return the command that plans the data set, with the network that the run's file asks for."""
    network = [] if options.run_file is None else ["--config", str(options.run_file)]
    return planning_command(workspace, dataset, *network)


def _settings(run: _ChosenRun, dataset: Dataset, options: RunOptions) -> Resolved[TrainingConfig]:
    return fold_config(run.plan, dataset, run.fingerprint, options, run.folder)


def _batch_devices(folder: Path, options: RunOptions) -> int:
    """Return on how many devices a run was begun that goes on; that of a new one."""
    if not (options.resume and has_checkpoint(folder)):
        return options.devices
    return int(load_latest(folder).state["batch_devices"])


def _chosen_run(workspace: Workspace, dataset: Dataset, options: RunOptions, planning: str) -> _ChosenRun:
    """Return the run that is meant: as named, otherwise the one to resume, otherwise the default.

    ``planning`` is the command that plans the data set.
    """
    preprocessed = workspace.preprocessed(dataset.name)
    plan = load_plan(preprocessed / PLAN_FILE, planning)
    fingerprint = load_fingerprint(preprocessed / FINGERPRINT_FILE, planning)
    begun = None
    if options.resume and (options.name is None or options.configuration is None):
        begun = find_run(workspace.results(dataset.name), options.fold, options.name, options.configuration)
    chosen = options.configuration or default_configuration(plan, load_record(preprocessed))
    name, chosen = begun or (options.name or "default", chosen)
    configuration = plan.configuration(chosen)
    folder = fold_folder(workspace.model(dataset.name, configuration.name, name), options.fold)
    return _ChosenRun(plan, fingerprint, configuration, name, folder)


def warn_of_other_network(run_file: Path | None, record: PlanRecord | None, planning: str) -> None:
    """Say which options of the network in the file of a run the plan was not made with; ``planning`` plans anew."""
    options = [] if run_file is None else unplanned_options(run_file, record.network if record else NetworkOptions())
    if options:
        log.warning(
            "%s: the plan was made without %s, so the network does not have it. Plan anew, then train: %s",
            run_file, listed(options), planning,
        )  # fmt: skip


def default_configuration(plan: Plan, record: PlanRecord | None = None) -> str:
    """Return ``3d_fullres`` if it was preprocessed, else the first that was; without a record, of the whole plan."""
    used = () if record is None else record.configurations
    names = [name for name in plan.configurations if name in used] or list(plan.configurations)
    return "3d_fullres" if "3d_fullres" in names else names[0]


def check_all_planned(dataset: Dataset, fingerprint: Fingerprint, command: str) -> None:
    """Make sure that no case is forgotten: raise ``CacheError`` naming those of which planning did not know.

    Cases without an annotated voxel are named in a warning. ``command`` plans the data set.
    """
    others = sorted(set(dataset.case_names) - set(fingerprint.informative_cases))
    if not others:
        return
    if fingerprint_is_current(fingerprint, dataset):
        log.warning(
            "%s: no voxel is annotated, so training leaves it out: %s", dataset.name, listed(others, len(others))
        )
        return
    raise CacheError(
        f"{dataset.name}: found {counted(len(others), 'case')} that planning left out: {listed(others, len(others))} "
        f"(new, or not annotated then), expected every case to be known to the plan. Run {command}"
    )


def check_cache(
    dataset: Dataset,
    plan: Plan,
    configuration: str,
    cache: CaseCache,
    split: Split,
    command: str = PLANNING,
    *,
    previous: Mapping[str, Path] = NO_FILES,
) -> None:
    """Raise ``CacheError`` unless every case of the split is preprocessed from what the files say now.

    ``command`` preprocesses the data set; ``previous`` as for ``preprocessing.runner.preprocess_dataset``.
    """
    names = sorted({*split.train, *split.val})
    settled = with_known_promises(dataset, cache.folder.parent)
    stale = stale_cases(settled, plan, configuration, cache, names, previous=previous)
    if stale:
        reasons = listed(f"{case} ({reason})" for case, reason in stale.items())
        raise CacheError(
            f"{cache.folder}: found {counted(len(stale), 'stale case')}: {reasons}; expected caches made from the "
            f"present files and plan. Run {command}"
        )


def check_start(request: FoldRequest, *, resume: bool, overwrite: bool) -> None:
    """Raise before a former run is removed if the new one cannot start: device, components, or weights do not fit.

    See :func:`autoseg.training.pretrained.check_pretrained`. A resumed run needs these weights no more.
    """
    config = request.config
    select_device(request.device)
    check_task(request.dataset.labels)
    recipe(request)
    optimizer_settings(config.optimizer, config.iterations)
    preview_names(request)
    objective = objective_of(request.dataset.labels, CPU)
    run_loss(request, objective, run_weights(request, objective), None, CPU)
    if request.pretrained is not None and not resume:
        check_pretrained(
            request.pretrained, request.folder, request.plan, request.configuration, request.dataset.labels,
            overwrite=overwrite,
        )  # fmt: skip


def check_folder(folder: Path, *, resume: bool, overwrite: bool, command: str = "autoseg_train ...") -> bool:
    """Make sure that a run neither destroys nor mixes with another; return whether there is something to resume.

    ``overwrite`` moves the folder aside, to ``old_fold_<k>_<time>`` beside it. Raises ``ConfigError`` if the folder
    holds a run and neither flag is given, or both are, if ``resume`` finds only weights that cannot go on, or if
    ``overwrite`` finds a training that runs. ``command`` trains the fold, for the message.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite: found both, expected one. Leave one out.")
    if overwrite:
        check_not_running(folder)
    if overwrite and any(folder.glob("*.pt")):
        aside = folder.with_name(f"old_{folder.name}_{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S}")
        folder.rename(aside)
        log.info("the earlier run is now %s", aside)
    elif overwrite and folder.exists():
        shutil.rmtree(folder)
    left = [name for name in (LATEST, PREVIOUS, FINAL, BEST) if (folder / name).exists()]
    if not left or (resume and left == [BEST]):  # ended from outside in its first epoch
        return False
    can_go_on = has_checkpoint(folder)
    if resume and can_go_on:
        return True
    found = "the checkpoints of an earlier run" if can_go_on else f"an earlier run without {LATEST}, which cannot go on"
    further = f", or go on: {command} --resume" if can_go_on else ""
    raise ConfigError(
        f"{folder}: found {found}, expected none. Give the run another --name, or start anew: {command} --overwrite"
        f"{further}"
    )
