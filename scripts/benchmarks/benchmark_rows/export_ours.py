"""Our side of the export rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.inference.export import decide
from autoseg.inference.window import stream_logits
from benchmark_rows.export import SPACING, file_spacing
from benchmark_rows.pointwise import folds
from benchmark_rows.window_ours import configuration

PLANES = 16
"""Of a slab that is handed over, as a sliding window finishes them."""


def labels(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Decide ``logits.npy``, handed over in slabs."""
    torch.set_num_threads(settings.get("threads", 1))
    logits = np.load(folder / "logits.npy")
    record, classes = _record(settings), _classes(settings["heads"])
    return lambda: decide(_slabs(logits), record, classes)


def streamed(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Predict ``image.npy`` with a network that costs nothing, from windows to the label map."""
    torch.set_num_threads(settings.get("threads", 1))
    image, plan = np.load(folder / "image.npy"), configuration(settings["patch"])
    networks = folds(1, settings["heads"])
    record, classes = _record(settings), _classes(settings["heads"])
    return lambda: decide(stream_logits(networks, image, plan), record, classes)


def _slabs(logits: Float32Array) -> Iterator[tuple[int, Float32Array]]:
    for first in range(0, logits.shape[1], PLANES):
        yield first, logits[:, first : first + PLANES]


def _classes(n_heads: int) -> Labels:
    heads = tuple(Head(str(value), (value,), (value,), is_background=value == 0) for value in range(n_heads))
    return Labels(tuple(range(n_heads)), tuple(head.name for head in heads), heads)


def _record(settings: dict[str, Any]) -> CaseRecord:
    z, y, x = settings["after"]
    spacing = file_spacing(settings)
    return CaseRecord(
        case="benchmark",
        geometry=Geometry(spacing=spacing),
        transpose=(0, 1, 2),
        shape_before_crop=(z, y, x),
        crop_low=(0, 0, 0),
        crop_high=(z, y, x),
        spacing_before=spacing,
        spacing=(SPACING,) * 3,
        shape=tuple(settings["before"]),
    )
