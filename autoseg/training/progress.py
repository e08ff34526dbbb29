"""The progress of a run: iteration, seconds, and the best score so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoseg.report.history import EpochRecord

SMOOTHING = 0.995
"""Weight of the past in the smoothed loss, per step. Source: ELEKTRONN."""


def smoothed(past: float | None, loss: float, steps: int) -> float:
    """Return the smoothed loss after a step, from that before it (``past``) and the ``loss`` of the step.

    An exponential mean. It is the plain mean of the first 200 steps, where ``steps`` before this one are fewer than
    ``SMOOTHING`` remembers; differs in this from ELEKTRONN, whose mean stays near the loss of the first step for long.
    """
    if past is None:
        return loss
    weight = min(SMOOTHING, steps / (steps + 1))
    return weight * past + (1 - weight) * loss


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run; with weights and optimiser all that is needed to go on.

    What is counted since the last line of history.jsonl starts again with each line.
    """

    iteration: int = 0
    epoch_loss: float = 0.0
    """Sum over the steps since the last line, without those that were left out."""
    epoch_norm: float = 0.0
    """Sum of the norms of the gradients of the same steps."""
    epoch_skipped: int = 0
    """Steps since the last line that were left out."""
    epoch_seconds: float = 0.0
    """Time since the last line."""
    epoch_waited: float = 0.0
    """Seconds of it in which the training waited for batches."""
    records: tuple[EpochRecord, ...] = ()
    best: float | None = None
    """Highest smoothed Dice so far."""
    seconds: float = 0.0
    """Training time of all sessions, without the time spent in a console."""
    smooth_loss: float | None = None
    """Mean of the loss over steps, see :func:`smoothed`; None before the first."""
    bad_steps: int = 0
    """Steps in a row, up to now, that were left out."""
    snapshot_seconds: float = 0.0
    """Training time at the last checkpoint that is kept for good; 0 before the first."""
    preview_seconds: float | None = None
    """Training time at the last preview that was due; None before the first."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        return values | {"records": [record.model_dump() for record in self.records]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """Inverse of :meth:`to_dict`; what a checkpoint of an earlier version lacks is as at the start of a run."""
        return cls(**(values | {"records": tuple(EpochRecord.model_validate(item) for item in values["records"])}))
