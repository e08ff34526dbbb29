"""Ensemble of networks, and of mirrored copies of a patch, whose logits are averaged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoseg.core.errors import ModelError

_CACHED_VALUES = 2**18


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Sum of the logits of all members and mirrored copies; the caller divides it by ``n_copies``."""

    members: tuple[nn.Module, ...]
    """Networks on ``device``, in evaluation mode; each maps (B, C, *P) to (B, O, *P)."""
    mirrorings: tuple[tuple[int, ...], ...]
    """Axes of (B, C, *P) that each mirrored copy flips, as :func:`mirrorings` gives them: the empty tuple first."""
    device: torch.device
    autocast_dtype: torch.dtype | None = None
    """Type for mixed precision; None computes in float32."""
    is_separate: bool = False
    """Whether the sum over the mirrored copies of each of the M members follows as O more outputs, times M: divided by
    ``n_copies`` it is the member's mean. The sum over all is the same, bit for bit."""
    offsets: tuple[tuple[int, int, int], ...] = ()
    """(O,) offset (z, y, x) of each output that speaks of a pair of voxels, 0 0 0 for others; (): of all."""

    def __post_init__(self) -> None:
        if not self.members:
            raise ModelError("ensemble: found no network, expected at least one. Name a fold that is trained.")

    @property
    def n_copies(self) -> int:
        """Number of logits in the sum."""
        return len(self.members) * len(self.mirrorings)

    @property
    def n_sums(self) -> int:
        """Number of sums of O outputs each: that of all members, and with ``is_separate`` that of each member."""
        return 1 + len(self.members) if self.is_separate else 1

    def __call__(self, patches: Tensor) -> Tensor:
        """Return the summed logits (B, O, *P) float32 of patches (B, C, *P); (B, (1 + M) O, *P) with ``is_separate``.

        Patches for which the memory of a GPU does not suffice together are computed in two halves. A patch that
        overflows in mixed precision is computed again in float32. Raises ``ModelError`` if logits are NaN or infinite
        in float32 too.
        """
        patches = patches.to(self.device)
        try:
            return self._finite_sum(patches)
        except torch.cuda.OutOfMemoryError:
            if len(patches) == 1:
                raise
        half = len(patches) // 2  # outside of the handler, which would keep the memory of the failed pass
        return torch.cat((self(patches[:half]), self(patches[half:])))

    def _finite_sum(self, patches: Tensor) -> Tensor:
        """Return the sum (B, O, *P) float32 over members and mirrored copies of (B, C, *P), all finite."""
        total = self._sum(patches, self.autocast_dtype)
        if _is_finite(total):
            return total
        if self.autocast_dtype is not None:
            broken = ~torch.isfinite(total).flatten(1).all(dim=1)
            total[broken] = self._sum(patches[broken], None)
        if not bool(torch.isfinite(total).all()):
            raise ModelError(
                "network: found NaN or infinite logits, expected numbers. The training diverged: train again, "
                "or choose another checkpoint."
            )
        return total

    def _sum(self, patches: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Return the sum (B, O, *P) float32 over members and mirrored copies of (B, C, *P), computed in ``dtype``."""
        with torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            total = self._members_sum(patches)
            for axes in self.mirrorings[1:]:
                mirrored = self._members_sum(patches.flip(axes))
                _add_flipped(total, _from_other_end(mirrored, self.offsets, axes), axes)
        return total

    def _members_sum(self, patches: Tensor) -> Tensor:
        """Return the sum (B, O, *P) float32 over the networks for (B, C, *P).

        Summed before mirroring back, so that a mirrored copy is mirrored back once for all networks.
        """
        if self.is_separate:
            return self._with_members(patches)
        first, *others = self.members
        total: Tensor = first(patches).float()
        if total.untyped_storage().data_ptr() == patches.untyped_storage().data_ptr():
            total = total.clone()  # the network returned its input, which the others still need
        for member in others:
            total.add_(member(patches))
        return total

    def _with_members(self, patches: Tensor) -> Tensor:
        """Return the sum over the networks, then the logits of each times M: (B, (1 + M) O, *P) float32."""
        each = [member(patches).float() for member in self.members]
        total = each[0].clone()
        for logits in each[1:]:
            total.add_(logits)
        return torch.cat((total, *(logits * len(each) for logits in each)), dim=1)


def mirrorings(mirror_axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return all subsets of ``mirror_axes`` (patch axes, from 0) as axes of (B, C, *P), the empty subset first."""
    axes = [axis + 2 for axis in mirror_axes]
    return tuple(subset for size in range(len(axes) + 1) for subset in itertools.combinations(axes, size))


def _from_other_end(values: Tensor, offsets: Sequence[tuple[int, int, int]], axes: tuple[int, ...]) -> Tensor:
    """Return values (B, O, *P) of a patch mirrored along ``axes`` in which each pair stands at its other voxel.

    A pair (v, v + d) is (w, w - d) in the mirrored patch; its affinity, which the network gives at the first of two
    voxels at offset d, stands at w - d and has to stand at w. Voxels without a pair get the value of the nearest one.
    """
    for index in range(values.shape[1] if offsets else 0):
        offset = offsets[index % len(offsets)][5 - values.ndim :]
        for axis in axes:
            if step := offset[axis - 2]:
                edge = values.shape[axis]
                places = (torch.arange(edge, device=values.device) - step).clamp(0, edge - 1)
                values[:, index] = values[:, index].index_select(axis - 1, places)
    return values


def _add_flipped(total: Tensor, values: Tensor, axes: tuple[int, ...]) -> None:
    """Add ``values`` mirrored along ``axes`` to ``total`` in place, both (B, O, *P).

    On a CPU this is done in pieces whose mirrored copy fits into its cache.
    """
    if total.device.type != "cpu":
        total.add_(values.flip(axes))
        return
    n_planes = total.shape[2]
    most = max(1, _CACHED_VALUES // max(1, total[0, :, 0].numel()))
    own_axes = [axis - 1 for axis in axes]
    for target, source in zip(total, values, strict=True):  # (O, *P)
        for first in range(0, n_planes, most):
            stop = min(first + most, n_planes)
            planes = slice(n_planes - stop, n_planes - first) if 2 in axes else slice(first, stop)
            target[:, first:stop].add_(source[:, planes].flip(own_axes))


def _is_finite(values: Tensor) -> bool:
    """Whether all values of a tensor of any shape are finite.

    A finite sum, which takes one quick pass, proves it; the sum of finite values may overflow, so it cannot refute it.
    """
    return math.isfinite(float(values.sum())) or bool(torch.isfinite(values).all())
