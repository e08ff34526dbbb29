"""Deep supervision: targets and weights for the heads below the full resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.nn.losses.code_tables import annotated_codes

Loss = Callable[..., Tensor]
"""(logits (B, H, *P), codes (B, *P), label_sets (B, N, K), further tables of codes (B, N, ...)) -> scalar."""


def deep_supervision_weights(n: int) -> list[float]:
    """Weights of ``n`` heads, full resolution first: 1, 1/2, 1/4 ..., the last one 0, scaled to sum 1; one head: 1.

    Source: nnU-Net ``nnUNetTrainer._build_loss``; there a single head gets weight 0 / 0.
    """
    weights = [0.5**index for index in range(max(n - 1, 1))]
    return [weight / sum(weights) for weight in weights] + [0.0] * (n - len(weights))


def downsample_codes(
    codes: Tensor, label_sets: Tensor, stride: Sequence[int], unknown: int, undrawn: Tensor | None = None
) -> Tensor:
    """Bring codes to a coarser grid without losing annotated voxels.

    A coarse cell takes the code of the voxel that nearest-exact interpolation picks if that voxel was annotated, else
    that of another annotated voxel of the cell, else the picked one after all. Densely known codes come out as
    nearest-exact. A code with the set of ``undrawn`` gives way like "nothing known", though it may exclude a class that
    is absent from the case.

    Parameters
    ----------
    codes
        (B, *P) integers < N.
    label_sets
        (B, N, K) bool.
    stride
        Voxels per cell along each axis of P. The last cell of an axis that it does not divide is smaller.
    unknown
        Code of "nothing known" (K).
    undrawn
        (B,) int64: per sample the code of voxels that nobody annotated; None: ``unknown`` in all.

    Returns
    -------
    Tensor
        (B, *ceil(P / stride)), the type of ``codes``.

    Notes
    -----
    Source: batchgeneratorsv2 ``DownsampleSegForDSTransform``, where a scribble one voxel wide falls between the voxels
    picked and is gone at the coarse heads. The other voxels of a cell are searched by halves,
    the picked one first.
    """
    return next(iter(code_pyramid(codes, label_sets, [tuple(stride)], unknown, undrawn)))


def code_pyramid(
    codes: Tensor, label_sets: Tensor, strides: Sequence[Sequence[int]], unknown: int, undrawn: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield :func:`downsample_codes` for growing strides, each a multiple of the one before; the work is shared."""
    informative = annotated_codes(label_sets, undrawn).to(codes.device, non_blocking=True)
    padded = _pad_to_multiple(codes, strides[-1], unknown)
    known: Tensor | None = None  # codes on the grid of ``reached``, uninformative ones replaced by ``unknown``
    reached = (1,) * (codes.ndim - 1)
    for stride in strides:
        if all(step == 1 for step in stride):
            yield codes
            continue
        picked = _voxels_at(padded, [step // 2 for step in stride], stride)
        is_known = informative.gather(1, picked.flatten(1).long()).view(picked.shape)
        if not codes.is_cuda and bool(is_known.all()):  # dense: nothing to search. (On CUDA asking costs a wait.)
            coarse = picked
        else:
            if known is None:
                says_something = informative.gather(1, padded.flatten(1).long()).view(padded.shape)
                known = torch.where(says_something, padded, unknown)
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
        Applied to each head with its own codes.
    scales
        Patch voxels per logit of each output, full resolution first: ``network.output_strides``.
    unknown
        Code of "nothing known".
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
        undrawn: Tensor | None = None,
    ) -> Tensor:
        """Return the scalar loss of logits per head, full resolution first, and codes (B, *P) of the full resolution.

        ``label_sets`` (B, N, K) and ``undrawn`` (B,) say which codes were annotated, see :func:`downsample_codes`; the
        sets and ``tables`` are handed on to the loss.

        Heads of weight 0 are not evaluated, but stay in the graph with a zero gradient, as distributed training needs.
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
    missing = [-edge % step for edge, step in zip(codes.shape[1:], stride, strict=True)]
    if not any(missing):
        return codes
    return functional.pad(codes, [side for amount in reversed(missing) for side in (0, amount)], value=unknown)


def _first_known(known: Tensor, factors: Sequence[int], unknown: int) -> Tensor:
    """Shrink by ``factors``, prime by prime: per cell the first code that is not ``unknown``, the centre's first."""
    for step in _prime_steps(factors):
        found = _voxels_at(known, [edge // 2 for edge in step], step)
        for offsets in product(*(range(edge) for edge in reversed(step))):
            found = torch.where(found == unknown, _voxels_at(known, offsets[::-1], step), found)
        known = found
    return known


def _voxels_at(codes: Tensor, offsets: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return the voxel of each cell (B, *P) / stride that lies ``offsets`` from the cell's first."""
    return codes[(slice(None), *(slice(low, None, step) for low, step in zip(offsets, stride, strict=True)))]


def _prime_steps(factors: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Split factors per axis into steps of primes: (4, 2) gives (2, 2), (2, 1)."""
    left = list(factors)
    while any(factor > 1 for factor in left):
        step = tuple(next((p for p in range(2, factor + 1) if factor % p == 0), 1) for factor in left)
        left = [factor // edge for factor, edge in zip(left, step, strict=True)]
        yield step
