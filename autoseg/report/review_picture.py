"""Picture of the places where a model disagrees with an annotator most confidently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Labels, free_value
from autoseg.evaluation.disagreement import Disagreement
from autoseg.report.overlay import Layer, draw_overlay

LabelArray = NDArray[np.integer[Any]]
HALF_WINDOW_MM = 40.0
"""Extent shown on each side of a disagreement, at least ``LEAST_HALF_WINDOW`` voxels."""
LEAST_HALF_WINDOW = 24


def draw_disagreements(
    groups: Sequence[Disagreement],
    read: Callable[[str], tuple[Float32Array, LabelArray, LabelArray, Geometry]],
    labels: Labels,
) -> NDArray[np.uint8]:
    """Draw a row for each group: image, annotation and prediction of its slice, around its central voxel.

    Parameters
    ----------
    groups
        At least one.
    read
        Case -> image (C, z, y, x), annotation and prediction (z, y, x) as file values, geometry.
    labels
        Meaning of the values.

    Returns
    -------
    picture
        (y, x, 3) uint8.
    """
    return stacked([_row(rank, group, read, labels) for rank, group in enumerate(groups, 1)])


def stacked(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return pictures (y, x, 3) below each other, left-aligned on white."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255) for picture in pictures
    ]
    return np.concatenate(padded)


def window(centre: int, size: int, edge_mm: float) -> slice:
    """Return the slice of voxels shown around ``centre`` on an axis of ``size`` voxels."""
    half = max(LEAST_HALF_WINDOW, round(HALF_WINDOW_MM / edge_mm))
    return slice(max(0, centre - half), min(size, centre + half + 1))


def _row(
    rank: int,
    group: Disagreement,
    read: Callable[[str], tuple[Float32Array, LabelArray, LabelArray, Geometry]],
    labels: Labels,
) -> NDArray[np.uint8]:
    """Return the picture (y, x, 3) of one group; voxels where the model differs are a column of their own."""
    image, drawn, predicted, geometry = read(group.case)
    part = (
        slice(None),
        window(group.y, image.shape[2], geometry.spacing[1]),
        window(group.x, image.shape[3], geometry.spacing[2]),
    )
    nothing = free_value(labels) if labels.ignore is None else labels.ignore
    differs = np.zeros(drawn[part].shape, dtype=bool)
    for value, members in labels.sets_by_value(group.case).items():
        allowed = [labels.class_values[index] for index in members]
        differs |= (drawn[part] == value) & ~np.isin(predicted[part], allowed)
    own_slice = np.broadcast_to(drawn[part][group.z], differs.shape)  # whether it is sparse decides how it is painted
    layers = [
        Layer("drawn", own_slice),
        Layer("model", predicted[part]),
        Layer("model where it differs", np.where(differs, predicted[part], nothing)),
    ]
    return draw_overlay(
        image[(slice(None), *part)],
        layers,
        replace(labels, ignore=nothing),
        geometry.spacing,
        title=(
            f"{rank}. {group.case}, z {group.z}, y {group.y}, x {group.x}: drawn {group.drawn}, "
            f"model says {group.predicted} (p {group.mean_probability:.3f}, {group.n_voxels} voxels)"
        ),
        slices=(group.z,),
    )
