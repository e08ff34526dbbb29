"""Settings of a run, from the levels that apply to it: the data, files of the user and of the run, flags."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from autoseg.core.config_levels import (
    DATA_TABLE,
    Level,
    Resolved,
    file_level,
    leaf_keys,
    resolve_levels,
    value_text,
)
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.plan import Plan
from autoseg.core.workspace import FoldName
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels, unknown_values
from autoseg.planning.network_options import GROUP
from autoseg.training.config import SCRIBBLED, SCRIBBLED_FRACTION, SMALL_ITERATIONS, TrainingConfig, resolve_config
from autoseg.training.resuming import settings_of
from autoseg.training.run_checkpoints import has_checkpoint

log = logging.getLogger(__name__)

CHECKPOINT_LEVEL = "checkpoint"
"""Level of the settings that a run goes on with."""
NOT_OF_TRAINING = (DATA_TABLE, GROUP)
"""Tables of a file that are for making and planning a data set."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run that a user may give, as on the command line."""

    fold: str
    """``"0"`` .. or ``"all"``, or a further seed of it, ``"all_seed1"`` ..."""
    configuration: str | None = None
    """None takes what is preprocessed: 3d_fullres, else the first."""
    name: str | None = None
    """None is ``"default"``, or the run that can be resumed."""
    device: str = "auto"
    epochs: int | None = None
    iterations: int | None = None
    max_runtime_s: float | None = None
    seed: int | None = None
    """Of the first seed of the fold; the n-th further one has n more. None is 0, or that of the run that is resumed."""
    pretrained: Path | None = None
    settings: Sequence[str] = ()
    """``key=value``, as with ``--set``."""
    workers: int = 1
    resume: bool = False
    """Take all that is not said from the run that was begun, if there is one."""
    user_file: Path | None = None
    """TOML file with settings for all runs of a user; not read when a run is resumed."""
    run_file: Path | None = None
    """TOML file with settings of this run; its tables ``data`` and ``network`` are passed over. When a run is resumed,
    a warning names what is otherwise in it."""
    deterministic: bool = False
    """Take only operations that give the same numbers in every run."""
    devices: int = 1
    """Number of processes that will train the run together, each with a device of its own."""


def fold_config(
    plan: Plan, dataset: Dataset, fingerprint: Fingerprint, options: RunOptions, folder: Path
) -> Resolved[TrainingConfig]:
    """Return the settings of a run: as begun if it is resumed, otherwise as the data and the user say.

    Parameters
    ----------
    folder
        Of the fold, where a checkpoint may lie.

    Raises
    ------
    ConfigError
        A setting is wrong: names all of them.
    ModelError
        The checkpoint of a run that is resumed cannot be used.
    """
    if options.epochs is not None and options.iterations is not None:
        raise ConfigError("--epochs and --iterations: both are given. Leave one out.")
    if options.resume and has_checkpoint(folder):
        levels = [Level(CHECKPOINT_LEVEL, settings_of(folder))]
        if options.run_file is not None:
            warn_of_other_settings(levels[0], options.run_file)
    else:
        files = [path for path in (options.user_file, options.run_file) if path is not None]
        levels = [*_levels_of_data(plan, dataset, fingerprint), *map(_settings_of_training, files)]
    if options.seed is not None:
        levels.append(Level("--seed", {"seed": options.seed}))
    if options.deterministic:
        levels.append(Level("--deterministic", {"deterministic": True}))
    if options.max_runtime_s is not None:
        levels.append(Level("--max-runtime", {"max_runtime": options.max_runtime_s}))
    if options.iterations is not None:
        levels.append(Level("--iterations", {"iterations": options.iterations}))
    if options.epochs is not None:
        per_epoch = resolve_config(levels, options.settings).config.iterations_per_epoch
        values = {"iterations": options.epochs * per_epoch, "iterations_per_epoch": per_epoch}
        levels.append(Level("--epochs", values))
    return _without_evidence(_with_own_seed(resolve_config(levels, options.settings), options.fold), dataset.labels)


def _with_own_seed(resolved: Resolved[TrainingConfig], fold: str) -> Resolved[TrainingConfig]:
    """Return the settings of a member: its seed is the given one plus the number in its name, as in ``all_seed2``.

    A run that goes on has it already, from its checkpoint.
    """
    further = FoldName.parse(fold).seed
    if not further or resolved.origins.get("seed") == CHECKPOINT_LEVEL:
        return resolved
    config = resolved.config.model_copy(update={"seed": resolved.config.seed + further})
    return replace(resolved, config=config, origins={**resolved.origins, "seed": f"fold {fold}"})


def _without_evidence(resolved: Resolved[TrainingConfig], labels: Labels) -> Resolved[TrainingConfig]:
    """Return the settings; raise ``ConfigError`` for those about unannotated voxels if the task is regression."""
    if not labels.targets:
        return resolved
    evidence = resolved.config.evidence
    for key in ("background_prior", "teacher_weight"):
        if getattr(evidence, key):
            raise ConfigError(
                f"{resolved.origins[f'evidence.{key}']}: evidence.{key} = {getattr(evidence, key):g}: the task of the "
                "data set is regression, where nothing is inferred for unknown voxels. Leave it out."
            )
    return resolved


def warn_of_other_settings(begun: Level, path: Path) -> None:
    """Name what the file of a run sets otherwise than the run that goes on has it, from flags or steered since.

    ``begun`` are the settings of the checkpoint, which hold: otherwise a flag of the first start would be lost.
    """
    before, wanted = (
        {key: value for key, value, _ in resolve_levels(TrainingConfig, levels).rows()}
        for levels in ([begun], [begun, _settings_of_training(path)])
    )
    others = [f"{key}={value_text(wanted[key])}" for key in wanted if wanted[key] != before[key]]
    if others:
        log.warning(
            "%s: %s not taken, since the run goes on with the settings of its checkpoint. Change them with --set",
            path, listed(others),
        )  # fmt: skip


def _settings_of_training(path: Path) -> Level:
    return file_level(path, without=NOT_OF_TRAINING, leaves=leaf_keys(TrainingConfig))


def _levels_of_data(plan: Plan, dataset: Dataset, fingerprint: Fingerprint) -> list[Level]:
    """Return the levels that follow from plan and data: runs with the ``small`` planner are short."""
    levels = [Level("planner small", {"iterations": SMALL_ITERATIONS})] if plan.planner == "small" else []
    if dataset.labels.targets:
        return [*levels, Level("task regression", {"loss": "l2"})]
    if not is_scribbled(dataset, fingerprint):
        return levels
    values = settings_for_scribbles(dataset)
    log.info(
        "under %.0f %% is annotated, not in whole slices: %s unless set otherwise",
        100 * SCRIBBLED_FRACTION, " ".join(f"{key}={value}" for key, value in values.items()),
    )  # fmt: skip
    return [*levels, Level("scribbled data", values)]


def is_scribbled(dataset: Dataset, fingerprint: Fingerprint) -> bool:
    """Whether so little is annotated that most of an image lies far from any annotation.

    True if something marks voxels as unannotated (ignore, unlabelled or valid masks), the median case has a smaller
    annotated share than ``SCRIBBLED_FRACTION``, and less than half of that lies in slices annotated as a whole: such
    slices show background as it is everywhere, and a prior only does harm (see docs/results.md). Cases of which
    dataset.json says that only some classes were annotated are spared by the prior itself.
    """
    shares = {name: fingerprint.drawn_fraction.get(name, 1.0) for name in fingerprint.informative_cases}
    cases = [name for name, share in shares.items() if share > 0]
    if not cases or (not (unknown_values(dataset.labels) or dataset.labels.has_masks)):
        return False
    in_slices = median(fingerprint.annotated_in_slices.get(name, 0.0) for name in cases)
    return median(shares[name] for name in cases) < SCRIBBLED_FRACTION and in_slices < 0.5


def settings_for_scribbles(dataset: Dataset) -> dict[str, Any]:
    """Return what scribbled data are trained with; without the prior where promises settle what lies far away.

    What they leave open lies beside annotation, where the prior does harm: see docs/results.md.
    """
    return {**SCRIBBLED, "evidence.background_prior": 0.0} if dataset.protocol.excludes_far_classes else dict(SCRIBBLED)
