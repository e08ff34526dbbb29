"""Dice of each class or region from counts of voxels: the online score of the tasks that segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def dice_per_head(counts: Tensor) -> list[float | None]:
    """Return the Dice of each head from counts (3, H): true positives, false positives and false negatives.

    None for a head that neither reference nor prediction shows on decided voxels.
    """
    dice: list[float | None] = []
    for true_positive, false_positive, false_negative in counts.T.tolist():
        total = 2 * true_positive + false_positive + false_negative
        dice.append(2 * true_positive / total if total else None)
    return dice
