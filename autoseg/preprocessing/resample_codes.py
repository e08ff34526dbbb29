"""Resampling of maps of codes: the cost does not depend on the number of labels, and no thin scribble is lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.chunks import CACHED_VOXELS, VOXELS, chunks
from autoseg.preprocessing.axes import AxisPart, IndexArray
from autoseg.preprocessing.keep_small_annotation import rescue_classes
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.neighbour_weights import (
    axis_neighbours,
    gather_neighbours,
    heaviest_code,
    heaviest_known_code,
)
from autoseg.preprocessing.one_hot_interpolation import decide_by_one_hot
from autoseg.preprocessing.resample_image import check_shape

Codes = NDArray[Any]


def resample_codes(
    codes: Codes,
    shape: Sequence[int],
    *,
    unknown: int | None,
    separate_axis: int | None = None,
    unions: LabelSetUnions | None = None,
) -> Codes:
    """Resample a map of codes to another number of voxels in the same field of view.

    **Dense maps** (``unknown`` is None or does not occur). Every output voxel takes the code with the largest sum of
    linear interpolation weights. On a tie it is the code of the nearest voxel if that is among the tied codes,
    otherwise the smallest.

    **Partially annotated maps.** A known code beats unknown, within limits:

    1. An output voxel is known if a known source voxel lies in its extent (the source voxels whose centres map into it,
       and the nearest one), or if known voxels have at least half of the linear weight. So an annotated region grows by
       half a voxel (of the coarser grid) at most.
    2. Its code is the one with most linear weight among known codes. If only the extent is known, it is the code of the
       known voxel in the extent that is nearest axis by axis. A tie, as between two classes on either side of a voxel
       of half the resolution, gives the union of the tied sets if ``unions`` are given ("nothing known" if that is all
       classes), otherwise the code as in dense maps.
    3. No class vanishes: for each annotated source voxel an output voxel less than one output voxel from its mapped
       position, along each axis, has the same code. A code that would vanish takes the closest of these voxels that is
       unknown or whose code is not needed there. If there is none, it searches the 3 voxels per axis around the mapped
       position. A code is lost only where more codes meet than these voxels can hold.

    Parameters
    ----------
    codes
        (*S) integers, one to three axes. Not changed.
    shape
        New *S, every length at least 1.
    unknown
        Code of unannotated voxels, or None.
    separate_axis
        Axis along which the nearest slice is taken instead of linear weights (known before unknown, as above).
    unions
        Label sets of the codes; those of the ties are added to it. Has no effect on dense maps.

    Returns
    -------
    ``shape``, same type, C-contiguous. An empty map gives zeros; the same shape gives a copy.

    Raises
    ------
    ValueError
        If the number of axes differs or a length is below 1.

    Notes
    -----
    Source of the rule for dense maps: ``batchgenerators.augmentations.utils.resize_segmentation`` 0.25.5 with order
    1, and nnU-Net's ``default_resampling.py:resample_data_or_seg`` for ``separate_axis``. The rule for unknown
    voxels is ours: with the rule for dense maps a scribble one voxel wide vanishes at half the resolution. Weights
    are summed only where neighbouring source voxels differ; where that is nearly everywhere and codes are few, they are
    summed code by code.
    """
    shape = check_shape(codes.shape, shape, separate_axis)
    if codes.size == 0:
        return np.zeros(shape, dtype=codes.dtype)
    if codes.shape == shape:
        return codes.copy(order="C")
    padding = 3 - codes.ndim
    source = codes.reshape((1,) * padding + codes.shape)
    axes = [AxisPart.whole(n, m) for n, m in zip(source.shape, (1,) * padding + shape, strict=True)]
    separate = None if separate_axis is None else separate_axis + padding
    if unknown is not None and not (source == unknown).any():
        unknown = None
    return resample_part(source, axes, unknown=unknown, separate_axis=separate, unions=unions).reshape(shape)


def resample_part(
    source: Codes,
    axes: Sequence[AxisPart],
    *,
    unknown: int | None,
    separate_axis: int | None,
    unions: LabelSetUnions | None,
) -> Codes:
    """Return the codes at some output voxels, (z', y', x'), from some source voxels, ``source`` (z, y, x).

    ``axes`` are the parts of the three axes. The other parameters are those of :func:`resample_codes`, where
    ``unknown`` is None for a map without unannotated voxels.
    """
    result = _nearest(source, axes) if unknown is None else _nearest_known(source, axes, unknown)
    _decide_by_weights(source, result, axes, unknown, separate_axis, unions)
    if unknown is not None:
        rescue_classes(source, result, unknown, axes)
    return result


def _nearest(source: Codes, axes: Sequence[AxisPart]) -> Codes:
    """Return the codes of the nearest voxels of ``source`` (z, y, x), axes that shrink most first."""
    result = source
    for axis in _cheapest_order(axes):
        result = result.take(axes[axis].nearest(), axis=axis)
    return np.ascontiguousarray(result) if result is not source else source.copy()


def _nearest_known(source: Codes, axes: Sequence[AxisPart], unknown: int) -> Codes:
    """Return codes: by axis those of the nearest voxel of ``source`` (z, y, x), or a known one if it is unknown.

    The known voxel is the nearest one in the extent of the output voxel.
    """
    result = source
    for axis in _cheapest_order(axes):
        before = result
        result = before.take(axes[axis].nearest(), axis=axis)
        for outputs, sources in _extent(axes[axis]):
            where = (slice(None),) * axis + (outputs,)
            present = result[where]
            result[where] = np.where(present == unknown, before.take(sources, axis=axis), present)
    return np.ascontiguousarray(result) if result is not source else source.copy()


def _cheapest_order(axes: Sequence[AxisPart]) -> list[int]:
    """Return the axes whose length changes, those that shrink most first; of equals the first axis is first."""
    changing = [axis for axis, part in enumerate(axes) if part.n != part.m]
    return sorted(changing, key=lambda axis: axes[axis].m / axes[axis].n)


def _extent(axis: AxisPart) -> list[tuple[IndexArray, IndexArray]]:
    """Return pairs of output voxels and source voxels in their extent other than the nearest, (k,) each, closest first.

    Each pair of arrays holds every output voxel at most once. Empty unless the axis shrinks.
    """
    if axis.m >= axis.n:
        return []
    owner = axis.mapped_voxels()
    members = np.flatnonzero(axis.nearest()[owner] != np.arange(len(owner)))
    order = np.lexsort((axis.distance(owner[members], members), owner[members]))
    members = members[order]
    owners = owner[members]
    starts = np.searchsorted(owners, owners)  # first position of each owner's run
    rank = np.arange(len(owners)) - starts
    return [(owners[rank == step], members[rank == step]) for step in range(int(rank.max(initial=-1)) + 1)]


def _decide_by_weights(
    source: Codes,
    result: Codes,
    parts: Sequence[AxisPart],
    unknown: int | None,
    separate: int | None,
    unions: LabelSetUnions | None,
) -> None:
    """Overwrite ``result`` (z', y', x') with the codes of most linear weight where ``source`` (z, y, x) varies."""
    axes = [axis for axis in range(3) if parts[axis].n != parts[axis].m and axis != separate]
    contested = _cells_that_differ(source, axes)
    if contested is None:
        return
    tables = [axis_neighbours(source.shape, parts[axis], axis, is_linear=axis in axes) for axis in range(3)]
    for axis in _cheapest_order(parts):
        lower = parts[axis].taps()[0] if axis in axes else parts[axis].nearest()
        contested = contested.take(lower, axis=axis)
    if unknown is None:
        decide_by_one_hot(source, result, contested, axes, parts)
    flat_source, flat_result, flat_contested = (
        np.ascontiguousarray(source).reshape(-1),
        result.reshape(-1),
        contested.reshape(-1),
    )
    for chosen in _pieces(flat_contested):
        neighbours = gather_neighbours(flat_source, chosen, result.shape, tables)
        if unknown is None:
            flat_result[chosen] = heaviest_code(neighbours)
        else:
            flat_result[chosen] = heaviest_known_code(neighbours, flat_result[chosen], unknown, unions)


def _pieces(flat: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Yield the indices (k,) at which ``flat`` (n,) is True, some thousand at a time.

    A list of all of them could need 8 bytes a voxel.
    """
    for searched in chunks(flat.size, 4 * VOXELS):
        indices = searched.start + np.flatnonzero(flat[searched])
        for chunk in chunks(len(indices), CACHED_VOXELS):
            yield indices[chunk]


def _cells_that_differ(source: Codes, axes: Sequence[int]) -> NDArray[np.bool_] | None:
    """(*S) bool: the cell that begins at a voxel, 2 voxels long on each of ``axes``, varies; None if none does."""
    differs = np.zeros(source.shape, dtype=bool)
    for axis in axes:
        lead = (slice(None),) * axis
        here, there = (*lead, slice(None, -1)), (*lead, slice(1, None))
        # a cell is uniform if both of its faces are uniform and agree
        differs[here] |= differs[there]
        differs[here] |= source[here] != source[there]
    return differs if differs.any() else None
