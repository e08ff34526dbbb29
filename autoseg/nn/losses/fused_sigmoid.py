"""Sums over voxels for the losses of region heads; :mod:`autoseg.nn.losses.fused_softmax` has those of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from autoseg.nn.losses.code_tables import check_shapes, head_states, look_up_heads
from autoseg.nn.losses.voxel_blocks import Block, LossSums, Scratch, blocks, count_codes, is_cheap_to_ask


def sigmoid_sums(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    regions: Tensor,
    voxel_weights: Tensor | None = None,
) -> LossSums:
    """Sum what binary cross entropy and Dice of region heads need; differentiable in the logits.

    Parameters
    ----------
    logits
        (B, R, *P), any floating type. Sums are float32, those of float64 logits float64.
    codes, label_sets
        (B, *P) integers < N and (B, N, K) bool.
    regions
        (R, K) bool.
    voxel_weights
        (B, *P) non-negative, multiplied into every sum. None: all 1.

    Returns
    -------
    LossSums
        Of H = R heads. The likelihood is that of all decided (voxel, head) pairs.
    """
    check_shapes(logits, codes, label_sets, regions)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    sets = label_sets.to(logits.device, non_blocking=True)
    voxels = codes.flatten(1)
    evidence = None if voxel_weights is None else voxel_weights.detach().flatten(1).to(dtype)
    counts = count_codes(voxels, sets.shape[1], evidence).to(dtype)
    positive, negative = head_states(sets, regions.to(sets.device))
    sides = negative.to(dtype) - positive.to(dtype)
    likelihood, overlap, predicted = _SigmoidSums.apply(  # type: ignore[no-untyped-call]
        logits.flatten(2), voxels, evidence, sides
    )
    known = (counts[..., None] * (positive | negative)).sum(1)
    return LossSums(
        likelihood=likelihood,
        weight=known.sum(),
        overlap=overlap,
        predicted=predicted,
        true=(counts[..., None] * positive).sum(1),
        known=known,
    )


class _Part(NamedTuple):
    """One block: b samples, c voxels."""

    block: Block
    codes: Tensor
    """(b, c) int64."""
    evidence: Tensor | None
    """(b, 1, c): voxel weights. None: all 1."""
    sides: Tensor
    """(b, R, c): 1 where a head is negative, -1 where it is positive, 0 where it is undecided."""
    z: Tensor
    """(b, R, c): logits."""


class _SigmoidSums(torch.autograd.Function):
    """Likelihood (), overlap and predicted (B, R), given the side of each head for each code (B, N, R)."""

    @staticmethod
    def forward(
        context: Any, scores: Tensor, codes: Tensor, evidence: Tensor | None, sides: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        context.save_for_backward(scores, codes, evidence, sides)
        likelihood = sides.new_zeros(())
        overlap, predicted = sides.new_zeros(2, *scores.shape[:2])
        scratch = Scratch(sides)
        with torch.autocast(scores.device.type, enabled=False):
            for part in _parts(scores, codes, evidence, sides, scratch):
                samples = part.block[0]
                weights = torch.abs(part.sides, out=scratch.get("weights", part.z.shape))
                if part.evidence is not None:
                    weights *= part.evidence
                costs = functional.softplus(part.sides * part.z)  # -log p of the side
                likelihood += costs.mul_(weights).sum()
                found = part.z.sigmoid().mul_(weights)
                predicted[samples] += found.sum(2)
                overlap[samples] += found.mul_(part.sides < 0).sum(2)
        return likelihood, overlap, predicted

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        scores, codes, evidence, sides = context.saved_tensors
        likelihood, overlap, predicted = gradients
        slopes = sides.abs() * predicted[:, None] + (sides < 0) * overlap[:, None]  # (B, N, R), by p
        result = torch.empty_like(scores)
        scratch = Scratch(sides)
        with torch.autocast(scores.device.type, enabled=False):
            for part in _parts(scores, codes, evidence, sides, scratch):
                samples, columns = part.block
                against = torch.mul(part.sides, part.z, out=scratch.get("weights", part.z.shape)).sigmoid_()
                slope = look_up_heads(slopes[samples], part.codes, out=scratch.get("slopes", part.z.shape))
                slope *= against - against * against  # p (1 - p), whichever side
                gradient = slope.addcmul_(part.sides * likelihood, against)
                result[samples, :, columns] = gradient if part.evidence is None else gradient.mul_(part.evidence)
        return result, None, None, None


def _parts(scores: Tensor, codes: Tensor, evidence: Tensor | None, sides: Tensor, scratch: Scratch) -> Iterator[_Part]:
    for block in blocks(*scores.shape, on_cpu=is_cheap_to_ask(scores)):
        samples, columns = block
        numbers = codes[block].long()
        z = scores[samples, :, columns].to(sides.dtype)
        weights = None if evidence is None else evidence[block][:, None]
        yield _Part(
            block, numbers, weights, look_up_heads(sides[samples], numbers, out=scratch.get("sides", z.shape)), z
        )
