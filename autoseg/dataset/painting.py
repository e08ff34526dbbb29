"""How predicted regions become one class per voxel, and whether every region comes back from that.

nnU-Net paints the classes of ``regions_class_order`` one over the other (``label_handling.py``), which gives all
regions back only if large ones come first and all of them nest. We paint a combination of regions that some class has
of its own with that class, and only other combinations in order. Where nnU-Net's rule gives all regions back, both
are the same.
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
    """The rule of one data set."""

    regions: BoolArray
    """(H, K): the classes that each region stands for; class 0 is background, in no region."""
    order: tuple[int, ...]
    """Class painted for each region, in order: later over earlier."""

    def in_order(self, combinations: BoolArray) -> ClassArray:
        """(N,) class that nnU-Net's rule paints for each combination (N, H) of regions; 0 without any region."""
        painted = np.zeros(len(combinations), dtype=np.intp)
        for painted_class, chosen in zip(self.order, combinations.T, strict=True):
            painted[chosen] = painted_class
        return painted

    @cached_property
    def returned_in_order(self) -> ClassArray:
        """(K,) class as which nnU-Net's rule gives each class back whose regions are predicted without mistake."""
        return self.in_order(self.regions.T)

    @cached_property
    def is_sound(self) -> bool:
        """Whether nnU-Net's rule gives every region back from a prediction without mistake."""
        return bool((self.regions[:, self.returned_in_order] == self.regions).all())

    @cached_property
    def returned(self) -> ClassArray:
        """(K,) class as which our rule gives each class back: itself, or another one of exactly the same regions.

        Of several classes with the same regions that comes back which nnU-Net's rule paints, else the first one that
        is in the order, else the first.
        """
        back = self.returned_in_order.copy()
        wrong = np.flatnonzero((self.regions[:, back] != self.regions).any(axis=0))
        for index in wrong.tolist():
            same = np.flatnonzero((self.regions == self.regions[:, [index]]).all(axis=0)).tolist()
            back[index] = min(same, key=lambda item: (item not in self.order, item))
        return back

    @cached_property
    def steps(self) -> tuple[tuple[NDArray[np.int32], ...], ClassArray]:
        """How the combinations are found that are not painted in order: a table per region, and the classes.

        Begin in state 1; each region leads from state s to ``table[2 * s + (1 if it is predicted else 0)]``. State 0
        is none of these combinations; the last state s is class ``classes[s]``. Takes one look-up per region, however
        many combinations there are.
        """
        missed = np.flatnonzero(self.returned != self.returned_in_order)
        combinations, first = np.unique(self.regions.T[missed], axis=0, return_index=True)
        states = np.ones(len(combinations), dtype=np.int32)
        tables = []
        for bits in combinations.T:
            kept, following = np.unique(2 * states + bits, return_inverse=True)
            table = np.zeros(2 * int(states.max(initial=1)) + 2, dtype=np.int32)
            table[kept] = np.arange(1, len(kept) + 1)
            states = (following + 1).astype(np.int32)
            tables.append(table)
        classes = np.zeros(len(combinations) + 1, dtype=np.intp)
        classes[states] = self.returned[missed[first]]
        return tuple(tables), classes


def paint(logits: NDArray[np.floating[Any]], painting: Painting, values: NDArray[Any]) -> NDArray[Any]:
    """Return the file value (*S) of every voxel; ``values`` (K,) are those of the classes, and give the type.

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
    """Return regions and the classes to paint, in an order with which nnU-Net's rule gives all regions back.

    None if no order does.

    Parameters
    ----------
    regions
        (H, K). Where the order of the regions is sound with fitting classes, it is kept.

    Notes
    -----
    What is painted last stays, so the classes of the last region must be in exactly the same regions. Without these
    classes the same holds for the region before it, and so on. Taking any region that fits never harms: fewer classes
    are left for the others.
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
    """Return the class of a region that is in the fewest regions, the first of them."""
    return min(np.flatnonzero(regions[region]).tolist(), key=lambda index: (int(regions[:, index].sum()), index))


def dice_of_regions(regions: BoolArray, returned: ClassArray, voxels: Sequence[int]) -> list[float | None]:
    """Return the Dice of each region if every voxel of class k comes back as class ``returned[k]``.

    ``voxels`` (K,): of each class. None for a region without a voxel before and after.
    """
    numbers, after = np.asarray(voxels, dtype=np.int64), regions[:, returned]
    both, total = (regions & after) @ numbers, regions @ numbers + after @ numbers
    return [2 * int(hits) / int(all_) if all_ else None for hits, all_ in zip(both, total, strict=True)]


def _are_alike(columns: BoolArray) -> bool:
    return bool((columns == columns[:, :1]).all())
