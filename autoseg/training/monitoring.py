"""Settings of what a run writes while it trains, and how often."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from autoseg.core.errors import ConfigError


def parse_duration(text: str) -> float:
    """Turn ``90``, ``90s``, ``15m``, ``2h`` or ``1d`` into seconds; raise ``ConfigError`` on anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip().lower())
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--max-runtime: found {text!r}, expected a positive time such as 90s, 15m, 2h or 1d.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ConfigError:
        raise ValueError("expected a positive time such as 90s, 15m, 2h or 1d") from None


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
"""A time in seconds, also written as 90s, 15m, 2h or 1d."""


def _names(value: object) -> object:
    """Return the names in ``a,b`` as a tuple; anything else as it is."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Names, also written as one text with commas between them, as on the command line."""


class MonitoringConfig(BaseModel):
    """Measurements and copies that are made in a training; may change when the run goes on, or while it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history_freq: int | None = Field(default=None, ge=1)
    """Steps between two lines of history.jsonl, each with a validation; None takes iterations_per_epoch."""
    monitor_batch_size: int = Field(default=10, ge=0)
    """Patches of training cases, always the same and without augmentation, on which loss and Dice are measured with
    each line, beside those of validation cases; whole batches, at most validation_iterations. 0: none."""
    checkpoint_every: float = Field(default=5.0, gt=0)
    """Minutes between two writings of the latest checkpoint, which each line of history.jsonl writes as well."""
    param_save_h: float | None = Field(default=1.0, gt=0)
    """Hours of training between two checkpoints that are kept for good; None keeps none."""
    initial_prev_h: float | None = Field(default=1.0, ge=0)
    """Hours of training before the first preview: cases predicted whole, as pictures in previews/. None draws none."""
    prev_save_h: float = Field(default=3.0, gt=0)
    """Hours of training between two previews."""
    preview_cases: Names = ()
    """Cases of the previews (a,b); () takes the first validation case."""
    batch_picture: int = Field(default=8, ge=0)
    """Patches in the picture of training batches that is drawn at the start; 0 draws none."""
    tensorboard: bool = False
    """Also write the lines for TensorBoard, into tensorboard/; needs autoseg[tensorboard]."""
    max_bad_steps: int = Field(default=3, ge=0)
    """Steps in a row whose loss or gradient is not finite that are left out; one more ends the run."""
