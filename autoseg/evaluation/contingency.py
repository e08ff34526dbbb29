"""Contingency table of two maps of objects: the voxels of each pair, which all scores of objects follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from autoseg.core.arrays import BoolArray

Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Contingency:
    """Numbers of voxels of each pair of an object of a prediction and one of a reference; background is object 0.

    Tables of several parts of a case add up, if an object has the same number in all of them. Only pairs that overlap
    are kept, so memory grows with the objects, not with the product of their numbers.
    """

    predicted: Integers
    """(P,) number of the object in the prediction."""
    reference: Integers
    """(P,) number of the object in the reference; each pair occurs once."""
    voxels: Integers
    """(P,) voxels that both share, at least 1."""

    @classmethod
    def of(
        cls,
        prediction: NDArray[np.integer[Any]],
        reference: NDArray[np.integer[Any]],
        decided: BoolArray | None = None,
    ) -> Contingency:
        """Return the table of two maps.

        Parameters
        ----------
        prediction, reference
            (*S) numbers of objects, 0 for background, any integers. Equal numbers are one object, connected or not.
        decided
            (*S) mask of voxels that the reference decides; None: all. Other voxels are not counted.
        """
        is_object = (prediction != 0) | (reference != 0)
        n_decided = is_object.size
        if decided is not None:
            is_object &= decided
            n_decided = int(np.count_nonzero(decided))
        predicted, drawn = (np.append(values[is_object].astype(np.int64), 0) for values in (prediction, reference))
        voxels = np.ones(len(predicted), dtype=np.int64)
        voxels[-1] = n_decided - (len(voxels) - 1)  # those that are background in both, which need no sorting
        return _summed(predicted, drawn, voxels)

    def __add__(self, other: Contingency) -> Contingency:
        return _summed(
            np.concatenate((self.predicted, other.predicted)),
            np.concatenate((self.reference, other.reference)),
            np.concatenate((self.voxels, other.voxels)),
        )


def sizes_of(numbers: Integers, voxels: Integers) -> tuple[Integers, NDArray[np.intp], NDArray[np.float64]]:
    """Return numbers (n,) of one map's objects in a table, places (P,) of pairs among them, and sizes (n,) in voxels.

    Background is one of them, if it occurs.
    """
    values, places = np.unique(numbers, return_inverse=True)
    sizes = np.bincount(places, weights=voxels, minlength=len(values))
    return values, places, sizes.astype(np.float64)


def _summed(predicted: Integers, reference: Integers, voxels: Integers) -> Contingency:
    """Return the table in which the voxels of equal pairs are summed; pairs without voxels are left out."""
    rows, row = np.unique(predicted, return_inverse=True)
    columns, column = np.unique(reference, return_inverse=True)
    table = sparse.coo_array((voxels, (row, column)), shape=(len(rows), len(columns))).tocsr().tocoo()
    is_kept = table.data > 0
    return Contingency(rows[table.row[is_kept]], columns[table.col[is_kept]], table.data[is_kept])
