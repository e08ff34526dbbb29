"""Our side of the row on electron microscopy: one operation, applied to patches that have been read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.augmentation.em import DEFAULT_EM
from autoseg.augmentation.recipes import Geometric, Recipe, augment_intensity_, draw_warp
from autoseg.augmentation.warp import Warp, identity
from autoseg.cases.store import CaseStore
from autoseg.sampling.patches import Cutout, Place, read_cutout
from benchmark_rows.patches import UNKNOWN
from benchmark_rows.patches_ours import write_cached


def places(settings: dict[str, Any]) -> list[tuple[float, ...]]:
    """Return the centres of the patches: one section further each, in the middle of the plane."""
    patch, shape = settings["patch"], settings["shapes"][0]
    z, y, x = ((edge - size) // 2 + (size - 1) / 2 for edge, size in zip(shape, patch, strict=True))
    return [(z + step, y, x) for step in range(settings["patches"])]


def read(case: CaseStore, centre: tuple[float, ...], warp: Warp, settings: dict[str, Any]) -> Cutout:
    """Read the box that a warp needs, image and codes."""
    return read_cutout(case, Place(centre, warp), settings["patch"], unknown=UNKNOWN, outside=UNKNOWN)


def operation(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Read the patches, and return what applies the operation to all of them.

    One that moves voxels is timed with its drawing and with the copy that a patch needs anyway, without the reading.
    """
    case = write_cached(folder, 0, is_sparse=False).open()
    recipe = Recipe((getattr(DEFAULT_EM, settings["operation"]),))
    patch, centres = tuple(settings["patch"]), places(settings)
    if isinstance(recipe.operations[0], Geometric):
        warps = [draw_warp(recipe, patch, np.random.default_rng(seed)) for seed in range(len(centres))]
        cutouts = [read(case, centre, warp, settings) for centre, warp in zip(centres, warps, strict=True)]
        n_changed = sum(not warp.is_identity or bool(warp.order) or any(warp.mirrors) for warp in warps)

        def move() -> list[int]:
            for seed, cutout in enumerate(cutouts):
                draw_warp(recipe, patch, np.random.default_rng(seed))
                cutout.moved()
            return [n_changed, len(cutouts)]

        return move
    images = [read(case, centre, identity(3), settings).moved().image[None].contiguous() for centre in centres]
    before = [image.clone() for image in images]

    def change() -> list[int]:
        for seed, image in enumerate(images):
            augment_intensity_(image, recipe, [torch.Generator().manual_seed(seed)])
        return [sum(not torch.equal(*pair) for pair in zip(images, before, strict=True)), len(images)]

    return change
