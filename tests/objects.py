"""Data sets of tests whose label files hold numbers of objects: discs or balls in noise, most of which touch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.core.geometry import Geometry
from autoseg.io.images import write_labels

UNLABELLED = 65535


def draw_objects(shape: tuple[int, ...], radius: float, seed: int) -> np.ndarray:
    """Return (z, y, x) uint16 numbers of pairs of discs or balls that touch, on a jittered grid, in no order."""
    rng = np.random.default_rng(seed)
    step = 4.6 * radius
    is_flat = shape[0] == 1
    grid = np.indices(shape).astype(float)
    objects = np.zeros(shape, dtype=np.uint16)
    number = 0
    for z in [0.0] if is_flat else np.arange(step / 2, shape[0], step):
        for y in np.arange(step / 2, shape[1], step):
            for x in np.arange(step / 2, shape[2], step):
                centre = np.array([z, y, x]) + rng.uniform(-1, 1, 3) * [not is_flat, 1, 1]
                away = rng.normal(size=3) * [not is_flat, 1, 1]
                away *= 0.92 * radius / np.linalg.norm(away)
                for middle in (centre - away, centre + away):
                    number += 1
                    squared = sum((axis - place) ** 2 for axis, place in zip(grid, middle, strict=True))
                    objects[(squared <= radius**2) & (objects == 0)] = 3 * number % 1000 + 1
    return objects


def write_objects(folder: Path, *, is_flat: bool = True, n_cases: int = 5, n_test: int = 2, **keys: Any) -> Path:
    """Write a data set of one class "cell"; in training cases a third of the image is unannotated, in test cases none.

    Within the annotated part a dark rim shows where objects touch.
    """
    shape, radius, ending = ((1, 72, 72), 6.0, ".png") if is_flat else ((16, 40, 40), 5.0, ".nii.gz")
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if is_flat else (1.0, 1.0, 1.0), ndim=3 - is_flat)
    for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / part).mkdir(parents=True)
    for index in range(n_cases + n_test):
        objects = draw_objects(shape, radius, index)
        image = image_of(objects, index)
        part = "Ts" if index >= n_cases else "Tr"
        if part == "Tr":
            objects[..., : shape[2] // 3] = UNLABELLED
        write_labels(folder / f"images{part}" / f"c{index}_0000{ending}", image, geometry)
        write_labels(folder / f"labels{part}" / f"c{index}{ending}", objects, geometry)
    content = {
        "channel_names": {"0": "fluorescence"}, "task": "instances", "labels": {"background": 0, "cell": 1},
        "unlabelled": UNLABELLED, "numTraining": n_cases, "file_ending": ending, **keys,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def image_of(objects: np.ndarray, seed: int) -> np.ndarray:
    """Return an image (z, y, x) uint8: objects are bright, a little darker where another object is next to them."""
    rng = np.random.default_rng(1000 + seed)
    image = 60.0 + 110.0 * (objects > 0)
    for axis in range(objects.ndim):
        for shift in (-1, 1):
            other = np.roll(objects, shift, axis)
            image[(other != objects) & (other > 0) & (objects > 0)] = 120.0
    return np.clip(image + rng.normal(0, 12, objects.shape), 1, 255).astype(np.uint8)


def logits_of(objects: np.ndarray, offsets: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Return logits (1 + A, z, y, x) of certain objects and their affinities, 0 where a pair leaves the array.

    Steps of offsets are below 10 voxels.
    """
    logits = np.zeros((1 + len(offsets), *objects.shape), dtype=np.float32)
    logits[0] = np.where(objects > 0, 4.0, -4.0)
    padded = np.pad(objects.astype(int), 9, constant_values=-1)
    z, y, x = objects.shape
    for channel, (dz, dy, dx) in enumerate(offsets, start=1):
        other = padded[9 + dz : 9 + dz + z, 9 + dy : 9 + dy + y, 9 + dx : 9 + dx + x]
        logits[channel] = np.where((other == objects) & (objects > 0), 4.0, -4.0) * (other >= 0)
    return logits
