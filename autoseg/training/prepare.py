"""From a workspace and what the user asked for to a :class:`FoldRequest`; what is wrong is said before computing."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from autoseg.cases.cache import CaseCache
from autoseg.core.errors import CacheError, ConfigError
from autoseg.core.findings import counted, listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.workspace import Workspace
from autoseg.dataset.commands import PLANNING, planning_command
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import unknown_values
from autoseg.inspection.measure import fingerprint_is_current
from autoseg.inspection.statements import with_known_promises
from autoseg.nn.device import select_device
from autoseg.planning.files import FINGERPRINT_FILE, PLAN_FILE, load_fingerprint, load_plan
from autoseg.planning.plan_edits import PlanRecord, load_record
from autoseg.planning.splits import Split, load_or_make_splits, refuse_forgotten_cases, select_fold
from autoseg.planning.strata import find_gaps, profiles_from_fingerprint
from autoseg.preprocessing.runner import NO_FILES, stale_cases
from autoseg.training.cascade import previous_maps
from autoseg.training.config import SCRIBBLED, SCRIBBLED_FRACTION, SMALL_ITERATIONS, TrainingConfig, resolve_config
from autoseg.training.fold import FoldRequest, recipe
from autoseg.training.optim import own_learning_rate
from autoseg.training.pretrained import check_pretrained
from autoseg.training.resuming import BEST, FINAL, LATEST, find_run, resumed_config

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a user may say about a run, as on the command line."""

    fold: str
    """``"0"`` .. or ``"all"``."""
    configuration: str | None = None
    """None takes what is preprocessed: 3d_fullres, else the first."""
    name: str | None = None
    """None is ``"default"``, or the run that can be resumed."""
    device: str = "auto"
    epochs: int | None = None
    iterations: int | None = None
    max_runtime_s: float | None = None
    seed: int | None = None
    """None is 0, or that of the run that is resumed."""
    pretrained: Path | None = None
    settings: Sequence[str] = ()
    """``key=value`` for :class:`TrainingConfig`."""
    workers: int = 1
    resume: bool = False
    """Take all that is not said from the run that was begun, if there is one."""


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
    planning = planning_command(workspace, dataset)
    plan = load_plan(preprocessed / PLAN_FILE, planning)
    fingerprint = load_fingerprint(preprocessed / FINGERPRINT_FILE, planning)
    check_all_planned(dataset, fingerprint, planning)
    names = fingerprint.informative_cases
    run = None
    if options.resume and (options.name is None or options.configuration is None):
        run = find_run(workspace.results(dataset.name), options.fold, options.name, options.configuration)
    chosen = options.configuration or default_configuration(plan, load_record(preprocessed))
    name, chosen = run or (options.name or "default", chosen)
    configuration = plan.configuration(chosen)
    splits, fold = load_or_make_splits(dataset, preprocessed, names, fingerprint), parse_fold(options.fold)
    split = select_fold(splits, fold, names)
    if fold != "all":
        refuse_forgotten_cases(dataset, preprocessed, names)
    heads = [head.name for head in dataset.labels.heads]
    for gap in find_gaps([(each.train, each.val) for each in splits], profiles_from_fingerprint(fingerprint), heads):
        if gap.fold == fold:
            log.warning("%s", gap)
    folder = workspace.model(dataset.name, configuration.name, name) / f"fold_{options.fold}"
    config = fold_config(plan, with_known_promises(dataset, preprocessed), fingerprint, options, folder)
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
        folder=folder,
        config=config,
        name=name,
        device=options.device,
        workers=options.workers,
        pretrained=options.pretrained,
        max_runtime_s=options.max_runtime_s,
    )


def fold_config(
    plan: Plan, dataset: Dataset, fingerprint: Fingerprint, options: RunOptions, folder: Path
) -> TrainingConfig:
    """Return the settings of a run: as begun if it is resumed, else as the data and the options say."""
    if options.resume and (folder / LATEST).is_file():
        if options.epochs is not None and options.iterations is not None:
            raise ConfigError("--epochs and --iterations: found both, expected one. Leave one out.")
        return resumed_config(
            folder / LATEST, options.settings,
            seed=options.seed, iterations=options.iterations, epochs=options.epochs,
        )  # fmt: skip
    own_settings = settings_for_scribbles(dataset) if is_scribbled(dataset, fingerprint) else {}
    if own_settings:
        settings = " ".join(f"{key}={value}" for key, value in own_settings.items())
        log.info(
            "under %.0f %% is annotated, not in whole slices: %s unless --set says otherwise",
            100 * SCRIBBLED_FRACTION,
            settings,
        )
    return training_config(plan, options, own_settings)


def parse_fold(text: str) -> int | Literal["all"]:
    """Turn the argument FOLD into a number or ``"all"``; raise ``ConfigError`` on anything else."""
    if text == "all":
        return "all"
    if not text.isdecimal():
        raise ConfigError(f"fold: found {text!r}, expected a number from 0 or 'all'. Write for example 0.")
    return int(text)


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


def is_scribbled(dataset: Dataset, fingerprint: Fingerprint) -> bool:
    """Whether so little is annotated that most of an image lies far from any annotation.

    True if something marks voxels as unannotated (ignore, unlabelled or valid masks), the median case has a smaller
    drawn share than ``SCRIBBLED_FRACTION``, and less than half of that lies in slices drawn as a whole: such slices
    show background as it is everywhere, and a prior only does harm (see docs/results.md). Cases of which dataset.json
    says that only some classes were annotated are spared by the prior itself.
    """
    drawn = {name: fingerprint.drawn_fraction.get(name, 1.0) for name in fingerprint.informative_cases}
    cases = [name for name, share in drawn.items() if share > 0]
    if not cases or (not (unknown_values(dataset.labels) or dataset.labels.has_masks)):
        return False
    in_slices = median(fingerprint.annotated_in_slices.get(name, 0.0) for name in cases)
    return median(drawn[name] for name in cases) < SCRIBBLED_FRACTION and in_slices < 0.5


def settings_for_scribbles(dataset: Dataset) -> dict[str, Any]:
    """Return what scribbled data are trained with; without the prior where promises settle what lies far away.

    What they leave open lies beside annotation, where the prior does harm: see docs/results.md.
    """
    return {**SCRIBBLED, "background_prior": 0.0} if dataset.protocol.settles_far else dict(SCRIBBLED)


def training_config(plan: Plan, options: RunOptions, own_settings: Mapping[str, Any] | None = None) -> TrainingConfig:
    """Resolve flags and settings; runs with the ``small`` planner are short unless told otherwise."""
    if options.epochs is not None and options.iterations is not None:
        raise ConfigError("--epochs and --iterations: found both, expected one. Leave one out.")
    defaults: dict[str, Any] = {"seed": options.seed or 0, **(own_settings or {})}
    if plan.planner == "small":
        defaults["iterations"] = SMALL_ITERATIONS
    if options.iterations is not None:
        defaults["iterations"] = options.iterations
    config = resolve_config(defaults, options.settings)
    if options.epochs is not None:
        per_epoch = config.iterations_per_epoch
        config = resolve_config({**defaults, "iterations": options.epochs * per_epoch}, [
            f"iterations_per_epoch={per_epoch}", *options.settings,
        ])  # fmt: skip
    return config


def check_start(request: FoldRequest, *, resume: bool, overwrite: bool) -> None:
    """Raise before a former run is removed if the new one cannot start: device, components, or weights do not fit.

    See :func:`autoseg.training.pretrained.check_pretrained`. A resumed run needs these weights no more.
    """
    select_device(request.device)
    recipe(request)
    own_learning_rate(request.config)
    if request.pretrained is not None and not resume:
        check_pretrained(
            request.pretrained, request.folder, request.plan, request.configuration, request.dataset.labels,
            overwrite=overwrite,
        )  # fmt: skip


def check_folder(folder: Path, *, resume: bool, overwrite: bool, command: str = "autoseg_train ...") -> bool:
    """Make sure that a run neither destroys nor mixes with another; return whether there is something to resume.

    ``overwrite`` empties the folder. Raises ``ConfigError`` if the folder holds a run and neither flag is given, or
    both are, or if ``resume`` finds only weights that cannot go on. ``command`` trains the fold, for the message.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite: found both, expected one. Leave one out.")
    if overwrite and folder.exists():
        shutil.rmtree(folder)
    left = [name for name in (LATEST, FINAL, BEST) if (folder / name).exists()]
    if not left or (resume and left == [BEST]):  # ended from outside in its first epoch
        return False
    can_go_on = LATEST in left
    if resume and can_go_on:
        return True
    found = "the checkpoints of an earlier run" if can_go_on else f"an earlier run without {LATEST}, which cannot go on"
    further = f", or go on: {command} --resume" if can_go_on else ""
    raise ConfigError(
        f"{folder}: found {found}, expected none. Give the run another --name, or start anew: {command} --overwrite"
        f"{further}"
    )
