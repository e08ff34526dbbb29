"""Conversion of predicted regions to one class per voxel, and the check that every region is recovered from it.

nnU-Net paints the classes of ``regions_class_order`` one over the other (``label_handling.py``). That recovers all
regions only if large regions come first and all of them nest. Here a combination of regions that are exactly the
regions of a class gets that class; only other combinations are painted in order. If nnU-Net's rule recovers all
regions, both rules give the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray

ClassArray = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Painting:
    """The conversion of the regions of one data set."""

    regions: BoolArray
    """(H, K) bool: the classes of each region; class 0 is background, in no region."""
    order: tuple[int, ...]
    """Index of the class painted for each region, in order: later over earlier."""

    def in_order(self, combinations: BoolArray) -> ClassArray:
        """Return (N,) class that nnU-Net's rule paints for each combination (N, H) of regions; 0 without any region."""
        painted = np.zeros(len(combinations), dtype=np.intp)
        for painted_class, chosen in zip(self.order, combinations.T, strict=True):
            painted[chosen] = painted_class
        return painted

    @cached_property
    def returned_in_order(self) -> ClassArray:
        """(K,) class that nnU-Net's rule paints for the regions of each class."""
        return self.in_order(self.regions.T)

    @cached_property
    def is_sound(self) -> bool:
        """Whether nnU-Net's rule recovers every region from a correct prediction."""
        return bool((self.regions[:, self.returned_in_order] == self.regions).all())

    @cached_property
    def returned(self) -> ClassArray:
        """(K,) class that our rule paints for the regions of each class: itself, or another class of the same regions.

        Of several classes with the same regions it is the one that nnU-Net's rule paints, otherwise the first one in
        ``order``, otherwise the first one.
        """
        back = self.returned_in_order.copy()
        wrong = np.flatnonzero((self.regions[:, back] != self.regions).any(axis=0))
        for index in wrong.tolist():
            same = np.flatnonzero((self.regions == self.regions[:, [index]]).all(axis=0)).tolist()
            back[index] = min(same, key=lambda item: (item not in self.order, item))
        return back

    @cached_property
    def steps(self) -> tuple[tuple[NDArray[np.int32], ...], ClassArray]:
        """Tables (n,) int32, one per region, and classes (m,), that find the combinations not painted in order.

        Start in state 1; each region leads from state s to ``table[2 * s + (1 if it is predicted else 0)]``. State 0
        means none of these combinations; a last state s means class ``classes[s]``. This takes one look-up per region,
        for any number of combinations.
        """
        missed = np.flatnonzero(self.returned != self.returned_in_order)
        combinations, first = np.unique(self.regions.T[missed], axis=0, return_index=True)
        states = np.ones(len(combinations), dtype=np.int32)
        tables = []
        for bits in combinations.T:
            indices, following = np.unique(2 * states + bits, return_inverse=True)
            table = np.zeros(2 * int(states.max(initial=1)) + 2, dtype=np.int32)
            table[indices] = np.arange(1, len(indices) + 1)
            states = (following + 1).astype(np.int32)
            tables.append(table)
        classes = np.zeros(len(combinations) + 1, dtype=np.intp)
        classes[states] = self.returned[missed[first]]
        return tuple(tables), classes


def paint(logits: NDArray[np.floating[Any]], painting: Painting, values: NDArray[Any]) -> NDArray[Any]:
    """Return the file value (*S) of every voxel; ``values`` (K,) are those of the classes, in the dtype of the result.

    Parameters
    ----------
    logits
        (H, *S); a region is predicted where its logit is above 0.
    """
    painted = np.full(logits.shape[1:], values[0], dtype=values.dtype)
    if painting.is_sound:
        for painted_class, logit in zip(painting.order, logits, strict=True):
            painted[logit > 0] = values[painted_class]
        return painted
    tables, classes = painting.steps
    states = np.ones(logits.shape[1:], dtype=np.int32)
    for painted_class, logit, table in zip(painting.order, logits, tables, strict=True):
        predicted = logit > 0
        painted[predicted] = values[painted_class]
        states = table.take(2 * states + predicted)
    return np.where(states > 0, values[classes].take(states), painted)


def sound_order(regions: BoolArray) -> tuple[tuple[int, int], ...] | None:
    """Return (region, class to paint) pairs in an order by which nnU-Net's rule recovers all regions.

    None if there is no such order.

    Parameters
    ----------
    regions
        (H, K) bool. Their order is kept if it is sound with suitable classes.

    Notes
    -----
    The region that is painted last is not painted over, so all its classes must be in exactly the same regions. Without
    these classes the same holds for the region before it, and so on. Any region that fits may be taken next, since that
    leaves fewer classes for the others.
    """
    left = np.ones(regions.shape[1], dtype=bool)
    rest = list(range(len(regions)))
    order: list[tuple[int, int]] = []
    while rest:
        fitting = [region for region in rest if _are_alike(regions[:, regions[region] & left])]
        if not fitting:
            return None
        region = fitting[-1]
        visible = np.flatnonzero(regions[region] & left)
        order.append((region, int(visible[0]) if len(visible) else own_class(regions, region)))
        left &= ~regions[region]
        rest.remove(region)
    return tuple(reversed(order))


def own_class(regions: BoolArray, region: int) -> int:
    """Return the class of a region that is in the fewest regions, the first one on a tie; ``regions`` is (H, K)."""
    return min(np.flatnonzero(regions[region]).tolist(), key=lambda index: (int(regions[:, index].sum()), index))


def dice_of_regions(regions: BoolArray, returned: ClassArray, voxels: Sequence[int]) -> list[float | None]:
    """Return the Dice of each region (H, K) if every voxel of class k becomes class ``returned[k]`` (K,).

    ``voxels`` (K,): number of voxels of each class. None for a region without a voxel before and after.
    """
    numbers, after = np.asarray(voxels, dtype=np.int64), regions[:, returned]
    both, total = (regions & after) @ numbers, regions @ numbers + after @ numbers
    return [2 * int(hits) / int(all_) if all_ else None for hits, all_ in zip(both, total, strict=True)]


def _are_alike(columns: BoolArray) -> bool:
    """Whether all columns of an array (H, n) are equal; True for n = 0."""
    return bool((columns == columns[:, :1]).all())
