"""Settings of a training run, in groups; each with its default and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoseg.augmentation.em import DEFAULT_EM, EmOperations
from autoseg.core.config_levels import Level, Resolved, assignment_level, flatten, leaf_keys, matching_keys, nested
from autoseg.core.config_levels import resolve_levels as resolve_values
from autoseg.core.errors import ConfigError
from autoseg.planning.network_options import ELEKTRONN_WORDS as NETWORK_WORDS
from autoseg.sampling.config import SamplingConfig
from autoseg.training.class_weights import ClassWeights
from autoseg.training.evidence.config import EvidenceConfig
from autoseg.training.monitoring import MonitoringConfig, Seconds
from autoseg.training.optim import OptimizerConfig

NNUNET_ITERATIONS = 250_000
"""1000 epochs of 250 iterations. Source: nnU-Net ``nnUNetTrainer.py``."""

SCRIBBLED_FRACTION = 0.05
"""Data with a smaller annotated share, not in whole slices, are scribbled: large parts of the images lie far from any
annotation."""

SCRIBBLED: dict[str, Any] = {"evidence.background_prior": 0.5, "sampling.context_fraction": 0.7}
"""Defaults for scribbled data; docs/results.md has their comparison."""

ELEKTRONN_WORDS = {
    **NETWORK_WORDS,
    "LR_decay": "optimizer.decay_per_1000",
    "LR_schedule": "optimizer.table",
    "LR": "optimizer.learning_rate",
    "cube_prios": "priorities in [data]",
    "epochs": "iterations, or the option --epochs",
    "example_ignore_threshold": "sampling.min_annotated",
    "flip_data": "augmentation.mirror",
    "label_prop_thresh": "evidence.teacher_weight",
    "n_steps": "iterations",
    "param_file": "the option --pretrained",
    "preview_data_path": "monitoring.preview_cases",
    "save_name": "the option --name",
    "save_path": "the option --root",
    "valid_cubes": "validation in [data]",
    "warp_on": "augmentation.name",
}
"""ELEKTRONN's option, or another thing that users look for -> what to write here; docs/elektronn.md has them all."""

SMALL_ITERATIONS = 2_000
"""Length of a run with the ``small`` planner unless told otherwise: minutes on two CPU cores."""


class RecipeChoice(BaseModel):
    """Which recipe a run takes."""

    name: str = "nnunet"
    """nnunet, em, none, or package.module:attribute."""
    mirror: bool = True
    """Mirror patches in training and average over mirrored predictions."""


class AugmentationConfig(EmOperations, RecipeChoice):
    """Random changes of training patches: a recipe by name, and the operations of the recipe em."""

    @model_validator(mode="after")
    def _of_the_recipe(self) -> Self:
        """Refuse settings that have no effect: only the recipe em has these operations."""
        if self.name in ("em", "none"):
            return self
        for key in EmOperations.model_fields:
            if getattr(self, key) != getattr(DEFAULT_EM, key):
                raise ValueError(
                    f"{key}: only the recipe em has this operation, found the recipe {self.name}. Set augmentation=em, "
                    f"or leave out augmentation.{key}."
                )
        return self


class TrainingConfig(BaseModel):
    """Settings of one training run; ``autoseg_train --set key=value`` changes any of them.

    Keys without groups (``learning_rate=0.1``, ``optimizer="sgd"``), as checkpoints of earlier versions have them, mean
    the setting of that name in its group.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(default=NNUNET_ITERATIONS, ge=1)
    """Optimiser steps in all. The learning-rate schedule spans exactly these."""
    max_runtime: Seconds | None = None
    """Training time of all sessions together in seconds (or 90s, 15m, 2h) after which the run ends, as finished; the
    schedule then ends with whichever comes first. None: no limit."""
    iterations_per_epoch: int = Field(default=250, ge=1)
    """Steps between two validations, checkpoints and lines of history.jsonl, unless monitoring says otherwise."""
    validation_iterations: int = Field(default=50, ge=1)
    """Batches of validation patches per epoch."""
    batch_size: int | None = Field(default=None, ge=1)
    """Patches per step, of all devices together; None takes the plan's."""
    batch_per_device: bool = False
    """Whether each device of ``--gpus`` gets so many patches; the learning rate stays as it is."""
    loss: str = "label_sets"
    """label_sets (Dice and cross entropy of label sets); for regression l2 or l1 (mean squared or absolute error over
    known voxels); or package.module:attribute, see docs/extending.md."""
    class_weights: ClassWeights | None = None
    """Weights of the classes (or regions) in the cross entropy: one for each, NAME=NUMBER for some (the others have 1),
    or auto: inverse to their annotated voxels, at most 10. Only ratios matter; the Dice is not weighted."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the network's arithmetic; auto takes a 16-bit type where the device computes faster with it."""
    compile: bool | Literal["auto"] = "auto"
    """Whether torch compiles the network; auto does on CUDA, in runs of 1,000 steps or more."""
    deep_supervision: bool = True
    """Losses at every resolution of the decoder."""
    seed: int = Field(default=0, ge=0)
    """Everything random in a run follows from it."""
    deterministic: bool = False
    """Only operations that give the same numbers in every run on the same GPU; slower. The CPU needs it not."""
    sampling: SamplingConfig = SamplingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    monitoring: MonitoringConfig = MonitoringConfig()

    @property
    def steps_per_line(self) -> int:
        """Steps between two lines of history.jsonl."""
        return self.monitoring.history_freq or self.iterations_per_epoch

    @model_validator(mode="before")
    @classmethod
    def _into_groups(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        keys = leaf_keys(cls)
        flat: dict[str, Any] = {}
        grouped: dict[str, Any] = {}
        for key, value in values.items():
            matches = matching_keys(key, keys)
            is_group = key in cls.model_fields and isinstance(value, (Mapping, BaseModel))
            if is_group or len(matches) != 1 or "." not in matches[0]:
                grouped[key] = value
            else:
                flat[matches[0]] = value
        for group, content in nested(flat).items():
            given = grouped.get(group, {})
            grouped[group] = {**(given.model_dump() if isinstance(given, BaseModel) else given), **content}
        return grouped

    @property
    def unused(self) -> tuple[str, ...]:
        """Dotted keys of settings without effect: the operations of the recipe em, if the run takes another one."""
        if self.augmentation.name == "em":
            return ()
        groups = tuple(f"augmentation.{name}." for name in EmOperations.model_fields)
        return tuple(key for key in leaf_keys(type(self)) if key.startswith(groups))

    def flat(self) -> dict[str, Any]:
        """Return dotted key -> value of every setting."""
        return flatten(self.model_dump(mode="json"), leaf_keys(type(self)))


def resolve_config(
    defaults: Mapping[str, Any] | Sequence[Level], assignments: Sequence[str] = ()
) -> Resolved[TrainingConfig]:
    """Build the configuration from levels, each over the one before, and ``key=value`` assignments over all.

    Epochs shrink with short runs, so that a run always has at least ten of them.

    Parameters
    ----------
    defaults
        Levels, or the values of a single one.

    Raises
    ------
    ConfigError
        Names every unknown key and every value out of range, with the level that set it.
    """
    levels = [Level("default", defaults)] if isinstance(defaults, Mapping) else list(defaults)
    levels = [*levels, assignment_level(assignments, TrainingConfig)]
    resolved = resolve_values(TrainingConfig, levels, ELEKTRONN_WORDS)
    config, origins = resolved.config, dict(resolved.origins)
    evidence = config.evidence
    if evidence.held_out_fraction == 0 and (evidence.background_prior or evidence.teacher_weight):
        raise ConfigError(
            f"{origins['evidence.held_out_fraction']}: evidence.held_out_fraction = 0: background_prior and "
            "teacher_weight are checked on held-out annotation. Set a share above 0, or set both to 0 to train on all "
            "of the annotation."
        )
    changes: dict[str, Any] = {}
    if "iterations_per_epoch" not in origins:
        changes["iterations_per_epoch"] = min(config.iterations_per_epoch, max(1, config.iterations // 10))
    if "validation_iterations" not in origins:
        per_epoch = changes.get("iterations_per_epoch", config.iterations_per_epoch)
        changes["validation_iterations"] = max(1, per_epoch // 5)
    return Resolved(config.model_copy(update=changes), origins | dict.fromkeys(changes, "length of the run"))
