"""Volumes on disk, and models of a few weights that predict them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_models import make_checkpoint

from autoseg.core.geometry import Geometry
from autoseg.inference import Predictor
from autoseg.inference.export import decide, probabilities
from autoseg.io.zarr_writer import create_zarr
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.preprocessing.read_case import read_unlabelled

SHAPE = (21, 30, 26)
REGIONS = {"labels": {"background": 0, "organ": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}


def noise(shape=SHAPE, seed=0):
    """A volume (z, y, x) float32."""
    return np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)


def with_border(image):
    """The volume with an empty border at two sides."""
    image = image.copy()
    image[:3] = 0
    image[:, :2] = 0
    return image


def write_volume(path, image, spacing=(2.0, 1.0, 1.0)):
    """Write a volume (z, y, x) or (C, z, y, x) as a Zarr of small chunks, and return its location."""
    image = image if image.ndim == 4 else image[None]
    names = tuple(f"channel{index}" for index in range(len(image))) if len(image) > 1 else ()
    writer = create_zarr(
        path, image.shape, image.dtype, Geometry(spacing=spacing), chunk=(8, 8, 8), shard=(8, 16, 16), names=names
    )
    for box in writer.pending():
        writer.write(box, image[(slice(None), *box.slices)])
    writer.finish()
    return str(path)


def make_predictor(folder, *, labels=None, folds=("0",), mirror=False, **options):
    """Return a predictor of a tiny network, in float32."""
    for fold in folds:
        checkpoint = make_checkpoint(fold, **options)
        if labels is not None:
            checkpoint = replace(checkpoint, dataset={**checkpoint.dataset, **labels})
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", checkpoint)
    return replace(Predictor.load(folder, device="cpu"), autocast_dtype=None, mirror=mirror)


def in_memory(predictor, path):
    """Return label map and probabilities of a volume or image file that is predicted at once."""
    prepared = predictor.prepare(read_unlabelled("v", [Path(path)], []))
    logits, labels = predictor.logits(prepared.image), predictor.model.dataset.labels
    return decide(logits, prepared.record, labels), probabilities(logits, prepared.record, labels)
