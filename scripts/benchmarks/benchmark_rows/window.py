"""The sliding window without its network: cutting, mirroring, weighting and averaging of windows, over folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmark_rows.row import Finding, Row, Settings, Variant

IDENTICAL = 0.999
"""Of the voxels: the other side sums in half precision."""


def make_image(folder: Path, settings: Settings) -> None:
    """Write ``image.npy``, (1, *S) float32: noise, in an ellipsoid that leaves a share ``air`` of each edge at -1."""
    rng = np.random.default_rng(0)
    shape = tuple(settings["shape"])
    image = ndimage.uniform_filter(rng.normal(scale=3, size=shape).astype(np.float32), 3)
    if settings["air"]:
        grid = np.ogrid[tuple(slice(edge) for edge in shape)]
        radii = [edge * (1 - settings["air"]) / 2 for edge in shape]
        distance = sum(((axis - (edge - 1) / 2) / r) ** 2 for axis, edge, r in zip(grid, shape, radii, strict=True))
        image[np.asarray(distance) > 1] = -1
    np.save(folder / "image.npy", image[None])


def check_labels(folder: Path, settings: Settings) -> Finding:
    """Share of voxels that both sides give the same label."""
    ours, theirs = (np.load(folder / f"{side}.npy").argmax(axis=0) for side in ("ours", "theirs"))
    same = float((ours == theirs).mean())
    found = len(np.unique(ours))
    return Finding(f"{100 * same:.3f} % identical labels", same >= IDENTICAL and found == settings["heads"])


VOLUME = {"shape": [160, 200, 200], "patch": [64, 96, 96], "heads": 3, "air": 0.0}

WINDOW = Row(
    title="sliding window with mirroring, without the seconds of the network (one affine map a head stands for it)",
    variants=(
        Variant("5 folds, 160x200x200, patch 64x96x96", {**VOLUME, "folds": 5}, floor=2),
        Variant("1 fold", {**VOLUME, "folds": 1}, floor=2),
        Variant("1 fold, a body in the middle half of each axis, patch 40x48x48",
                {**VOLUME, "patch": [40, 48, 48], "air": 0.5, "folds": 1}, floor=2),
        Variant("1 fold, 2-D, 48x256x256, patch 192x192",
                {**VOLUME, "shape": [48, 256, 256], "patch": [192, 192], "folds": 1}, floor=2),
    ),
    make=make_image,
    ours="window_ours:logits",
    theirs="window_theirs:logits",
    check=check_labels,
    limit="every mirrored copy of every window is written by the network, flipped and added once: bandwidth",
    rounds=2,
)  # fmt: skip
