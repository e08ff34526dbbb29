"""Losses on label sets: cross entropy, soft Dice and binary cross entropy of targets that are only partly known.

All three take codes and a table of label sets (``autoseg.core.labels``), see nothing where nothing is known, and
divide by counts of what is known in the whole batch and, through ``all_reduce``, on all ranks. Arithmetic is float32
whatever the type of the logits; call them inside or outside autocast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from autoseg.core.case import BoolArray
from autoseg.nn.coded import flat_codes, head_states, informative_codes, look_up, look_up_heads, sum_by_code
from autoseg.nn.set_likelihood import sum_of_set_losses

AllReduce = Callable[[Tensor], Tensor]
"""Sums a tensor over ranks, differentiably: :func:`autoseg.nn.ranks.sum_over_ranks`."""

NOT_SINGLE = -100
"""Class index of a code that is not one class; skipped by the plain cross entropy."""


def no_reduction(sums: Tensor) -> Tensor:
    """Return ``sums``: the ``all_reduce`` of a single process."""
    return sums


def label_set_cross_entropy(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    *,
    weights: Tensor | None = None,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    r"""Cross entropy of "the class is one of A(x)", averaged over informative voxels.

    .. math:: L = \frac{\sum_x w(A_x) \, [\mathrm{lse}_{all}(z_x) - \mathrm{lse}_{A_x}(z_x)]}{\sum_x w(A_x)}

    over all informative voxels x (A neither empty nor all classes) of the batch and of all ranks. A = {k} is the
    ordinary cross entropy, A = all but k is :math:`-\log(1-p_k)`; an uninformative voxel has loss and gradient exactly
    0. The gradient, :math:`p_j - 1[j \in A] \, p_j / p(A)`, is bounded by 1 per voxel.

    Parameters
    ----------
    logits
        (B, K, *P), any floating type.
    codes
        (B, *P) integers < N.
    label_sets
        (B, N, K) bool; may stay on the CPU when the logits are not there (then nothing waits for the device unless
        there are sets of several classes).
    weights
        (K,) non-negative class weights; a set weighs the mean of its members. None: all 1.
    all_reduce
        Sums over ranks, see :data:`AllReduce`.

    Returns
    -------
    Tensor
        Scalar float32; 0 with zero gradients (and connected to the graph) if no voxel is informative.

    Notes
    -----
    Source: marginal loss (Shi et al. 2021, arXiv 2007.03868), label-set losses (Fidon et al. 2021, arXiv 2107.03846),
    ELEKTRONN's lazy labels. Differs from the latter in that weights stand outside the logarithm, no epsilon dims the
    gradient, and several excluded classes are excluded jointly.
    """
    sets = label_sets.to(logits.device, non_blocking=True)
    return _cross_entropy(_log_softmax(logits), flat_codes(codes), label_sets, sets, weights, all_reduce)


def label_set_dice(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    *,
    regions: Tensor | None = None,
    batch: bool = False,
    smooth: float = 1e-5,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    r"""One minus the mean soft Dice over heads that have a decided voxel.

    .. math:: D_h = \frac{2\sum_x m_{hx} p_{hx} t_{hx} + s}{\sum_x m_{hx} (p_{hx} + t_{hx}) + s}

    Head h stands for the classes :math:`R_h`; t = 1 where A is inside R, t = 0 where A and R are disjoint, else the
    voxel is undecided for this head: m = 0, gradient exactly 0.

    Parameters
    ----------
    logits
        (B, H, *P), any floating type.
    codes, label_sets
        (B, *P) integers < N and (B, N, K) bool.
    regions
        (H, K) bool: sigmoid, all heads count. None: softmax over H = K classes, the background is left out.
    batch
        Pool sums over the batch and over ranks before dividing; else one Dice per sample and head.
    smooth
        s, in voxels.
    all_reduce
        Sums over ranks, see :data:`AllReduce`.

    Returns
    -------
    Tensor
        Scalar float32 in [0, 1]; 0 with zero gradients if no head has a decided voxel.

    Notes
    -----
    Source: nnU-Net ``training/loss/dice.py`` (``MemoryEfficientSoftDiceLoss``); equals 1 plus its value on dense
    targets. Differs in that a (sample, head) pair without a decided voxel leaves the mean, where nnU-Net counts a
    perfect 1, and in that lazy labels and sets mask per head.
    """
    sets = label_sets.to(logits.device, non_blocking=True)
    scores = logits.flatten(2).float()
    probabilities = scores.softmax(1) if regions is None else scores.sigmoid()
    return _dice(probabilities, flat_codes(codes), sets, regions, batch, smooth, all_reduce)


def label_set_bce(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    regions: Tensor,
    *,
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
    all_reduce
        Sums over ranks, see :data:`AllReduce`.

    Returns
    -------
    Tensor
        Scalar float32; 0 with zero gradients if no pair is decided.

    Notes
    -----
    Source: nnU-Net ``DC_and_BCE_loss``. Differs in the divisor: with an ignore label nnU-Net divides the sum over R
    regions by the number of voxels, so that declaring the label multiplies the loss by R; here nothing changes.
    """
    sets = label_sets.to(logits.device, non_blocking=True)
    return _binary_cross_entropy(logits.flatten(2).float(), flat_codes(codes), sets, regions, all_reduce)


class PartialLoss:
    """The training loss: Dice + cross entropy for classes, Dice + binary cross entropy for regions.

    Parameters
    ----------
    regions
        (R, K) bool, or None for a softmax over classes.
    batch_dice
        Pool the Dice sums over the batch (and ranks).
    weights
        (K,) class weights of the cross entropy; not used with regions.
    smooth
        Of the Dice, in voxels.
    all_reduce
        Sums over ranks, see :data:`AllReduce`.
    """

    def __init__(
        self,
        regions: Tensor | BoolArray | None,
        batch_dice: bool,
        *,
        weights: Tensor | None = None,
        smooth: float = 1e-5,
        all_reduce: AllReduce = no_reduction,
    ) -> None:
        self.regions = None if regions is None else torch.as_tensor(regions)
        self.batch_dice = batch_dice
        self.weights = weights
        self.smooth = smooth
        self.all_reduce = all_reduce

    def __call__(self, logits: Tensor, codes: Tensor, label_sets: Tensor) -> Tensor:
        """Return the scalar loss of logits (B, H, *P), codes (B, *P) and label sets (B, N, K)."""
        sets = label_sets.to(logits.device, non_blocking=True)
        voxels = flat_codes(codes)
        if self.regions is None:
            log_probabilities = _log_softmax(logits)
            likelihood = _cross_entropy(log_probabilities, voxels, label_sets, sets, self.weights, self.all_reduce)
            probabilities = log_probabilities.exp()
        else:
            scores = logits.flatten(2).float()
            likelihood = _binary_cross_entropy(scores, voxels, sets, self.regions, self.all_reduce)
            probabilities = scores.sigmoid()
        return likelihood + _dice(
            probabilities, voxels, sets, self.regions, self.batch_dice, self.smooth, self.all_reduce
        )


def _log_softmax(logits: Tensor) -> Tensor:
    """Log probabilities (B, K, V) float32."""
    return logits.flatten(2).float().log_softmax(1)


def _cross_entropy(
    log_probabilities: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    sets: Tensor,
    weights: Tensor | None,
    all_reduce: AllReduce,
) -> Tensor:
    """``label_sets`` is the caller's table (asked what occurs), ``sets`` the same on the device of the logits."""
    size = sets.sum(2)
    is_informative = informative_codes(sets)
    if weights is not None:
        weights = weights.to(log_probabilities)
    code_weights = is_informative.float() if weights is None else _mean_weight(sets, weights) * is_informative
    classes = torch.where(is_informative & (size == 1), sets.to(torch.uint8).argmax(2), NOT_SINGLE)
    loss = functional.nll_loss(
        log_probabilities, look_up(classes, codes), weight=weights, ignore_index=NOT_SINGLE, reduction="sum"
    )
    if (informative_codes(label_sets) & (label_sets.sum(2) > 1)).any():
        is_set = look_up(is_informative & (size > 1), codes)  # (B, V)
        loss = loss + sum_of_set_losses(log_probabilities, codes, sets, code_weights, is_set)
    return _mean(loss, look_up(code_weights, codes).sum(), all_reduce)


def _mean_weight(sets: Tensor, weights: Tensor) -> Tensor:
    """(B, N): mean weight of the members of each set, 0 for an empty one."""
    return (sets * weights).sum(2) / sets.sum(2).clamp_min(1)


def _dice(
    probabilities: Tensor,
    codes: Tensor,
    sets: Tensor,
    regions: Tensor | None,
    batch: bool,
    smooth: float,
    all_reduce: AllReduce,
) -> Tensor:
    n_codes, n_classes = sets.shape[1:]
    heads = torch.eye(n_classes, dtype=torch.bool) if regions is None else regions
    first = 1 if regions is None else 0  # softmax: without background
    positive, negative = head_states(sets, heads.to(sets.device))
    positive, decided = positive[..., first:], (positive | negative)[..., first:]  # (B, N, H)
    sums, counts = sum_by_code(probabilities, codes, n_codes)
    sums, counts = sums[..., first:], counts[..., None]
    overlap = (sums * positive).sum(1)  # (B, H), and so on
    total = (sums * decided + counts * positive).sum(1)
    known = (counts * decided).sum(1)
    if batch:
        overlap, total, known = all_reduce(torch.stack([overlap.sum(0), total.sum(0), known.sum(0)]))
    dice = (2 * overlap + smooth) / (total + smooth).clamp_min(1e-8)
    loss = torch.where(known > 0, 1 - dice, 0.0).sum()
    return _mean(loss, (known > 0).sum(), no_reduction if batch else all_reduce)


def _binary_cross_entropy(
    scores: Tensor, codes: Tensor, sets: Tensor, regions: Tensor, all_reduce: AllReduce
) -> Tensor:
    positive, negative = head_states(sets, regions.to(sets.device))
    decided = look_up_heads((positive | negative).to(scores), codes)  # (B, R, V)
    target = look_up_heads(positive.to(scores), codes)
    loss = functional.binary_cross_entropy_with_logits(scores, target, weight=decided, reduction="sum")
    return _mean(loss, decided.sum(), all_reduce)


def _mean(loss: Tensor, weight: Tensor, all_reduce: AllReduce) -> Tensor:
    """Divide the sum over ranks of ``loss`` by that of ``weight``; 0 where the latter is 0."""
    sums = all_reduce(torch.stack([loss, weight.to(loss)]))
    return sums[0] / torch.where(sums[1] > 0, sums[1], 1.0)
