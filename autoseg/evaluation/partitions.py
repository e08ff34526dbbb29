"""Agreement of two divisions of the same voxels into objects: variation of information and adapted Rand error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.evaluation.contingency import Contingency, sizes_of


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """Sums over the voxels, and over the pairs of voxels, of a case. Counts of several cases add up."""

    n_voxels: int = 0
    """Decided voxels."""
    split_bits: float = 0.0
    """Sum over voxels of log2(size of the object in the reference / its overlap with the predicted object)."""
    merge_bits: float = 0.0
    """The same with the size of the predicted object."""
    pairs_both: float = 0.0
    """Pairs of voxels of reference objects that lie in one object of the reference, and in one of the prediction."""
    pairs_predicted: float = 0.0
    """Pairs of voxels of reference objects that lie in one object of the prediction."""
    pairs_reference: float = 0.0
    """Pairs of voxels of reference objects that lie in one object of the reference."""

    def __add__(self, other: PartitionCounts) -> PartitionCounts:
        return PartitionCounts(
            self.n_voxels + other.n_voxels,
            self.split_bits + other.split_bits,
            self.merge_bits + other.merge_bits,
            self.pairs_both + other.pairs_both,
            self.pairs_predicted + other.pairs_predicted,
            self.pairs_reference + other.pairs_reference,
        )

    @property
    def split(self) -> float | None:
        """Entropy of the prediction given the reference, bits per voxel, 0 without a split; None without voxels."""
        return _ratio(self.split_bits, self.n_voxels)

    @property
    def merge(self) -> float | None:
        """Entropy of the reference given the prediction, bits per voxel, 0 without a merge; None without voxels."""
        return _ratio(self.merge_bits, self.n_voxels)

    @property
    def precision(self) -> float | None:
        """Share of the predicted pairs that the reference has too, 0 to 1; None without a predicted pair."""
        return _ratio(self.pairs_both, self.pairs_predicted)

    @property
    def recall(self) -> float | None:
        """Share of the reference's pairs that the prediction has too, 0 to 1; None without a pair in the reference."""
        return _ratio(self.pairs_both, self.pairs_reference)

    @property
    def rand_error(self) -> float | None:
        """1 - harmonic mean of precision and recall, 0 to 1; None without a pair in reference or prediction."""
        agreement = _ratio(2 * self.pairs_both, self.pairs_predicted + self.pairs_reference)
        return None if agreement is None else 1 - agreement


def count_partitions(table: Contingency) -> PartitionCounts:
    """Return the sums from which variation of information and adapted Rand error follow; all 0 without voxels.

    Variation of information is over all decided voxels, and background is an object like any other in both maps. The
    Rand error is over the voxels of reference objects. Those of them that are predicted as background are in no
    predicted object, so that an object that is not found lowers recall.

    Notes
    -----
    Source: Meila 2007 (doi 10.1016/j.jmva.2006.11.013) and Arganda-Carreras et al. 2015 (doi 10.3389/fnana.2015.00142),
    with the background of SNEMI3D's evaluation. scikit-image's ``variation_of_information`` and
    ``adapted_rand_error`` give the same numbers; the latter takes all voxels that are predicted as background for one
    object, by which an empty prediction of one object has no error. SNEMI3D also counts each voxel as a pair with
    itself.
    """
    _, places, sizes = sizes_of(table.predicted, table.voxels)
    _, true_places, true_sizes = sizes_of(table.reference, table.voxels)
    within = table.reference != 0
    both = within & (table.predicted != 0)
    return PartitionCounts(
        n_voxels=int(table.voxels.sum()),
        split_bits=float((table.voxels * np.log2(true_sizes[true_places] / table.voxels)).sum()),
        merge_bits=float((table.voxels * np.log2(sizes[places] / table.voxels)).sum()),
        pairs_both=_pairs(table.voxels[both].astype(np.float64)),
        pairs_predicted=_pairs(sizes_of(table.predicted[both], table.voxels[both])[2]),
        pairs_reference=_pairs(sizes_of(table.reference[within], table.voxels[within])[2]),
    )


def _pairs(sizes: NDArray[np.float64]) -> float:
    """Return the number of pairs of voxels within objects of these sizes."""
    return float((sizes * (sizes - 1)).sum() / 2)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
