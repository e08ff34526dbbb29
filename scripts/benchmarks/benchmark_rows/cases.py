"""Data sets for the rows on preprocessing: CT-like volumes, and small MR-like ones, in nnU-Net's layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]
DATASET = "Dataset001_Made"


def write_dataset(folder: Path, cases: Sequence[tuple[Array, Array]], spacing: Sequence[float], channel: str) -> Path:
    """Write images and labels, both (z, y, x) and ``spacing`` in mm likewise; return the folder of the data set."""
    dataset = folder / DATASET
    for kind in ("imagesTr", "labelsTr"):
        (dataset / kind).mkdir(parents=True, exist_ok=True)
    for index, (image, labels) in enumerate(cases):
        write_nifti(dataset / "imagesTr" / f"case_{index:03d}_0000.nii.gz", image, spacing)
        write_nifti(dataset / "labelsTr" / f"case_{index:03d}.nii.gz", labels, spacing)
    n_classes = max(int(labels.max()) for _, labels in cases) + 1
    names = ["background", *(f"organ_{index}" for index in range(1, n_classes))]
    content = {
        "channel_names": {"0": channel},
        "labels": {name: value for value, name in enumerate(names)},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (dataset / "dataset.json").write_text(json.dumps(content))
    return dataset


def write_nifti(path: Path, array: Array, spacing: Sequence[float]) -> None:
    """Write (z, y, x) voxels, lightly compressed where the ending says so."""
    import nibabel

    nibabel.openers.Opener.default_compresslevel = 1
    affine = np.diag([-spacing[2], -spacing[1], spacing[0], 1.0])  # axis-aligned in ITK's system
    image = nibabel.Nifti1Image(array.T, affine)
    image.header.set_zooms([float(edge) for edge in spacing[::-1]])
    nibabel.save(image, path)


def ct_case(shape: Sequence[int], n_organs: int, seed: int) -> tuple[Array, Array]:
    """Return a CT-like image (int16, air around a body) and its organs (uint8), both (z, y, x)."""
    rng = np.random.default_rng(seed)
    grid = np.ogrid[tuple(slice(edge) for edge in shape)]
    labels = np.zeros(tuple(shape), dtype=np.uint8)
    z, y, x = shape
    body = _ball(grid, (z / 2, y / 2, x / 2), (z, 0.4 * y, 0.45 * x))
    image = np.where(body, np.float32(40), np.float32(-1000))
    for label in range(1, n_organs + 1):
        centre = [rng.uniform(0.25, 0.75) * edge for edge in shape]
        radius = [rng.uniform(0.05, 0.15) * edge for edge in shape]
        organ = body & _ball(grid, centre, radius)
        labels[organ] = label
        image[organ] = rng.uniform(-20, 300)
    image += rng.normal(scale=20, size=(8, *shape[1:])).astype(np.float32)[np.arange(shape[0]) % 8]
    return np.rint(image).astype(np.int16), labels


def small_case(seed: int) -> tuple[Array, Array]:
    """Return an image (float32, smooth noise) and two structures (uint8) of the size of a hippocampus, (z, y, x)."""
    rng = np.random.default_rng(seed)
    shape = [int(rng.integers(low, high)) for low, high in ((31, 44), (40, 60), (24, 48))]
    grid = np.ogrid[tuple(slice(edge) for edge in shape)]
    labels = np.zeros(shape, dtype=np.uint8)
    for label, place in ((1, 0.35), (2, 0.65)):
        labels[_ball(grid, [edge * place for edge in shape], [edge * 0.2 for edge in shape])] = label
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 2) * 2000
    return (np.rint(smooth + 300 + 150 * labels)).astype(np.float32), labels


def _ball(grid: Sequence[Array], centre: Sequence[float], radius: Sequence[float]) -> Array:
    return np.asarray(sum(((axis - c) / r) ** 2 for axis, c, r in zip(grid, centre, radius, strict=True)) < 1)
