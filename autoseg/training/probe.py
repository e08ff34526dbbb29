"""Seconds per step of a run on this machine, measured on a few of its steps."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from autoseg.training.fold import train_fold
from autoseg.training.request import FoldRequest

EPOCH = 3
"""Steps of an epoch of the probe, each with one batch of validation."""
N_EPOCHS = 3
"""The first, in which workers start and kernels are chosen, is not counted."""


def seconds_per_iteration(request: FoldRequest) -> float:
    """Train a few steps as ``request`` would, with workers and validation, and return the seconds that one takes.

    Nine steps, the last six of which are counted. Nothing of it is kept. Raises what :func:`train_fold` raises.
    """
    settings = {"iterations": N_EPOCHS * EPOCH, "iterations_per_epoch": EPOCH, "validation_iterations": 1}
    config = request.config.model_copy(update=settings)
    with tempfile.TemporaryDirectory(prefix="autoseg_probe_") as folder:
        result = train_fold(replace(request, config=config, folder=Path(folder) / "fold_0"))
    counted = result.progress.records[1:]
    return sum(record.seconds for record in counted) / (EPOCH * len(counted))
