"""Losses on label sets: cross entropy, soft Dice and binary cross entropy for partial annotation.

All three take codes and a table of label sets (``autoseg.dataset.labels``). Unannotated voxels have no effect. Sums are
divided by counts of informative or decided voxels in the whole batch and, with ``all_reduce``, on all ranks. Arithmetic
is float64 for float64 logits, otherwise float32, inside and outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from autoseg.core.arrays import BoolArray
from autoseg.nn.losses.fused_sigmoid import sigmoid_sums
from autoseg.nn.losses.fused_softmax import softmax_sums
from autoseg.nn.losses.voxel_blocks import LossSums

AllReduce = Callable[[Tensor], Tensor]
"""Differentiable sum of a tensor over ranks: :func:`autoseg.nn.ranks.sum_over_ranks`."""


def no_reduction(sums: Tensor) -> Tensor:
    """Return ``sums``, of any shape: the ``all_reduce`` of a single process."""
    return sums


def label_set_cross_entropy(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    *,
    weights: Tensor | None = None,
    voxel_weights: Tensor | None = None,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    r"""Cross entropy of the statement "the class of voxel x is one of A(x)", averaged over informative voxels.

    .. math:: L = \frac{\sum_x u_x w(A_x) \, [\mathrm{lse}_{all}(z_x) - \mathrm{lse}_{A_x}(z_x)]}{\sum_x u_x w(A_x)}

    over all informative voxels x (A neither empty nor all classes) of the batch and of all ranks; u are the voxel
    weights, w the class weights. A = {k} is the ordinary cross entropy, A = all but k is :math:`-\log(1-p_k)`; an
    uninformative voxel has loss and gradient exactly 0. The gradient, :math:`p_j - 1[j \in A] \, p_j / p(A)`, is
    bounded by 1 per voxel.

    Parameters
    ----------
    logits
        (B, K, *P), any floating type.
    codes
        (B, *P) integers < N.
    label_sets
        (B, N, K) bool, on the CPU or on the device of the logits. On the CPU, nothing waits for the device unless there
        are sets of several classes.
    weights
        (K,) non-negative class weights. A set gets the mean weight of its classes. None: all 1.
    voxel_weights
        (B, *P) non-negative weight of each voxel. A voxel of weight 0 counts as unannotated. None: all 1.
    all_reduce
        Sums over ranks, see :data:`AllReduce`.

    Returns
    -------
    Tensor
        Scalar float32. 0 with zero gradients (and connected to the graph) if no voxel is informative.

    Notes
    -----
    Source: marginal loss (Shi et al. 2021, arXiv 2007.03868), label-set losses (Fidon et al. 2021, arXiv 2107.03846),
    ELEKTRONN's lazy labels. Differs from the latter: weights are outside the logarithm, no epsilon reduces the
    gradient, and several excluded classes are excluded jointly.
    """
    sums = softmax_sums(logits, codes, label_sets, weights, voxel_weights)
    return _mean(sums.likelihood, sums.weight, all_reduce)


def label_set_dice(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    *,
    regions: Tensor | None = None,
    batch: bool = False,
    smooth: float = 1e-5,
    voxel_weights: Tensor | None = None,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    r"""One minus the mean soft Dice of the heads that have a decided voxel.

    .. math:: D_h = \frac{2\sum_x u_x m_{hx} p_{hx} t_{hx} + s}{\sum_x u_x m_{hx} (p_{hx} + t_{hx}) + s}

    Head h stands for the classes :math:`R_h`. t = 1 if A is a subset of R, and t = 0 if A and R are disjoint; then
    m = 1. Otherwise the voxel is undecided for this head: m = 0, and the gradient is exactly 0. u are voxel weights.

    Parameters
    ----------
    logits
        (B, H, *P), any floating type.
    codes, label_sets
        (B, *P) integers < N and (B, N, K) bool.
    regions
        (H, K) bool: sigmoid, and all heads count. None: softmax over H = K classes, without the background in the mean.
    batch
        Whether sums are pooled over the batch and over ranks before dividing. Otherwise there is one Dice per sample
        and head.
    smooth
        s, in voxels.
    voxel_weights
        (B, *P) non-negative weight of each voxel. A voxel of weight 0 counts as unannotated. None: all 1.
    all_reduce
        Sums over ranks, see :data:`AllReduce`.

    Returns
    -------
    Tensor
        Scalar float32 in [0, 1]. 0 with zero gradients if no head has a decided voxel of weight > 0.

    Notes
    -----
    Source: nnU-Net ``training/loss/dice.py`` (``MemoryEfficientSoftDiceLoss``). For dense targets this loss is 1 plus
    nnU-Net's value. Differs: a (sample, head) pair without a decided voxel is left out of the mean, where nnU-Net
    counts a perfect 1; and voxels are masked separately for each head.
    """
    if regions is None:
        sums = softmax_sums(logits, codes, label_sets, None, voxel_weights).heads(1)
    else:
        sums = sigmoid_sums(logits, codes, label_sets, regions, None, voxel_weights)
    return _dice(sums, batch, smooth, all_reduce)


def label_set_bce(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    regions: Tensor,
    *,
    weights: Tensor | None = None,
    voxel_weights: Tensor | None = None,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    """Binary cross entropy of region heads, averaged over decided (voxel, region) pairs.

    Parameters
    ----------
    logits
        (B, R, *P), any floating type.
    codes, label_sets
        (B, *P) integers < N and (B, N, K) bool.
    regions
        (R, K) bool.
    weights
        (R,) non-negative weights of the regions; the mean is weighted by them. None: all 1.
    voxel_weights
        (B, *P) non-negative weight of each voxel. A voxel of weight 0 counts as unannotated. None: all 1.
    all_reduce
        Sums over ranks, see :data:`AllReduce`.

    Returns
    -------
    Tensor
        Scalar float32. 0 with zero gradients if no pair is decided.

    Notes
    -----
    Source: nnU-Net ``DC_and_BCE_loss``. Differs in the divisor: with an ignore label, nnU-Net divides the sum over R
    regions by the number of voxels, so that the loss is R times larger than without the label.
    """
    sums = sigmoid_sums(logits, codes, label_sets, regions, weights, voxel_weights)
    return _mean(sums.likelihood, sums.weight, all_reduce)


class VoxelLoss(Protocol):
    """Loss at one resolution, with the arguments that training gives."""

    def __call__(
        self, logits: Tensor, codes: Tensor, label_sets: Tensor, voxel_weights: Tensor | None = None, /
    ) -> Tensor:
        """Return the scalar loss of logits (B, H, *P), codes (B, *P) integers < N and label sets (B, N, K) bool.

        ``voxel_weights`` (B, *P) are non-negative weights; None: all 1.
        """


class LabelSetLoss:
    """Training loss: Dice + cross entropy for classes, Dice + binary cross entropy for regions.

    Parameters
    ----------
    regions
        (R, K) bool, or None for a softmax over classes.
    batch_dice
        Whether the Dice sums are pooled over the batch (and ranks).
    all_reduce
        Sums over ranks, see :data:`AllReduce`.
    weights
        (H,) weights of the classes or regions in the cross entropy, which is divided by their sum over the voxels that
        it counts. The Dice is not weighted. None: all 1.
    smooth
        Smoothing term of the Dice, in voxels.
    """

    def __init__(
        self,
        regions: Tensor | BoolArray | None,
        batch_dice: bool,
        all_reduce: AllReduce = no_reduction,
        *,
        weights: Tensor | None = None,
        smooth: float = 1e-5,
    ) -> None:
        self.regions = None if regions is None else torch.as_tensor(regions)
        self.batch_dice = batch_dice
        self.weights = weights
        self.smooth = smooth
        self.all_reduce = all_reduce

    def __call__(
        self, logits: Tensor, codes: Tensor, label_sets: Tensor, voxel_weights: Tensor | None = None
    ) -> Tensor:
        """Return the scalar loss of logits (B, H, *P), codes (B, *P) and label sets (B, N, K).

        ``voxel_weights`` (B, *P) are non-negative weights in both terms; None: all 1.
        """
        if self.regions is None:
            sums = softmax_sums(logits, codes, label_sets, self.weights, voxel_weights).heads(1)
        else:
            sums = sigmoid_sums(logits, codes, label_sets, self.regions, self.weights, voxel_weights)
        likelihood = _mean(sums.likelihood, sums.weight, self.all_reduce)
        return likelihood + _dice(sums, self.batch_dice, self.smooth, self.all_reduce)


def _dice(sums: LossSums, batch: bool, smooth: float, all_reduce: AllReduce) -> Tensor:
    """Return the scalar Dice loss for sums (B, H)."""
    overlap, total, known = sums.overlap, sums.predicted + sums.true, sums.known  # (B, H)
    if batch:
        overlap, total, known = all_reduce(torch.stack([overlap.sum(0), total.sum(0), known.sum(0)]))
    dice = (2 * overlap + smooth) / (total + smooth).clamp_min(1e-8)
    loss = torch.where(known > 0, 1 - dice, 0.0).sum()
    return _mean(loss, (known > 0).sum(), no_reduction if batch else all_reduce)


def _mean(loss: Tensor, weight: Tensor, all_reduce: AllReduce) -> Tensor:
    """Return the sum over ranks of the scalar ``loss`` divided by that of the scalar ``weight``; 0 if that is 0."""
    sums = all_reduce(torch.stack([loss, weight.to(loss)]))
    return sums[0] / torch.where(sums[1] > 0, sums[1], 1.0)
