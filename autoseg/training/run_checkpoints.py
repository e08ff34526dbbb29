"""Checkpoints of a run: the latest with the one before it, the best, the final, and those kept every hour."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from autoseg.core.errors import ModelError
from autoseg.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

LATEST, PREVIOUS = "checkpoint_latest.pt", "checkpoint_previous.pt"
BEST, FINAL = "checkpoint_best.pt", "checkpoint_final.pt"


def save_latest(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the latest checkpoint; the former one is kept as the previous.

    At every moment at least one of the two is whole, also if the process is killed between two of these steps.
    """
    latest, previous = folder / LATEST, folder / PREVIOUS
    if latest.is_file():
        _put_in_place_of(latest, previous)
    save_checkpoint(latest, checkpoint)


def load_latest(folder: Path, *, repairs: bool = False) -> Checkpoint:
    """Read the latest checkpoint of a run; if it is missing or damaged the previous one, with a warning.

    ``repairs`` puts the previous one in the place of a damaged latest; otherwise the next save would replace the only
    whole checkpoint by it. For the process that holds the folder. Raises ``ModelError`` if neither can be read: the
    fault of the latest.
    """
    try:
        return load_checkpoint(folder / LATEST)
    except ModelError as error:
        if not (folder / PREVIOUS).is_file():
            raise
        try:
            checkpoint = load_checkpoint(folder / PREVIOUS)
        except ModelError:
            raise error from None
        log.warning("%s. Going on from %s, iteration %d", error, PREVIOUS, iteration_of(checkpoint))
        if repairs:
            _put_in_place_of(folder / PREVIOUS, folder / LATEST)
        return checkpoint


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing: files as large as a checkpoint. Nobody may write there now."""
    for path in (*folder.glob(".*.tmp.checkpoint_*"), *folder.glob(f".*.{PREVIOUS}")):
        path.unlink(missing_ok=True)


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on from a checkpoint in ``folder``; its content is not looked at."""
    return (folder / LATEST).is_file() or (folder / PREVIOUS).is_file()


def iteration_of(checkpoint: Checkpoint) -> int:
    """Return the number of steps that a checkpoint of a run has behind it."""
    return int(checkpoint.state["progress"]["iteration"])


def snapshot_name(hours: float) -> str:
    """Return the name of a checkpoint that is kept for good, after so many hours of training: ``checkpoint_3h.pt``."""
    return f"checkpoint_{hours:g}h.pt"


def _put_in_place_of(path: Path, other: Path) -> None:
    """Let ``other`` be the file ``path``, which stays where the file system has hard links."""
    link = path.with_name(f".{os.getpid()}.{PREVIOUS}")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a moment without the latest, but never without the previous, or the other way round
        path.replace(other)
    else:
        link.replace(other)
