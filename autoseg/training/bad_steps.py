"""Steps whose loss or gradient is not finite: which they are, and the batches that they saw."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from autoseg.core.atomic import atomic_path, write_json
from autoseg.training.batches import training_batches
from autoseg.training.request import FoldRequest

log = logging.getLogger(__name__)

FOLDER = "bad_batches"
MOST = 20
"""Batches that are kept of a run."""


def is_bad(loss: float, gradient_norm: float, *, is_scaled: bool) -> bool:
    """Whether a step is left out. With a float16 scaler a gradient out of range is usual, and the scaler's concern."""
    return not (math.isfinite(loss) and (is_scaled or math.isfinite(gradient_norm)))


def dump_bad_batch(request: FoldRequest, iteration: int, loss: float, gradient_norm: float) -> Path | None:
    """Write the batch of ``iteration`` (from 0) into ``bad_batches``; return the file, None if there are many already.

    The batch is built again, which gives the same one: ``images`` (B, C, *P) float32, ``codes`` (B, *P), and the sets
    of classes ``drawn`` and ``learnt`` (B, N, K) bool of the codes. A JSON file beside it names the cases.
    """
    folder = request.folder / FOLDER
    if len(list(folder.glob("*.npz"))) >= MOST:
        return None
    batches = training_batches(replace(request, workers=0), torch.device("cpu"), iteration)
    batch = next(batches)
    rank = f"_rank{request.ranks.rank}" if request.ranks.size > 1 else ""
    path = folder / f"iteration_{iteration + 1:07d}{rank}.npz"
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary, images=batch.images.numpy(), codes=batch.codes.numpy(),
            drawn=batch.table.drawn.numpy(), learnt=batch.table.learnt.numpy(),
        )  # fmt: skip
    finite = [bool(torch.isfinite(image).all()) for image in batch.images]
    write_json(
        path.with_suffix(".json"),
        {
            "iteration": iteration + 1, "loss": str(loss), "gradient_norm": str(gradient_norm),
            "cases": list(batch.cases), "images_are_finite": finite,
            "centres": [list(origin.centre) for origin in batch.origins],
        },
    )  # fmt: skip
    return path
