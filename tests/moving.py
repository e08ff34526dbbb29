"""Recipes of tests: operations that move voxels only."""

from __future__ import annotations

from autoseg.augmentation.mirror import Mirror
from autoseg.augmentation.recipes import Recipe
from autoseg.augmentation.rotate import Rotate
from autoseg.augmentation.scale import Scale


def moving(
    degrees: float = 30,
    scales: tuple[float, float] = (0.7, 1.4),
    *,
    share: float = 1.0,
    in_plane: bool = False,
    mirror_axes: tuple[int, ...] = (0, 1, 2),
) -> Recipe:
    """Rotation and scaling, each with probability ``share``, then mirrors."""
    return Recipe(
        (
            Rotate(probability=share, degrees=degrees, in_plane=in_plane),
            Scale(probability=share, factor_range=scales, in_plane=in_plane),
            Mirror(axes=mirror_axes),
        )
    )
