"""Agreement of experts, with the fused labels and with each other, as Dice scores per class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.fusion import Fusion
from autoseg.annotation.staple import Float64Array
from autoseg.annotation.votes import NO_VOTE, VotePatterns


def dice_with_fusion(fusion: Fusion) -> Float64Array:
    """Return (E, K), 0 to 1: Dice of the labels of each expert and the fused labels.

    Only voxels count that the expert labelled and that the fusion decided. NaN for a class that is in neither.
    """
    classes = _decided_classes(fusion)
    return np.stack(
        [_dice(votes, classes, fusion.patterns.counts, fusion.patterns.n_classes) for votes in fusion.patterns.votes.T]
    )


def dice_between_experts(patterns: VotePatterns) -> Float64Array:
    """Return (E, E, K), 0 to 1: Dice of the labels of two experts, over the voxels that both labelled.

    NaN for a class that neither of them named there.
    """
    columns = patterns.votes.T
    rows = [[_dice(one, other, patterns.counts, patterns.n_classes) for other in columns] for one in columns]
    return np.array(rows).reshape(len(columns), len(columns), patterns.n_classes)


def foreground_mean(dice: Float64Array) -> Float64Array:
    """Return the mean over foreground classes of scores (..., K), class 0 being background; NaN where all are NaN.

    With a single class it is that of the only class.
    """
    foreground = dice[..., 1:] if dice.shape[-1] > 1 else dice
    is_there = ~np.isnan(foreground)
    total = np.where(is_there, foreground, 0.0).sum(axis=-1)
    number = is_there.sum(axis=-1)
    mean: Float64Array = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean


def _decided_classes(fusion: Fusion) -> NDArray[np.int64]:
    """Return (P,) the class of each pattern of votes, ``NO_VOTE`` where the fusion leaves several classes."""
    is_class = fusion.code_of < fusion.patterns.n_classes
    return np.where(is_class, fusion.code_of, NO_VOTE)


def _dice(one: NDArray[np.int64], other: NDArray[np.int64], counts: NDArray[np.int64], n_classes: int) -> Float64Array:
    """Return (K,) Dice of two classifications (P,) of patterns that stand for ``counts`` (P,) voxels."""
    both = (one != NO_VOTE) & (other != NO_VOTE)
    one, other, counts = one[both], other[both], counts[both]
    common = np.bincount(one[one == other], counts[one == other], minlength=n_classes)
    total = np.bincount(one, counts, minlength=n_classes) + np.bincount(other, counts, minlength=n_classes)
    dice: Float64Array = np.divide(2 * common, total, out=np.full(n_classes, np.nan), where=total > 0)
    return dice
