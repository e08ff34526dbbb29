"""Deep supervision: targets and weights for the heads at lower resolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.nn.losses.code_tables import annotated_codes

Loss = Callable[..., Tensor]
"""Scalar function of logits (B, H, *P), codes (B, *P), label sets (B, N, K) and further tables (B, N, ...)."""


def deep_supervision_weights(n: int) -> list[float]:
    """Return the weights of ``n`` heads, full resolution first: 1, 1/2, 1/4 ... and 0 for the last, scaled to sum 1.

    A single head gets weight 1. Source: nnU-Net ``nnUNetTrainer._build_loss``, where it gets weight 0 / 0.
    """
    weights = [0.5**index for index in range(max(n - 1, 1))]
    return [weight / sum(weights) for weight in weights] + [0.0] * (n - len(weights))


def downsample_codes(codes: Tensor, label_sets: Tensor, stride: Sequence[int], unknown: int, undrawn: Tensor) -> Tensor:
    """Return codes on a coarser grid, without losing annotated voxels.

    A coarse voxel takes the code of the voxel that nearest-exact interpolation selects, if that voxel is annotated.
    Otherwise it takes the code of another annotated voxel in it; if there is none, that of the selected voxel. Dense
    codes are therefore interpolated nearest-exact. A voxel whose set is that of ``undrawn`` counts as unannotated, even
    if the set excludes a class that is absent from the case.

    Parameters
    ----------
    codes
        (B, *P) integers < N.
    label_sets
        (B, N, K) bool.
    stride
        Voxels per coarse voxel along each axis of P. If it does not divide P, the last coarse voxel is smaller.
    unknown
        Code of the set of all classes (K).
    undrawn
        (B,) int64: code of unannotated voxels, per sample.

    Returns
    -------
    Tensor
        (B, *ceil(P / stride)), of the type of ``codes``.

    Notes
    -----
    Source: batchgeneratorsv2 ``DownsampleSegForDSTransform``, in which a scribble one voxel wide can fall between the
    selected voxels and vanish at the coarse heads. The voxels of a coarse voxel are searched by repeated halving, the
    selected one first.
    """
    return next(iter(code_pyramid(codes, label_sets, [tuple(stride)], unknown, undrawn)))


def code_pyramid(
    codes: Tensor, label_sets: Tensor, strides: Sequence[Sequence[int]], unknown: int, undrawn: Tensor
) -> Iterator[Tensor]:
    """Yield :func:`downsample_codes`, (B, *ceil(P / stride)), for increasing strides, with shared work.

    Each stride must be a multiple of the one before. ``codes`` (B, *P), ``label_sets`` (B, N, K), ``undrawn`` (B,).
    """
    informative = annotated_codes(label_sets, undrawn).to(codes.device, non_blocking=True)
    padded = _pad_to_multiple(codes, strides[-1], unknown)
    known: Tensor | None = None  # codes on the grid of ``reached``, those of unannotated voxels replaced by ``unknown``
    reached = (1,) * (codes.ndim - 1)
    for stride in strides:
        if all(step == 1 for step in stride):
            yield codes
            continue
        picked = _voxels_at(padded, [step // 2 for step in stride], stride)
        is_known = informative.gather(1, picked.flatten(1).long()).view(picked.shape)
        if not codes.is_cuda and bool(is_known.all()):  # dense: no search. (On CUDA this test would wait.)
            coarse = picked
        else:
            if known is None:
                is_annotated = informative.gather(1, padded.flatten(1).long()).view(padded.shape)
                known = torch.where(is_annotated, padded, unknown)
            known = _first_known(known, [new // old for new, old in zip(stride, reached, strict=True)], unknown)
            reached = tuple(stride)
            coarse = torch.where(is_known | (known == unknown), picked, known)
        yield coarse[
            (slice(None), *(slice(-(-edge // step)) for edge, step in zip(codes.shape[1:], stride, strict=True)))
        ]


class DeepSupervisionLoss:
    """Weighted sum of one loss over the outputs of all decoder stages.

    Parameters
    ----------
    loss
        Loss of one output, called with the codes at its resolution.
    scales
        Patch voxels per logit of each output, full resolution first: ``network.output_strides``.
    unknown
        Code of the set of all classes.
    """

    def __init__(self, loss: Loss, scales: Sequence[Sequence[int]], unknown: int) -> None:
        self.loss = loss
        self.unknown = unknown
        self.scales = [tuple(scale) for scale in scales]
        self.weights = deep_supervision_weights(len(self.scales))

    def __call__(
        self,
        logits: Sequence[Tensor],
        codes: Tensor,
        label_sets: Tensor,
        *tables: Tensor,
        undrawn: Tensor,
    ) -> Tensor:
        """Return the scalar loss.

        ``logits`` are (B, H, *P / scale), one tensor per output, full resolution first. ``codes`` are (B, *P) at full
        resolution, ``label_sets`` (B, N, K), ``undrawn`` (B,), see :func:`downsample_codes`. ``tables`` (B, N, ...) are
        passed to the loss.

        Outputs of weight 0 are not evaluated, but get a zero gradient, which distributed training needs.
        """
        if len(logits) != len(self.weights):
            raise ValueError(f"logits: found {len(logits)} heads, expected {len(self.weights)}, one per decoder stage.")
        used = [index for index, weight in enumerate(self.weights) if weight > 0]
        unused = [output[:0].float().sum() for index, output in enumerate(logits) if index not in used]
        total = sum(unused, start=torch.zeros((), device=codes.device))
        pyramid = code_pyramid(codes, label_sets, [self.scales[index] for index in used], self.unknown, undrawn)
        for index, coarse in zip(used, pyramid, strict=True):
            total = total + self.weights[index] * self.loss(logits[index], coarse, label_sets, *tables)
        return total


def _pad_to_multiple(codes: Tensor, stride: Sequence[int], unknown: int) -> Tensor:
    """Return codes (B, *P), padded with ``unknown`` at the end of each axis to a multiple of ``stride``."""
    missing = [-edge % step for edge, step in zip(codes.shape[1:], stride, strict=True)]
    if not any(missing):
        return codes
    return functional.pad(codes, [side for amount in reversed(missing) for side in (0, amount)], value=unknown)


def _first_known(known: Tensor, factors: Sequence[int], unknown: int) -> Tensor:
    """Return (B, *P / factors): for each coarse voxel, the first code in ``known`` (B, *P) that is not ``unknown``.

    The search goes by prime factors. The voxel at the centre comes first.
    """
    for step in _prime_steps(factors):
        first = _voxels_at(known, [edge // 2 for edge in step], step)
        for offsets in product(*(range(edge) for edge in reversed(step))):
            first = torch.where(first == unknown, _voxels_at(known, offsets[::-1], step), first)
        known = first
    return known


def _voxels_at(codes: Tensor, offsets: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return (B, *P / stride): for each coarse voxel, the one of ``codes`` (B, *P) at ``offsets`` from its first."""
    return codes[(slice(None), *(slice(low, None, step) for low, step in zip(offsets, stride, strict=True)))]


def _prime_steps(factors: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield steps of prime factors, one per axis, whose products are ``factors``: (4, 2) gives (2, 2), (2, 1)."""
    left = list(factors)
    while any(factor > 1 for factor in left):
        step = tuple(next((p for p in range(2, factor + 1) if factor % p == 0), 1) for factor in left)
        left = [factor // edge for factor, edge in zip(left, step, strict=True)]
        yield step
