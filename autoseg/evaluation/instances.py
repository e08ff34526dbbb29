"""Matches of predicted instances with those of a reference: average precision and panoptic quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from autoseg.core.arrays import BoolArray
from autoseg.core.means import mean_known
from autoseg.evaluation.contingency import Contingency, Integers, sizes_of

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Intersection over union from which two instances match: 0.5, 0.55, ..., 0.95."""


@dataclass(frozen=True, slots=True)
class InstanceCounts:
    """Matches of the instances of one class. Counts of several cases add up."""

    matched: tuple[int, ...]
    """Number of matched pairs at each of ``THRESHOLDS``."""
    n_predicted: int
    n_reference: int
    matched_iou: float
    """Sum of the intersection over union of the pairs that match at 0.5."""

    def __add__(self, other: InstanceCounts) -> InstanceCounts:
        return InstanceCounts(
            tuple(one + two for one, two in zip(self.matched, other.matched, strict=True)),
            self.n_predicted + other.n_predicted,
            self.n_reference + other.n_reference,
            self.matched_iou + other.matched_iou,
        )

    def average_precision(self, threshold: float = 0.5) -> float | None:
        """Return ``TP / (TP + FP + FN)`` at one of ``THRESHOLDS``, 0 to 1; None without any instance."""
        matched = self.matched[THRESHOLDS.index(threshold)]
        either = self.n_predicted + self.n_reference - matched
        return matched / either if either else None

    @property
    def mean_average_precision(self) -> float | None:
        """Mean of the average precision over ``THRESHOLDS``, 0 to 1; None without any instance."""
        return mean_known(self.average_precision(threshold) for threshold in THRESHOLDS)

    @property
    def panoptic_quality(self) -> float | None:
        """``sum of IoU / (TP + FP / 2 + FN / 2)`` at 0.5, 0 to 1; None without any instance."""
        either = (self.n_predicted + self.n_reference) / 2
        return self.matched_iou / either if either else None


def match_instances(
    prediction: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]], decided: BoolArray | None = None
) -> InstanceCounts:
    """Match the instances of two maps one to one, so that as many as possible match at each threshold.

    Parameters
    ----------
    prediction, reference
        (*S) numbers of instances, 0 for background, any integers. Equal numbers are one instance, connected or not.
    decided
        (*S) mask of voxels that the reference decides; None: all. At other voxels there are no instances, so nothing
        depends on what is predicted there.

    Notes
    -----
    Source: average precision of StarDist ``matching.py`` and cellpose ``metrics.py``, panoptic quality of Kirillov et
    al., arXiv 1801.00868. Only pairs that overlap are looked at, so the time grows with voxels, not with the product of
    the numbers of instances.
    """
    return count_matches(Contingency.of(prediction, reference, decided))


def count_matches(table: Contingency) -> InstanceCounts:
    """Return the matches of the instances of a table, as :func:`match_instances` does."""
    overlaps = _overlaps(table)
    matched = tuple(_n_matched(overlaps.iou, threshold) for threshold in THRESHOLDS)
    n_predicted, n_reference = (int(np.count_nonzero(numbers)) for numbers in (overlaps.predicted, overlaps.truth))
    return InstanceCounts(matched, n_predicted, n_reference, _matched_iou(overlaps.iou))


def unmatched_voxels(
    prediction: NDArray[np.integer[Any]], reference: NDArray[np.integer[Any]], decided: BoolArray | None = None
) -> BoolArray:
    """Return (*S) bool: decided voxels of instances, of either map, that match no instance of the other at 0.5.

    Parameters as for :func:`match_instances`.
    """
    overlaps = _overlaps(Contingency.of(prediction, reference, decided))
    is_match = overlaps.iou.data >= THRESHOLDS[0]
    alone = np.zeros(prediction.shape, dtype=bool)
    for values, matched in (
        (prediction, overlaps.predicted[overlaps.iou.row[is_match]]),
        (reference, overlaps.truth[overlaps.iou.col[is_match]]),
    ):
        alone |= np.isin(values, np.append(matched, 0).astype(values.dtype), invert=True)
    return alone if decided is None else alone & decided


def add_counts(counts: Sequence[InstanceCounts]) -> InstanceCounts:
    """Return the counts of several cases together; all 0 without cases."""
    return sum(counts, InstanceCounts((0,) * len(THRESHOLDS), 0, 0, 0.0))


class _Overlaps(NamedTuple):
    """Instances of two maps, and how much each pair overlaps."""

    predicted: Integers
    """(n,) numbers of the predicted instances, and 0 for background if it occurs."""
    truth: Integers
    """(m,) of the reference."""
    iou: sparse.coo_array
    """(n, m): intersection over union of the pairs of instances that overlap."""


def _overlaps(table: Contingency) -> _Overlaps:
    predicted, rows, sizes = sizes_of(table.predicted, table.voxels)
    truth, columns, true_sizes = sizes_of(table.reference, table.voxels)
    both = (table.predicted != 0) & (table.reference != 0)
    row, column, overlap = rows[both], columns[both], table.voxels[both]
    iou = overlap / (sizes[row] + true_sizes[column] - overlap)
    return _Overlaps(predicted, truth, sparse.coo_array((iou, (row, column)), shape=(len(predicted), len(truth))))


def _n_matched(pairs: sparse.coo_array, threshold: float) -> int:
    """Return the largest number of pairs with at least ``threshold`` in which no instance occurs twice."""
    match = pairs.data >= threshold
    if not match.any():
        return 0
    graph = sparse.csr_array((np.ones(match.sum()), (pairs.row[match], pairs.col[match])), shape=pairs.shape)
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())


def _matched_iou(pairs: sparse.coo_array) -> float:
    """Return the sum of the IoU of the pairs that match at 0.5.

    Above 0.5 no instance is in two pairs. At exactly 0.5 it can be, and whichever pair is taken has the same IoU.
    """
    above = pairs.data > THRESHOLDS[0]
    return float(pairs.data[above].sum()) + THRESHOLDS[0] * (_n_matched(pairs, THRESHOLDS[0]) - int(above.sum()))
