"""Training patches from the cache to the augmented batch, beside nnU-Net's data loader with its training transforms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from benchmark_rows.row import Finding, Row, Settings, Variant

N_CLASSES = 4
UNKNOWN = N_CLASSES
"""Code, and value in nnU-Net's label maps, of a voxel that nobody annotated."""
STEP = 8
"""Every STEP-th voxel of the last two axes of a timed batch is kept."""
SMALL_PATCHES = 400
"""Patches on which the distributions of the two sides are compared."""
FEATURES = ("mean", "deviation", "5 %", "50 %", "95 %", "roughness", "roughness along axis 0", "foreground", "contrast")
"""Of an augmented patch; the last two of densely labelled ones."""
SIGNIFICANCE = 1e-5
"""Of a Kolmogorov-Smirnov test for each feature: a right pair of sides fails one run in ten thousand."""

Array = NDArray[Any]


def make(folder: Path, settings: Settings) -> None:
    """Write ``case_I_image.npy`` (C, *S) float32, noise of two scales around a level for each organ, and its codes.

    Sparse cases carry short lines in every third slice, one for each class, and nothing else.
    """
    for index, shape in enumerate(settings["shapes"]):
        rng = np.random.default_rng(index)
        codes = _organs(shape, rng)
        smooth = [_smooth(shape, 4, rng) for _ in range(settings["channels"])]
        noise = rng.standard_normal((settings["channels"], *shape), dtype=np.float32)
        image = np.stack(smooth) + 0.3 * noise + 0.7 * (codes > 0)
        image -= image.mean()
        np.save(folder / f"case_{index}_image.npy", (image / image.std()).astype(np.float32))
        np.save(folder / f"case_{index}_codes.npy", _lines(codes, rng) if settings["is_sparse"] else codes)


def features(images: Array, codes: Array | None) -> Array:
    """Return (B, len(FEATURES)) numbers of a batch (B, C, *P), the last two NaN without ``codes`` (B, *P).

    Of channel 0 and the middle half of each axis: the corners of a patch that is rotated and made smaller show what
    lies beyond the part of the image that nnU-Net reads.
    """
    middle = tuple(slice(edge // 4, edge - edge // 4) for edge in images.shape[2:])
    rows = []
    for index in range(len(images)):
        image = images[index, 0][middle]
        deviation = image.std() + 1e-6
        rough = [float(np.abs(np.diff(image, axis=axis)).mean() / deviation) for axis in (-1, 0)]
        foreground = np.zeros(image.shape, dtype=bool) if codes is None else codes[index][middle] > 0
        share = float(foreground.mean()) if codes is not None else np.nan
        is_mixed = 0 < share < 1
        contrast = (image[foreground].mean() - image[~foreground].mean()) / deviation if is_mixed else np.nan
        rows.append([image.mean(), deviation, *np.quantile(image, (0.05, 0.5, 0.95)), *rough, share, contrast])
    return np.asarray(rows, dtype=np.float64)


def thinned(batch: Array) -> Array:
    """Return some voxels of a batch (..., y, x)."""
    return batch[..., ::STEP, ::STEP]


def check(folder: Path, settings: Settings) -> Finding:
    """Compare shapes, the settings of the transforms, and the distributions of features where all are applied."""
    timed = [np.load(folder / f"{side}.npz") for side in ("ours", "theirs")]
    mine, other = (json.loads((folder / f"{side}_settings.json").read_text()) for side in ("ours", "theirs"))
    faults = [f"shape of {name}" for name in ("images", "codes") if timed[0][name].shape != timed[1][name].shape]
    faults += [name for name in other if not np.allclose(mine[name], other[name])]
    ours, theirs = (np.load(folder / f"{side}_features.npy").T for side in ("ours", "theirs"))
    found = []
    for name, one, another in zip(FEATURES, ours, theirs, strict=True):
        one, another = one[~np.isnan(one)], another[~np.isnan(another)]
        if len(one) and len(another):
            test = stats.ks_2samp(one, another)
            found.append((float(test.pvalue), float(test.statistic), name))
    least, distance, name = min(found)
    text = f"{len(other) - len(faults)} equal settings; distributions within {distance:.2f} ({name}, p = {least:.1g})"
    text += f"; different: {', '.join(faults)}" if faults else ""
    return Finding(text, not faults and least > SIGNIFICANCE)


def _organs(shape: tuple[int, int, int], rng: np.random.Generator) -> Array:
    """Return codes (*S) uint8: background, and blobs of each other class on a third of the voxels."""
    fields = np.stack([_smooth(shape, 30, rng) for _ in range(N_CLASSES - 1)])
    highest = fields.max(axis=0)
    level = np.quantile(highest[..., ::4, ::4], 2 / 3)
    return np.where(highest > level, fields.argmax(axis=0) + 1, 0).astype(np.uint8)


def _smooth(shape: tuple[int, int, int], scale: float, rng: np.random.Generator) -> Array:
    """Return noise (*S) float32 that changes over ``scale`` voxels, of deviation 1."""
    coarse = rng.standard_normal([int(edge / scale) + 2 for edge in shape], dtype=np.float32)
    for axis, edge in enumerate(shape):
        coarse = ndimage.gaussian_filter1d(coarse, 0.5, axis=axis, mode="nearest")
        place = (np.arange(edge) + rng.random()) / scale
        floor = place.astype(int)
        weight = (place - floor).astype(np.float32).reshape([-1 if other == axis else 1 for other in range(3)])
        coarse = coarse.take(floor, axis) * (1 - weight) + coarse.take(floor + 1, axis) * weight
    smooth: Array = coarse / coarse.std()
    return smooth


def _lines(codes: Array, rng: np.random.Generator) -> Array:
    """Return unknown everywhere but for straight lines of up to 25 voxels in one class."""
    drawn = np.full_like(codes, UNKNOWN)
    steps = np.arange(0, 25, 0.5)
    for z in range(0, len(codes), 3):
        for code in range(N_CLASSES):
            inside = np.argwhere(codes[z] == code)
            if not len(inside):
                continue
            angle = rng.uniform(0, 2 * np.pi)
            path = inside[rng.integers(len(inside))] + steps[:, None] * [np.sin(angle), np.cos(angle)]
            y, x = np.clip(np.rint(path), 0, np.array(codes.shape[1:]) - 1).astype(int).T
            hits = codes[z, y, x] == code
            length = len(hits) if hits.all() else int(hits.argmin())
            drawn[z, y[:length], x[:length]] = code
    return drawn


# The seeds are such that in every timed run each side rotates and scales as many patches as is expected (20 % each), to
# within one or two: of so few, chance would otherwise decide the ratio.
ISOTROPIC = {"patch": [64, 160, 160], "batch": 2, "batches": 10, "channels": 1, "small": [16, 40, 40],
             "shapes": [[112, 256, 256], [128, 240, 272]], "is_sparse": False, "seeds": [116, 0]}  # fmt: skip
ANISOTROPIC = {"patch": [20, 256, 256], "batch": 2, "batches": 20, "channels": 1, "small": [10, 64, 64],
               "shapes": [[28, 384, 384], [36, 400, 352]], "is_sparse": False, "seeds": [109, 4]}  # fmt: skip
FLAT = {"patch": [512, 512], "batch": 12, "batches": 6, "channels": 3, "small": [96, 96],
        "shapes": [[1, 720, 768], [1, 768, 720], [1, 800, 800]], "is_sparse": False, "seeds": [110, 9]}  # fmt: skip

PATCHES = Row(
    title="training patches, cache to augmented batch, beside nnU-Net's loader with batchgeneratorsv2's transforms",
    variants=(
        Variant("2x64x160x160, 4 classes", ISOTROPIC, floor=4),
        Variant("2x64x160x160, scribbles", {**ISOTROPIC, "is_sparse": True, "seeds": [36, 0]}, floor=4),
        Variant("2x20x256x256, in plane", ANISOTROPIC, floor=2),
        Variant("12x512x512, 3 channels", FLAT, floor=2),
    ),
    make=make,
    ours="patches_ours:batches",
    theirs="patches_theirs:batches",
    check=check,
    limit="eight reads at neighbouring places per voxel that is rotated, one copy of all others, one pass per change of"
    " intensity",
)
