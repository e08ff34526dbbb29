"""The weak prior that a voxel of which nobody said anything is more likely background than not.

Inferred evidence, kept apart from what was drawn: a term of its own with its own normalisation, which steps back as
soon as a drawn class is no longer found.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.core.case import BoolArray
from autoseg.nn.coded import flat_codes, head_states, look_up, sum_by_code
from autoseg.nn.losses import AllReduce, no_reduction

POWER = 0.7
"""Between 0, the cross entropy, and 1, the mean absolute error. Source: Zhang & Sabuncu 2018 (arXiv 1805.07836)."""


def background_prior(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    regions: Tensor | BoolArray | None = None,
    *,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    r"""Generalised cross entropy towards background, averaged over the voxels of which nothing is known.

    .. math:: L = \frac{1}{|U|} \sum_{x \in U} \frac{1 - b(x)^q}{q}

    with U the unknown voxels (label set: all classes) of the batch and of all ranks, and b the probability of
    background: the softmax's, or the mean over regions of one minus the sigmoid. The gradient carries a factor
    :math:`b^q`: a voxel that looks like annotated foreground to the network is hardly moved, one on which it has no
    opinion is. So the prior fills in what nobody mentioned and does not take back what was drawn.

    Parameters
    ----------
    logits
        (B, K, *P) or, with ``regions``, (B, R, *P); any floating type.
    codes, label_sets
        (B, *P) integers < N and (B, N, K) bool.
    regions
        (R, K) bool, or None for a softmax over classes.
    all_reduce
        Sums over ranks.

    Returns
    -------
    Tensor
        Scalar float32 in [0, 1 / q]; 0 with zero gradients if everything is known.
    """
    sets = label_sets.to(logits.device, non_blocking=True)
    is_unknown = look_up(sets.all(2), flat_codes(codes)).float()  # (B, V)
    scores = logits.flatten(2).float()
    if regions is None:
        losses = (1 - (POWER * scores.log_softmax(1)[:, 0]).exp()) / POWER
    else:
        losses = ((1 - (-POWER * torch.nn.functional.softplus(scores)).exp()) / POWER).mean(1)
    sums = all_reduce(torch.stack([(losses * is_unknown).sum(), is_unknown.sum()]))
    return sums[0] / sums[1].clamp_min(1)


@torch.no_grad()
def lowest_recall(
    logits: Tensor,
    codes: Tensor,
    label_sets: Tensor,
    regions: Tensor | BoolArray | None = None,
    *,
    all_reduce: AllReduce = no_reduction,
) -> Tensor:
    """Soft recall, on drawn voxels of the batch, of the foreground head that is found worst: a scalar in [0, 1].

    Recall of a head is the mean probability that it has on the voxels drawn as it. Heads without such a voxel do not
    count; 0 if there is none at all, for then nothing tells whether the prior does harm. Parameters as in
    :func:`background_prior`.
    """
    sets = label_sets.to(logits.device, non_blocking=True)
    n_codes, n_classes = sets.shape[1:]
    scores = logits.flatten(2).float()
    probabilities = scores.softmax(1) if regions is None else scores.sigmoid()
    heads = torch.eye(n_classes, dtype=torch.bool) if regions is None else torch.as_tensor(regions)
    first = 1 if regions is None else 0  # softmax: without background
    positive, _ = head_states(sets, heads.to(sets.device))
    sums, counts = sum_by_code(probabilities, flat_codes(codes), n_codes)
    found = (sums * positive).sum((0, 1))[first:]
    drawn = (counts[..., None] * positive).sum((0, 1))[first:]
    found, drawn = all_reduce(torch.stack([found, drawn]))
    recall = torch.where(drawn > 0, found / drawn.clamp_min(1), 1.0)
    lowest: Tensor = recall.min() * (drawn > 0).any()
    return lowest
