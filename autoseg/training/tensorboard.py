"""Lines of the history for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from autoseg.core.components import optional
from autoseg.report.history import EpochRecord

FOLDER, EXTRA = "tensorboard", "tensorboard"


def check_tensorboard() -> None:
    """Raise ``ConfigError`` unless TensorBoard is installed."""
    optional("torch.utils.tensorboard", EXTRA)


def write_tensorboard(folder: Path, record: EpochRecord) -> None:
    """Append a line of the history to the event files in ``folder/tensorboard``.

    Errors as :func:`check_tensorboard`.
    """
    writer = optional("torch.utils.tensorboard", EXTRA).SummaryWriter(str(folder / FOLDER))
    for name, value in scalars(record).items():
        writer.add_scalar(name, value, record.iteration)
    writer.close()


def scalars(record: EpochRecord) -> dict[str, float]:
    """Return the numbers of a line by name; classes as ``dice/NAME``; what was not measured is left out."""
    values = record.model_dump(exclude={"epoch", "iteration", "score", "scored_on", "dice_per_head"})
    values |= {f"dice/{name}": value for name, value in record.dice_per_head.items()}
    return {name: float(value) for name, value in values.items() if value is not None}
