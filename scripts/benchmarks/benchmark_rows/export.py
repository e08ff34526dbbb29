"""From logits on the plan's grid to labels on the file's: resampled and decided slab by slab, or all at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmark_rows.row import Finding, Row, Settings, Variant

IDENTICAL = 0.9999
SPACING = 1.5
"""Of the plan's grid, mm."""


def make_logits(folder: Path, settings: Settings) -> None:
    """Write ``logits.npy``, (H, *S) float32: smooth random fields, of which now one and now another is largest."""
    rng = np.random.default_rng(0)
    values = rng.normal(scale=4, size=(settings["heads"], 7, 7, 7)).astype(np.float32)
    for axis, edge in enumerate(settings["before"], start=1):
        values = np.moveaxis(_interpolation(7, edge) @ np.moveaxis(values, axis, 2), 2, axis)
    np.save(folder / "logits.npy", values)


def _interpolation(n: int, m: int) -> NDArray[np.float32]:
    """(m, n) linear weights; products of them with the last axis but one of an array resample it."""
    return ndimage.zoom(np.eye(n, dtype=np.float32), (m / n, 1), order=1)


def make_image(folder: Path, settings: Settings) -> None:
    """Write ``image.npy``, (1, *S) float32 from -1 to 1: a network tells from it which of its heads wins."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 7, 7)).astype(np.float32)
    for axis, edge in enumerate(settings["before"]):
        values = np.moveaxis(_interpolation(7, edge) @ np.moveaxis(values, axis, 1), 1, axis)
    np.save(folder / "image.npy", (values / np.abs(values).max())[None])


def file_spacing(settings: Settings) -> tuple[float, float, float]:
    """Return the spacing (mm) of the file whose grid ``after`` covers what the plan's grid ``before`` covers."""
    z, y, x = (SPACING * n / m for n, m in zip(settings["before"], settings["after"], strict=True))
    return (z, y, x)


def check_labels(folder: Path, settings: Settings) -> Finding:
    """Share of voxels that both sides give the same label."""
    return _agreement(np.load(folder / "ours.npy"), np.load(folder / "theirs.npy"), settings)


def check_nearest(folder: Path, settings: Settings) -> Finding:
    """Share of voxels with the label that follows from the resampled image: that of the nearest of the centres."""
    image = np.load(folder / "image.npy")[0]
    factors = [m / n for n, m in zip(image.shape, settings["after"], strict=True)]
    resampled = ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True)
    expected = np.rint((resampled + 1) / 2 * (settings["heads"] - 1))
    return _agreement(np.load(folder / "ours.npy"), expected, settings)


def _agreement(ours: NDArray[np.generic], other: NDArray[np.generic], settings: Settings) -> Finding:
    if ours.shape != tuple(settings["after"]) or ours.shape != other.shape:
        return Finding(f"shapes {ours.shape} and {other.shape}", holds=False)
    same = float((ours == other).mean())
    return Finding(f"{100 * same:.4f} % identical", same >= IDENTICAL and len(np.unique(ours)) > settings["heads"] // 2)


EXPORT = Row(
    title="export: logits resampled and decided, beside nnU-Net's convert_predicted_logits_to_segmentation",
    variants=(
        Variant("30 classes, 60x200x150 to 75x256x256",
                {"heads": 30, "before": [60, 200, 150], "after": [75, 256, 256]}, floor=5),
        Variant("3 classes, 200x200x150 to 250x256x256",
                {"heads": 3, "before": [200, 200, 150], "after": [250, 256, 256]}, floor=5),
    ),
    make=make_logits,
    ours="export_ours:labels",
    theirs="export_theirs:labels",
    check=check_labels,
    limit="each resampled logit is computed from four others and compared once",
    rounds=1,
)  # fmt: skip
MEMORY = Row(
    title="memory from window to label map: windows, sums, resampling and decision, no logits of the whole",
    variants=(
        Variant("117 classes, 192^3 to 250^3, patch 128^3, a network that costs nothing",
                {"heads": 117, "before": [192] * 3, "after": [250] * 3, "patch": [128] * 3}, bound_gb=8,
                max_seconds=60),
    ),
    make=make_image,
    ours="export_ours:streamed",
    check=check_nearest,
    limit="sums of as many planes as a patch has, twice the logits of a window, a slab",
    rounds=1,
)  # fmt: skip
