"""The history of a run: one JSON line for each epoch, and a picture.

An epoch is what lies between two lines, whatever their number of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.atomic import atomic_path, write_text
from autoseg.core.errors import ModelError

HISTORY = "history.jsonl"


class EpochRecord(BaseModel):
    """One line of history.jsonl."""

    model_config = ConfigDict(frozen=True)

    epoch: int
    """From 1."""
    iteration: int
    """Optimiser steps done."""
    train_loss: float | None
    """Mean over the steps since the line before; None if all of them were left out."""
    validation_loss: float | None
    """Mean over the validation batches; a batch that decides nothing counts as 0."""
    score: str = "Dice"
    """What the fields named after Dice hold: Dice, or R2 of the targets of a regression."""
    dice: float | None
    """Mean over foreground heads, on decided voxels of validation patches; None if nothing was decided."""
    dice_per_head: dict[str, float | None]
    scored_on: Literal["dense", "annotated voxels"] = "annotated voxels"
    """Voxels that the Dice was counted on; in dense data all voxels are annotated."""
    seen_validation_cases: int = 0
    """Validation cases that the weights had been trained on, here or before they came: Dice says little of these."""
    dice_smooth: float | None
    """Exponential mean over epochs; the best checkpoint is the one where it was highest."""
    learning_rate: float
    seconds: float
    smooth_loss: float | None = None
    """Exponential mean of the training loss over steps, the plain mean of the first 200."""
    gradient_norm: float | None = None
    """Mean norm of the gradient before it is clipped."""
    monitor_loss: float | None = None
    """As the validation loss, on fixed patches of training cases."""
    monitor_dice: float | None = None
    """As Dice, on the same patches."""
    skipped: int = 0
    """Steps that were left out because their loss or gradient was not finite."""
    iterations_per_second: float | None = None
    """Of the steps alone, without validation and files."""
    data_wait: float | None = None
    """Share of the time of the steps in which the training waited for batches."""
    memory_gb: float | None = None
    """Most memory in use so far, 10^9 bytes: that of the GPU if there is one, otherwise of the process."""


def write_history(path: Path, records: Sequence[EpochRecord]) -> None:
    """Write history.jsonl, whole and atomically: what it says is always what the latest checkpoint knows."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_history(path: Path) -> tuple[EpochRecord, ...]:
    """Read history.jsonl; raise ``ModelError`` if it is missing or a line of it cannot be read."""
    try:
        return tuple(EpochRecord.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"{path}: cannot be read ({reason}), expected the history of a run. Give its folder."
        ) from error


def draw_history(path: Path, records: Sequence[EpochRecord]) -> None:
    """Draw losses, Dice, learning rate and speed over iterations as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # takes a second to import: only when a picture is drawn
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 12), layout="constrained")
    FigureCanvasAgg(figure)
    losses, dice, rate, speed = figure.subplots(4, 1, sharex=True)
    iterations = [record.iteration for record in records]
    losses.plot(iterations, _gaps([record.train_loss for record in records]), label="training loss")
    losses.plot(iterations, _gaps([record.smooth_loss for record in records]), linewidth=1, label="smoothed")
    losses.plot(iterations, _gaps([record.validation_loss for record in records]), label="validation loss")
    losses.plot(iterations, _gaps([record.monitor_loss for record in records]), label="loss on fixed training patches")
    names = list(records[-1].dice_per_head) if records else []
    for name in names if len(names) <= 12 else []:
        values = _gaps([record.dice_per_head[name] for record in records])
        dice.plot(iterations, values, linewidth=1, alpha=0.6, label=name)
    dice.plot(iterations, _gaps([record.dice for record in records]), ".", color="black", label="mean")
    dice.plot(iterations, _gaps([record.dice_smooth for record in records]), color="black", label="mean, smoothed")
    monitored = _gaps([record.monitor_dice for record in records])
    dice.plot(iterations, monitored, "--", color="grey", label="mean, on fixed training patches")
    rate.plot(iterations, [record.learning_rate for record in records], color="grey")
    speed.plot(iterations, _gaps([record.iterations_per_second for record in records]), label="iterations per second")
    waits = speed.twinx()
    waits.plot(iterations, _gaps([record.data_wait for record in records]), color="tab:red", linewidth=1)
    losses.set_ylabel("loss")
    lowest = min((record.dice for record in records if record.dice is not None), default=0.0)
    dice.set(ylabel=dice_name(records[-1]) if records else "Dice", ylim=(max(-1.0, min(lowest, 0.0)) - 0.02, 1.02))
    rate.set(ylabel="learning rate")
    rate.ticklabel_format(axis="y", useOffset=False)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))
    speed.set(ylabel="iterations per second", xlabel="iteration")
    waits.set(ylabel="share of waiting for data (red)", ylim=(0, 1))
    for axes in (losses, dice):
        axes.legend(loc="best", fontsize="small", ncols=2)
    for axes in (losses, dice, rate, speed):
        axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def dice_name(record: EpochRecord) -> str:
    """Return the name of the online score: ``"Dice"`` of dense data, else with what qualifies it in brackets."""
    is_qualified = record.scored_on != "dense" and record.score == "Dice"
    qualifiers = [str(record.scored_on)] if is_qualified else []
    if record.seen_validation_cases:
        qualifiers.append(f"{record.seen_validation_cases} validation cases trained on")
    return f"{record.score} ({'; '.join(qualifiers)})" if qualifiers else record.score


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
