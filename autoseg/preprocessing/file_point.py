"""Coordinates: from a point on the grid of the cache to the same point in the file."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.cases.case import CaseRecord


def point_in_file(record: CaseRecord, point: Sequence[float]) -> tuple[float, float, float]:
    """Return a point of a cached case in voxels of its file: the inverse of turning, cropping and resampling.

    Parameters
    ----------
    record
        Record of the preprocessing of the case.
    point
        Voxels (z, y, x) on the grid of the cache; whole numbers are voxel centres. It may lie outside the image.

    Returns
    -------
    Voxels (z, y, x) of the file, axes as in the file.

    Notes
    -----
    Resampling maps the edges of the field of view onto each other, so voxel i of m lies at ``(i + 0.5) n / m - 0.5`` of
    the n voxels before: see :func:`autoseg.preprocessing.axes.positions`.
    """
    turned = [
        (at + 0.5) * before / after - 0.5 + low - context
        for at, after, before, low, context in zip(
            point, record.shape, record.shape_before_resampling, record.crop_low, record.context_low, strict=True
        )
    ]
    return record.voxel_order.inverse_point(turned, record.shape_before_crop)
