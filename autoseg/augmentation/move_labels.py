"""Warping of label codes as nominal values: one pass for all classes, without loss of annotated voxels.

On the CPU only the voxels whose source neighbours differ are worked out, which are few. To pick them on a GPU would
make the program wait for it. There everything is worked out for every voxel; the result is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from autoseg.augmentation.sampling_grid import Source, axis_strides, pieces
from autoseg.augmentation.warp import Matrix, Warp, moved_by

VOTES = 1 << 15
"""Number of points whose votes are counted together: few enough for the processor's cache."""
TIE_BREAK = 1e-4
"""Share of the largest weight of a code's voxels that is added to its votes, so that the nearest code wins a tie."""


def move_codes(
    box: Tensor,
    warp: Warp,
    centre: Sequence[float],
    patch: Sequence[int],
    *,
    unknown: int,
    outside: int,
    to_drawn: Tensor | None = None,
) -> Tensor:
    """Return the patch (*patch) of a code map.

    Each patch voxel takes the code with the most votes of its 2^n source neighbours, weighted as in linear
    interpolation. Unannotated neighbours do not vote. The patch voxel is annotated if its nearest source voxel is, or
    if annotated neighbours hold at least half of the weight. If the patch is coarser than the source (scaling above 1),
    a patch voxel that would be unannotated takes an annotated neighbour that falls on it, so that scribbles one voxel
    wide do not vanish. (With scaling above 1.4, some source voxels that fall on a patch voxel are not its neighbours.)

    Parameters
    ----------
    box
        (*box) uint8 or int32 codes: the part of ``source_box`` that lies inside the map.
    warp, centre, patch
        As in :func:`autoseg.augmentation.warp.move_image`.
    unknown
        Code of unannotated voxels.
    outside
        Code of everything beyond ``box``: ``unknown``, or background in a densely labelled data set.
    to_drawn
        (N,) integers, on the CPU: base code of each code, that which was drawn. Neighbours first vote with base codes.
        The codes with the winning base code then vote among themselves. If no neighbour is annotated, the nearest
        neighbour's code is taken. None: every code is its own base code.

    Returns
    -------
    Tensor
        (*patch), type of ``box``. For dense labels, the argmax of linearly sampled one-hot maps.

    Notes
    -----
    Source of the votes: batchgeneratorsv2 ``SpatialTransform`` (one map per class; the nearest voxel wins a tie).
    Differs: one pass for all classes; unannotated voxels do not vote; voxels outside vote for ``outside``.
    """

    def vote(source: Source) -> Tensor:
        rule = _Rule.of(box, source.matrix, unknown, to_drawn, selects=is_on_cpu(box))
        return _vote_where_contested(source, rule) if rule.selects else _vote_everywhere(source, rule)

    return moved_by(box[None], warp, centre, patch, outside, vote)[0]


@dataclass(frozen=True, slots=True)
class _Rule:
    """Rule of the vote: base codes, unannotated codes, and whether lone annotated voxels must be preserved."""

    unknown: int
    also_unknown: tuple[int, ...]
    """Further codes with the base code ``unknown``."""
    to_drawn: Tensor | None
    """(N,) base code of each code; None: every code is its own base code."""
    shrink: Matrix | None
    """(m, m): offset in the source -> offset in the patch. None if the patch is not coarser than the source."""
    selects: bool
    """Whether rare cases are picked out and worked out alone, as pays on the CPU; otherwise for every point."""

    @classmethod
    def of(cls, box: Tensor, matrix: Matrix, unknown: int, to_drawn: Tensor | None, *, selects: bool) -> _Rule:
        """Return the rule for a ``box`` (*box) of codes that is moved by ``matrix`` (m, m)."""
        is_coarser = abs(np.linalg.det(matrix)) > 1 + 1e-6
        others = [] if to_drawn is None else (to_drawn == unknown).nonzero().flatten().tolist()
        return cls(
            unknown,
            tuple(code for code in others if code != unknown),
            None if to_drawn is None else to_drawn.to(box, non_blocking=True),
            np.asarray(np.linalg.inv(matrix), np.float64) if is_coarser else None,
            selects,
        )

    def drawn(self, codes: Tensor) -> Tensor:
        """Return the base code of each of ``codes`` (any shape)."""
        if self.to_drawn is None:
            return codes
        return self.to_drawn.index_select(0, codes.flatten().int()).view(codes.shape)

    def known(self, codes: Tensor) -> Tensor:
        """Return whether each of ``codes`` (any shape) is annotated, bool."""
        differs = codes ^ self.unknown
        for code in self.also_unknown:
            differs = torch.minimum(differs, codes ^ code)
        return differs.bool()


class _Neighbours(NamedTuple):
    """The 2^m source voxels around each of M points."""

    codes: Tensor
    """(2^m, M) codes of the voxels."""
    weights: Tensor
    """(2^m, M) float32: weights of linear interpolation, with sum 1 over the first axis."""
    nearest: Tensor
    """(M,): code of the nearest of the voxels."""
    fractions: tuple[Tensor, ...]
    """Per axis (M,) float32: position of the point in its cell, 0 to 1."""

    def at(self, points: Tensor) -> _Neighbours:
        """Return the neighbours of the points with indices ``points`` (n,)."""
        codes, weights = (values.index_select(1, points) for values in self[:2])
        nearest, *fractions = (values.index_select(0, points) for values in (self.nearest, *self.fractions))
        return _Neighbours(codes, weights, nearest, tuple(fractions))


def _vote_everywhere(source: Source, rule: _Rule) -> Tensor:
    """Return (L, V): the code of each of V patch voxels. Votes are counted for all of them."""
    flat, strides = source.layers.flatten(1), axis_strides(source)
    moved = flat.new_empty((len(flat), math.prod(source.patch)))
    for piece in pieces(source):
        for layer, codes in zip(flat, moved, strict=True):
            around = _neighbours(layer, piece.corner, piece.fractions, strides)
            codes[piece.points] = _winning_codes(around, rule).to(codes.dtype)
    return moved


def _vote_where_contested(source: Source, rule: _Rule) -> Tensor:
    """Return (L, V): the code of each of V patch voxels. Votes are counted only if the neighbours differ."""
    cells, mixed = _agreed_codes(source.layers)
    moved = cells.new_empty((len(cells), math.prod(source.patch)))
    contested: list[tuple[Tensor, ...]] = []
    for piece in pieces(source):
        codes = moved[:, piece.points]  # (L, M), a view
        for layer, own in zip(cells, codes, strict=True):
            torch.index_select(layer, 0, piece.corner, out=own)
        found = torch.from_numpy(np.flatnonzero(codes.numpy() == mixed))  # in half the time of torch
        if not len(found):
            continue
        layer = found.div(codes.shape[1], rounding_mode="floor")
        point = found - layer * codes.shape[1]
        place = layer * moved.shape[1] + piece.points.start + point
        corner = layer * cells.shape[1] + piece.corner.index_select(0, point)
        contested.append((place, corner, *(part.index_select(0, point) for part in piece.fractions)))
    flat, strides = source.layers.flatten(), axis_strides(source)
    parts = (torch.split(torch.cat(part), VOTES) for part in zip(*contested, strict=True))
    for place, corner, *fractions in zip(*parts, strict=True):
        moved.view(-1)[place] = _winning_codes(_neighbours(flat, corner, fractions, strides), rule).to(moved.dtype)
    return moved.to(source.layers.dtype)


def _agreed_codes(layers: Tensor) -> tuple[Tensor, int]:
    """Return (L, V): the common code of all voxels of each cell of ``layers`` (L, *S), or a mark if they differ.

    Also return the mark, which is not a code. The value of a cell is at the index of its first voxel; values at the
    last voxel of an axis have no meaning.
    """
    if layers.dtype == torch.uint8 and int(layers.max()) == torch.iinfo(torch.uint8).max:
        layers = layers.int()
    flat = layers.flatten()
    differs = torch.zeros_like(flat)
    for stride in layers.stride()[:0:-1]:  # on flattened layers, which is fastest
        wider = flat[stride:] ^ flat[:-stride]
        wider |= differs[stride:]
        differs[:-stride] |= wider
    agreed = flat | differs.clamp_(max=1).neg_()  # all bits where they differ
    return agreed.view(len(layers), -1), 255 if agreed.dtype == torch.uint8 else -1


def _neighbours(flat: Tensor, corner: Tensor, fractions: Sequence[Tensor], strides: Sequence[int]) -> _Neighbours:
    """Return the neighbours of M points in flattened layers ``flat`` (L V,).

    ``corner`` (M,) is the flat index of each cell's first voxel, ``fractions`` (M,) per axis the position in the cell.
    """
    weights, offsets = [torch.ones_like(fractions[0])], [0]
    nearest = corner
    for fraction, stride in zip(fractions, strides, strict=True):  # every axis doubles them
        offsets += [offset + stride for offset in offsets]
        upper = [weight * fraction for weight in weights]
        weights = [weight - part for weight, part in zip(weights, upper, strict=True)] + upper
        nearest = nearest + (fraction > 0.5) * stride
    codes = [flat[offset:].index_select(0, corner) for offset in offsets]
    return _Neighbours(torch.stack(codes), torch.stack(weights), flat.index_select(0, nearest), tuple(fractions))


def _winning_codes(around: _Neighbours, rule: _Rule) -> Tensor:
    """Return (M,): the code of each of M points. If no neighbour is annotated it is the nearest, else the winner."""
    if rule.to_drawn is None:
        return _vote(around, rule)
    is_annotated = rule.known(around.codes).any(0)
    if not rule.selects:
        return torch.where(is_annotated, _vote(around, rule), around.nearest)
    points = is_annotated.nonzero().flatten()
    decided = around.nearest.clone()
    if len(points):
        decided[points] = _vote(around.at(points), rule)
    return decided


def _vote(around: _Neighbours, rule: _Rule) -> Tensor:
    """Return (M,): the winner of the vote at each of M points."""
    codes, weights = around.codes, around.weights
    known = rule.known(codes)
    votes = weights * _number(known)
    is_known = rule.known(around.nearest) | (votes.sum(0) >= 0.5)
    drawn = rule.drawn(codes)
    winner = torch.where(is_known, _most_voted(drawn, votes, rule), torch.full_like(around.nearest, rule.unknown))
    if rule.to_drawn is not None:
        winner = _most_voted(codes, weights * _number(drawn == winner), rule)
    if rule.shrink is not None:
        is_lone = known.any(0) & ~is_known
        if not rule.selects:
            return torch.where(is_lone, _nearest_inside(around, rule, winner, rule.shrink), winner)
        points = is_lone.nonzero().flatten()
        winner[points] = _nearest_inside(around.at(points), rule, winner.index_select(0, points), rule.shrink)
    return winner


def _most_voted(codes: Tensor, votes: Tensor, rule: _Rule) -> Tensor:
    """Return (M,): the code with the most votes at each of M points. ``codes`` and ``votes`` are (2^m, M)."""
    counts = (votes > 0).to(codes.dtype)
    top = codes.max()
    highest = (codes * counts).amax(0)
    lowest = top - ((top - codes) * counts).amax(0)
    of_highest, of_lowest = (votes * _number(codes == code) for code in (highest, lowest))
    lead = of_highest.sum(0) - of_lowest.sum(0) + TIE_BREAK * (of_highest.amax(0) - of_lowest.amax(0))
    winner = torch.where(lead > 0, highest, lowest)
    has_more = (votes - of_highest - of_lowest).amax(0) > 0
    is_several = has_more & (lowest < highest)
    if not rule.selects:
        return torch.where(is_several, _count_votes(codes, votes), winner)
    several = is_several.nonzero().flatten()  # few: mostly two codes meet
    if len(several):
        winner[several] = _count_votes(codes.index_select(1, several), votes.index_select(1, several))
    return winner


def _count_votes(codes: Tensor, votes: Tensor) -> Tensor:
    """Return (M,): as :func:`_most_voted`, for ``codes`` and ``votes`` (2^m, M) with more than two different codes."""
    score = torch.stack([(votes * (codes == code)).sum(0) for code in codes]) + TIE_BREAK * votes
    return codes.gather(0, score.argmax(0)[None])[0]


def _nearest_inside(around: _Neighbours, rule: _Rule, otherwise: Tensor, shrink: Matrix) -> Tensor:
    """Return (M,): the code of the nearest annotated neighbour inside each of M patch voxels, or of ``otherwise`` (M,).

    ``shrink`` (m, m): offset in the source -> offset in the patch.
    """
    matrix = torch.tensor(shrink, dtype=torch.float32)
    corners = torch.tensor(list(product((0.0, 1.0), repeat=len(shrink))))  # (2^m, m)
    corners = corners.flip(1)  # the first axis changes fastest, as in the rows of the codes
    to_patch, steps = (part.to(otherwise.device, non_blocking=True) for part in (matrix, matrix @ corners.T))
    away = steps[..., None] - (to_patch @ torch.stack(around.fractions))[:, None]  # (m, 2^m, M)
    falls = rule.known(around.codes) & (away.abs().amax(0) <= 0.5)
    distance = torch.where(falls, away.square().sum(0), torch.inf)
    nearest, which = distance.min(0)
    return torch.where(nearest < torch.inf, around.codes.gather(0, which[None])[0], otherwise)


def is_on_cpu(box: Tensor) -> bool:
    """Whether a tensor of any shape is on the CPU, so that picking values out of it waits for nothing."""
    return box.device.type == "cpu"


def _number(mask: Tensor) -> Tensor:
    """Return a bool mask of any shape as float32 0 and 1. Ten times faster than a direct conversion."""
    return mask.view(torch.uint8).float()
