"""Fused forward and backward pass of the sums over voxels in the losses of region heads (sigmoid).

:mod:`autoseg.nn.losses.fused_softmax` has those of classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from autoseg.nn.losses.code_tables import check_shapes, head_states, look_up_heads
from autoseg.nn.losses.voxel_blocks import LossSums, Scratch, VoxelBlock, blocks, count_codes, is_on_cpu


def sigmoid_sums(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    regions: Tensor,
    region_weights: Tensor | None = None,
    voxel_weights: Tensor | None = None,
) -> LossSums:
    """Return the sums over voxels for binary cross entropy and Dice of region heads, differentiable in the logits.

    Parameters
    ----------
    logits
        (B, R, *P), any floating type. Sums are float64 for float64 logits, otherwise float32.
    codes, label_sets
        (B, *P) integers < N and (B, N, K) bool.
    regions
        (R, K) bool.
    region_weights
        (R,) factors of the likelihood of each region's head. None: all 1.
    voxel_weights
        (B, *P), non-negative factors in every sum. None: all 1.

    Returns
    -------
    LossSums
        For H = R heads. ``likelihood`` is the sum over all decided (voxel, head) pairs.
    """
    check_shapes(logits, codes, label_sets, regions)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    sets = label_sets.to(logits.device, non_blocking=True)
    voxels = codes.flatten(1)
    flat_weights = None if voxel_weights is None else voxel_weights.detach().flatten(1).to(dtype)
    counts = count_codes(voxels, sets.shape[1], flat_weights).to(dtype)
    positive, negative = head_states(sets, regions.to(sets.device))
    sides = negative.to(dtype) - positive.to(dtype)
    head_weights = None if region_weights is None else region_weights.to(sides)
    likelihood, overlap, predicted = _SigmoidSums.apply(  # type: ignore[no-untyped-call]
        logits.flatten(2), voxels, flat_weights, sides, head_weights
    )
    known = (counts[..., None] * (positive | negative)).sum(1)
    return LossSums(
        likelihood=likelihood,
        weight=(known if head_weights is None else known * head_weights).sum(),
        overlap=overlap,
        predicted=predicted,
        true=(counts[..., None] * positive).sum(1),
        known=known,
    )


class _BlockInputs(NamedTuple):
    """Inputs of one block of b samples and c voxels."""

    block: VoxelBlock
    codes: Tensor
    """(b, c) int64."""
    flat_weights: Tensor | None
    """(b, 1, c): voxel weights. None: all 1."""
    sides: Tensor
    """(b, R, c): 1 if the voxel is negative for the head, -1 if it is positive, 0 if it is undecided."""
    z: Tensor
    """(b, R, c): logits."""


class _SigmoidSums(torch.autograd.Function):
    """Sums ``likelihood`` (), ``overlap`` and ``predicted`` (B, R), see :class:`LossSums`."""

    @staticmethod
    def forward(
        context: Any,
        scores: Tensor,
        codes: Tensor,
        flat_weights: Tensor | None,
        sides: Tensor,
        head_weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums for logits ``scores`` (B, R, V).

        ``codes`` and weights are (B, V), ``sides`` (B, N, R), ``head_weights`` (R,).
        """
        context.save_for_backward(scores, codes, flat_weights, sides, head_weights)
        likelihood = sides.new_zeros(())
        overlap, predicted = sides.new_zeros(2, *scores.shape[:2])
        scratch = Scratch(sides)
        with torch.autocast(scores.device.type, enabled=False):
            for inputs in _block_inputs(scores, codes, flat_weights, sides, scratch):
                samples = inputs.block[0]
                weights = torch.abs(inputs.sides, out=scratch.get("weights", inputs.z.shape))
                if inputs.flat_weights is not None:
                    weights *= inputs.flat_weights
                costs = functional.softplus(inputs.sides * inputs.z)  # -log of the probability of the decided side
                costs *= weights
                likelihood += costs.sum() if head_weights is None else costs.sum((0, 2)) @ head_weights
                probabilities = inputs.z.sigmoid().mul_(weights)
                predicted[samples] += probabilities.sum(2)
                overlap[samples] += probabilities.mul_(inputs.sides < 0).sum(2)
        return likelihood, overlap, predicted

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient (B, R, V) of the logits, for the gradients of the sums, (), (B, R) and (B, R)."""
        scores, codes, flat_weights, sides, head_weights = context.saved_tensors
        likelihood, overlap, predicted = gradients
        if head_weights is not None:
            likelihood = (likelihood * head_weights)[:, None]  # (R, 1)
        slopes = sides.abs() * predicted[:, None] + (sides < 0) * overlap[:, None]  # (B, N, R), with respect to p
        result = torch.empty_like(scores)
        scratch = Scratch(sides)
        with torch.autocast(scores.device.type, enabled=False):
            for inputs in _block_inputs(scores, codes, flat_weights, sides, scratch):
                samples, columns = inputs.block
                against = torch.mul(inputs.sides, inputs.z, out=scratch.get("weights", inputs.z.shape)).sigmoid_()
                slope = look_up_heads(slopes[samples], inputs.codes, out=scratch.get("slopes", inputs.z.shape))
                slope *= against - against * against  # p (1 - p), equal for both sides
                gradient = slope.addcmul_(inputs.sides * likelihood, against)
                result[samples, :, columns] = (
                    gradient if inputs.flat_weights is None else gradient.mul_(inputs.flat_weights)
                )
        return result, None, None, None, None


def _block_inputs(
    scores: Tensor, codes: Tensor, flat_weights: Tensor | None, sides: Tensor, scratch: Scratch
) -> Iterator[_BlockInputs]:
    """Yield the inputs of each block of ``scores`` (B, R, V), codes and weights (B, V), and sides (B, N, R)."""
    for block in blocks(*scores.shape, on_cpu=is_on_cpu(scores)):
        samples, columns = block
        numbers = codes[block].long()
        z = scores[samples, :, columns].to(sides.dtype)
        weights = None if flat_weights is None else flat_weights[block][:, None]
        yield _BlockInputs(
            block, numbers, weights, look_up_heads(sides[samples], numbers, out=scratch.get("sides", z.shape)), z
        )
