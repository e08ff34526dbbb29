"""How to train: every setting in one place, with its default and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError

from autoseg.core.errors import ConfigError
from autoseg.sampling.config import SamplingConfig

NNUNET_ITERATIONS = 250_000
"""1000 epochs of 250 iterations. Source: nnU-Net ``nnUNetTrainer.py``."""

SCRIBBLED_FRACTION = 0.05
"""Data with a smaller annotated share, not in whole slices, are scribbled: large parts of the images lie far from any
annotation."""

SCRIBBLED: dict[str, Any] = {"background_prior": 0.5, "context_fraction": 0.7}
"""What scribbled data are trained with unless told otherwise: see docs/results.md."""

SMALL_ITERATIONS = 2_000
"""Length of a run with the ``small`` planner unless told otherwise: minutes on two CPU cores."""


class TrainingConfig(SamplingConfig):
    """Settings of one training run; ``autoseg_train --set key=value`` changes any of them."""

    iterations: int = Field(default=NNUNET_ITERATIONS, ge=1)
    """Optimiser steps in all. The learning-rate schedule spans exactly these."""
    iterations_per_epoch: int = Field(default=250, ge=1)
    """Steps between two validations, checkpoints and lines of history.jsonl."""
    validation_iterations: int = Field(default=50, ge=1)
    """Batches of validation patches per epoch."""
    batch_size: int | None = Field(default=None, ge=1)
    """Patches per step; None takes the plan's."""
    optimizer: str = "auto"
    """auto (by length of the run), sgd (nnU-Net's), muon, adamw, or package.module:attribute."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Highest learning rate; None takes the optimiser's own."""
    weight_decay: float | None = Field(default=None, ge=0)
    """None takes the optimiser's own."""
    warmup_iterations: int | None = Field(default=None, ge=0)
    """Steps of linear warm-up; None takes the optimiser's own."""
    loss: str = "label_sets"
    """label_sets (Dice and cross entropy of label sets), or package.module:attribute; see docs/extending.md."""
    gradient_clip: float = Field(default=12.0, gt=0)
    """Largest norm of the gradient. Source: nnU-Net."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the network's arithmetic; auto takes a 16-bit type where the device computes faster with it."""
    deep_supervision: bool = True
    """Losses at every resolution of the decoder."""
    augmentation: str = "nnunet"
    """nnunet, none, or package.module:attribute."""
    mirror: bool = True
    """Mirror patches in training and average over mirrored predictions."""
    background_prior: float = Field(default=0.0, ge=0)
    """Strength of the prior that an unannotated voxel is rather background than not: how much the unannotated voxels of
    a class may weigh as background, relative to its annotated ones. 0 is none. Scribbled data: 0.5."""
    promise_weight: float = Field(default=25.0, ge=0)
    """Weight of what annotation_protocol settles, all voxels together, relative to all that was drawn."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the annotation that is kept from training to check what is inferred; 0 where nothing needs it."""
    teacher_weight: float = Field(default=0.0, ge=0)
    """Weight of the loss on what the mean of past weights predicts where nothing is certain; 0 is none."""
    teacher_confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """Probability above which a prediction of the teacher is taken."""
    teacher_precision: float = Field(default=0.9, ge=0, le=1)
    """Share of confident predictions that must be right on held-out annotation for a class to be taught."""
    teacher_start: float = Field(default=0.3, ge=0, le=1)
    """Share of the run after which the teacher begins."""
    teacher_decay: float = Field(default=0.98, ge=0, lt=1)
    """Weight of the past in the teacher's weights, per step."""
    seed: int = Field(default=0, ge=0)
    """Everything random in a run follows from it."""


def resolve_config(defaults: dict[str, Any], assignments: Sequence[str] = ()) -> TrainingConfig:
    """Build the configuration from ``defaults`` (what the flags say) and ``key=value`` assignments, which win.

    Epochs shrink with short runs, so that a run always has at least ten of them. Raises ``ConfigError`` naming every
    unknown key and every value out of range.
    """
    values = dict(defaults)
    faults = []
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or key not in TrainingConfig.model_fields:
            known = ", ".join(TrainingConfig.model_fields)
            faults.append(f"--set {assignment}: expected key=value with key one of {known}.")
        else:
            is_optional = TrainingConfig.model_fields[key].default is None
            values[key] = None if is_optional and value.lower() in ("none", "null") else value
    if not faults:
        try:
            config = TrainingConfig.model_validate(values)
        except ValidationError as error:
            faults.extend(
                f"--set {'.'.join(map(str, item['loc']))}: found {item['input']!r}, {item['msg']}."
                for item in error.errors()
            )
    if not faults and config.held_out_fraction == 0 and (config.background_prior or config.teacher_weight):
        faults.append(
            "--set held_out_fraction=0: found nothing held out, expected a share above 0 for background_prior and "
            "teacher_weight, which are checked on it. Set both to 0 to train on all of the annotation."
        )
    if faults:
        raise ConfigError("\n".join(faults))
    if "iterations_per_epoch" not in values:
        per_epoch = min(config.iterations_per_epoch, max(1, config.iterations // 10))
        config = config.model_copy(update={"iterations_per_epoch": per_epoch})
    if "validation_iterations" not in values:
        config = config.model_copy(update={"validation_iterations": max(1, config.iterations_per_epoch // 5)})
    return config


def parse_duration(text: str) -> float:
    """Turn ``90``, ``90s``, ``15m``, ``2h`` or ``1d`` into seconds; raise ``ConfigError`` on anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--max-runtime: found {text!r}, expected a positive time such as 90s, 15m, 2h or 1d.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
