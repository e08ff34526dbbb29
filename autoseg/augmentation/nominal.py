"""Codes moved by a drawn transform as nominal values: one pass for all classes, and annotated voxels are not lost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from autoseg.augmentation.spatial import SpatialDraw, cut, flip, source_points

MIXED = -1
"""Marks a cell between voxels whose corners differ: only there is a vote needed."""
TIE_BREAK = 1e-4
"""Share of a corner's weight added to its class's votes: of classes with equal votes the nearest one wins."""


def move_codes(
    box: Tensor, draw: SpatialDraw, centre: Sequence[float], patch: Sequence[int], *, unknown: int, outside: int
) -> Tensor:
    """Return the patch of a code map.

    Each patch voxel takes the code with most linear votes among its 2^n known neighbours. It is known if its nearest
    source voxel is known, or if known neighbours hold at least half of the votes. Where the patch is coarser than the
    source (scaling above 1), a known source voxel that no patch voxel chose marks the patch voxel that it falls on, so
    that one-voxel scribbles do not vanish.

    Parameters
    ----------
    box
        (*box) uint8 or int32 codes: the part of the map that ``source_box`` asks for, cut off where the image ends.
    draw, centre, patch
        As in :func:`autoseg.augmentation.spatial.move_image`.
    unknown
        Code of a voxel of which nothing is known.
    outside
        Code of everything beyond ``box``: ``unknown``, or background in a densely labelled data set.

    Returns
    -------
    Tensor
        (*patch), type of ``box``. On dense labels the same as the argmax of one-hot maps, sampled linearly.

    Notes
    -----
    Source of the votes: batchgeneratorsv2 ``SpatialTransform`` (one map per class; ties to the lowest label). Differs
    in one pass for all classes; ties go to the nearest voxel; "unknown" has no vote of its own; outside votes as
    ``outside``.
    """
    if draw.is_identity or 0 in box.shape:
        return flip(cut(box[None], centre, patch, outside)[0], draw.mirrors)
    moved = _vote_everywhere(box, draw, centre, patch, unknown=unknown, outside=outside)
    if abs(np.linalg.det(draw.array)) > 1 + 1e-6:
        _keep_annotation_(moved, box, draw, centre, unknown)
    return flip(moved, draw.mirrors)


def _vote_everywhere(
    box: Tensor, draw: SpatialDraw, centre: Sequence[float], patch: Sequence[int], *, unknown: int, outside: int
) -> Tensor:
    """Look codes up where the surrounding voxels agree, and vote where they differ; (*patch)."""
    moving = (1, 2) if draw.is_in_plane else tuple(range(box.ndim))
    padded = pad(box, (1, 1) * box.ndim, value=outside)
    points = source_points(draw.array, [middle + 1 for middle in centre], patch, box.device)
    points = [
        (point if axis in moving else point.round()).clamp(0, edge - 1).flatten()
        for axis, (point, edge) in enumerate(zip(points, padded.shape, strict=True))
    ]
    cells = _agreed_codes(padded, moving)
    floors = [point.long().clamp_max(edge - 1) for point, edge in zip(points, cells.shape, strict=True)]
    codes = cells.flatten()[_flat_index(floors, cells.shape)]
    open_votes = (codes == MIXED).nonzero().flatten()
    if len(open_votes):
        chosen = [floor[open_votes] for floor in floors]
        fractions = [point[open_votes] - floor for point, floor in zip(points, chosen, strict=True)]
        corner_codes, weights = _corners(padded, chosen, fractions, moving)
        codes[open_votes] = _vote(corner_codes, weights, unknown).to(codes.dtype)
    return codes.to(box.dtype).view(*patch)


def _agreed_codes(padded: Tensor, moving: Sequence[int]) -> Tensor:
    """For each cell between neighbouring voxels of the ``moving`` axes their common code, or ``MIXED``; int32."""
    lowest, highest = padded, padded
    for axis in moving:
        cells = padded.shape[axis] - 1
        lowest = torch.minimum(lowest.narrow(axis, 0, cells), lowest.narrow(axis, 1, cells))
        highest = torch.maximum(highest.narrow(axis, 0, cells), highest.narrow(axis, 1, cells))
    return torch.where(lowest == highest, lowest.int(), MIXED)


def _corners(
    padded: Tensor, floors: list[Tensor], fractions: list[Tensor], moving: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Codes and linear weights of the neighbours of M points: both (2^m, M)."""
    flat = padded.flatten()
    base = _flat_index(floors, padded.shape)
    weights, offsets = [torch.ones_like(fractions[0])], [0]
    for axis in moving:  # every axis doubles the corners
        offsets += [offset + padded.stride(axis) for offset in offsets]
        upper = [weight * fractions[axis] for weight in weights]
        weights = [weight - part for weight, part in zip(weights, upper, strict=True)] + upper
    codes = [flat[base + offset] for offset in offsets]
    return torch.stack(codes), torch.stack(weights)


def _vote(codes: Tensor, weights: Tensor, unknown: int) -> Tensor:
    """Return the winning code of each of M points; ``codes`` and ``weights`` are (2^m, M)."""
    known = codes != unknown
    votes = weights * known
    nearest_is_known = known.gather(0, weights.argmax(0)[None])[0]
    is_known = nearest_is_known | (votes.sum(0) >= 0.5)
    lowest = codes.masked_fill(~known, codes.max()).amin(0)
    winner = codes.masked_fill(~known, 0).amax(0)
    contested = (is_known & (lowest != winner)).nonzero().flatten()  # few: mostly one known code meets unknown
    if len(contested):
        winner[contested] = _count_votes(codes[:, contested], votes[:, contested])
    return torch.where(is_known, winner, unknown)


def _count_votes(codes: Tensor, votes: Tensor) -> Tensor:
    """Return for each of M points the code with most votes; ``codes`` and ``votes`` are (2^m, M)."""
    score = votes * (1 + TIE_BREAK)
    for one, other in combinations(range(len(codes)), 2):
        same = codes[one] == codes[other]
        score[one] += votes[other] * same
        score[other] += votes[one] * same
    return codes.gather(0, score.argmax(0)[None])[0]


def _keep_annotation_(moved: Tensor, box: Tensor, draw: SpatialDraw, centre: Sequence[float], unknown: int) -> None:
    """Mark unknown voxels of the patch (in place, before flips) with the known source voxel that falls nearest to them.

    Only known voxels that touch an unknown one are tried: the inside of annotated regions cannot get lost.
    """
    known = _next_to_unknown(box, unknown).nonzero()
    if not len(known) or not (moved == unknown).any():
        return
    inverse = torch.tensor(np.linalg.inv(draw.array), dtype=torch.float32, device=known.device)
    half = (torch.tensor(moved.shape, device=known.device) - 1) / 2
    middle = torch.tensor([float(value) for value in centre], device=known.device)
    places = (known - middle) @ inverse.T + half
    targets = places.round().long()
    inside = ((targets >= 0) & (targets <= 2 * half)).all(1)
    index = _flat_index(list(targets[inside].unbind(1)), moved.shape)
    flat = moved.view(-1)
    needed = flat[index] == unknown
    index = index[needed]
    distance = (places - targets).square().sum(1)[inside][needed]
    codes = box[tuple(known[inside][needed].unbind(1))]
    # distance and code in one number, so that the smallest decides, the same on every device and in any order
    key = (distance * 1e6).long() * 2**20 + codes.long()
    unique, which = torch.unique(index, return_inverse=True)
    best = torch.full_like(unique, 2**62).scatter_reduce_(0, which, key, "amin")
    flat[unique] = (best % 2**20).to(flat.dtype)


def _next_to_unknown(box: Tensor, unknown: int) -> Tensor:
    """Known voxels with an unknown one among their 3^n neighbours; (*box) bool."""
    near = box == unknown
    for axis, edge in enumerate(box.shape):
        wide = near.clone()
        wide.narrow(axis, 1, edge - 1).logical_or_(near.narrow(axis, 0, edge - 1))
        wide.narrow(axis, 0, edge - 1).logical_or_(near.narrow(axis, 1, edge - 1))
        near = wide
    return near & (box != unknown)


def _flat_index(indices: list[Tensor], shape: Sequence[int]) -> Tensor:
    flat = indices[0]
    for index, edge in zip(indices[1:], shape[1:], strict=True):
        flat = flat * edge + index
    return flat
