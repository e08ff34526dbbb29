"""Overlap of one predicted label map with its reference: the counts of all classes and regions, from one pass.

All counts follow from the joint histogram of (reference value, predicted value) pairs. Its size depends on the number
of values, not of voxels, so that further classes cost almost nothing. A head counts only the voxels that the reference
decides for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.chunks import VOXELS, chunks
from autoseg.core.errors import EvaluationError, Fault
from autoseg.core.findings import listed
from autoseg.dataset.file_values import DECLARE_VALUES, value_name
from autoseg.dataset.labels import Labels, annotated_codes, head_states, undrawn_code

SHORTEST_RUN = 4
"""Mean length of runs of equal voxels from which counting runs is faster than counting voxels."""
DIRECT_LIMIT = 255
"""Largest value that indexes the histogram directly. Maps with larger or negative values are renumbered first."""
RANGE_LIMIT = 1 << 22
"""Widest range of values that is renumbered with a table. Values of a wider range are sorted."""
BIN_LIMIT = 1 << 24
"""Largest number of pairs of values that is counted (128 MB). Maps with more are not label maps."""


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Numbers of voxels for each pair of a reference value and a predicted value (joint histogram)."""

    reference_values: NDArray[np.int64]
    """(A,) file values that occur in the reference, ascending."""
    prediction_values: NDArray[np.int64]
    """(B,) file values that occur in the prediction, ascending."""
    counts: NDArray[np.int64]
    """(A, B) voxels."""

    def __add__(self, other: PairCounts) -> PairCounts:
        """Return the histogram of the voxels of both."""
        rows = np.union1d(self.reference_values, other.reference_values)
        columns = np.union1d(self.prediction_values, other.prediction_values)
        counts = np.zeros((len(rows), len(columns)), dtype=np.int64)
        for pairs in (self, other):
            at = np.searchsorted(rows, pairs.reference_values), np.searchsorted(columns, pairs.prediction_values)
            counts[np.ix_(*at)] += pairs.counts
        return PairCounts(rows, columns, counts)


_NONE = np.zeros(0, dtype=np.int64)
NO_PAIRS = PairCounts(_NONE, _NONE, np.zeros((0, 0), dtype=np.int64))
"""Histogram of no voxels."""


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """Voxel counts of one class or region, over the voxels that the reference decides for it."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int
    n_open: int = 0
    """Annotated voxels that are undecided for the head, such as "liver or tumour". Not in the other counts."""

    @property
    def n_decided(self) -> int:
        """Voxels that the reference decides for the head."""
        return self.n_reference + self.false_positive + self.true_negative

    @property
    def n_prediction(self) -> int:
        """Decided voxels predicted as the head."""
        return self.true_positive + self.false_positive

    @property
    def n_reference(self) -> int:
        """Voxels of the head in the reference."""
        return self.true_positive + self.false_negative

    @property
    def dice(self) -> float | None:
        """``2 TP / (2 TP + FP + FN)``. None if TP + FP + FN = 0: neither map has a voxel of the head."""
        either = self.n_prediction + self.n_reference
        return 2 * self.true_positive / either if either else None

    @property
    def iou(self) -> float | None:
        """``TP / (TP + FP + FN)``. None if TP + FP + FN = 0: neither map has a voxel of the head."""
        union = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / union if union else None


def count_pairs(reference: NDArray[np.generic], prediction: NDArray[np.generic]) -> PairCounts:
    """Return the joint histogram of two label maps of the same shape, from one pass.

    Parameters
    ----------
    reference, prediction
        (*S) integers or bool, with any values. Empty maps give empty tables.

    Raises
    ------
    EvaluationError
        If the shapes differ, or if there are more than ``BIN_LIMIT`` pairs of values.
    """
    if reference.shape != prediction.shape:
        raise EvaluationError(
            f"prediction: found shape {prediction.shape}, expected {reference.shape} as in the reference. "
            "Predict on the grid of the reference."
        )
    rows, row_values = _indexed(reference)
    columns, column_values = _indexed(prediction)
    n_columns = len(column_values)
    n_bins = len(row_values) * n_columns
    if n_bins > BIN_LIMIT:
        raise EvaluationError(
            f"label maps: found {len(row_values)} values in the reference and {n_columns} in the prediction, expected "
            "one per class. Check that the files are label maps, not images."
        )
    table = np.zeros(n_bins, dtype=np.int64)
    for part in chunks(rows.size, VOXELS // 2):  # 4 MB of temporary indices, which stay in the processor's cache
        table += _counted(rows[part], columns[part], n_columns, n_bins)
    counts = table.reshape(len(row_values), n_columns)
    in_reference, in_prediction = counts.any(axis=1), counts.any(axis=0)
    return PairCounts(
        row_values[in_reference], column_values[in_prediction], counts[np.ix_(in_reference, in_prediction)]
    )


def count(
    reference: NDArray[np.generic], prediction: NDArray[np.generic], labels: Labels, case: str = ""
) -> tuple[HeadCounts, ...]:
    """Count true and false positives and negatives of every head of a case, over its decided voxels.

    Parameters
    ----------
    reference
        (*S) file values of dataset.json, the ignore value and label-set values included.
    prediction
        (*S) class values; any other value is an error.
    labels
        Meaning of the values.
    case
        Name of the case in ``dataset.json: cases`` and in messages.

    Returns
    -------
    counts
        One per head, in the order of ``labels.heads``.

    Raises
    ------
    EvaluationError
        If the shapes differ, or a value is not declared. The message names every such value with its number of voxels.
    """
    return count_heads(count_pairs(reference, prediction), labels, case)


def count_heads(pairs: PairCounts, labels: Labels, case: str = "") -> tuple[HeadCounts, ...]:
    """Return the counts of every head from a joint histogram; see :func:`count`."""
    faults = [*_reference_faults(pairs, labels, case), *_prediction_faults(pairs, labels, case)]
    if faults:
        raise EvaluationError("\n".join(str(fault) for fault in faults))
    codes, label_sets = labels.encode(pairs.reference_values, case)
    positive, negative = (table[codes] for table in head_states(label_sets, labels.regions))  # (A, H)
    is_drawn = annotated_codes(label_sets, undrawn_code(labels, case))[codes]
    is_open = ~(positive | negative) & is_drawn[:, None]
    classes = [labels.class_values.index(value) for value in pairs.prediction_values.tolist()]
    inside = pairs.counts @ labels.regions[:, classes].T.astype(np.int64)  # (A, H) voxels predicted as the head
    outside = pairs.counts.sum(axis=1, keepdims=True) - inside
    sums = zip(
        (inside * positive).sum(axis=0),
        (inside * negative).sum(axis=0),
        (outside * positive).sum(axis=0),
        (outside * negative).sum(axis=0),
        ((inside + outside) * is_open).sum(axis=0),
        strict=True,
    )
    return tuple(HeadCounts(*map(int, of_head)) for of_head in sums)


def _counted(rows: NDArray[np.integer], columns: NDArray[np.integer], n_columns: int, n_bins: int) -> NDArray[np.int64]:
    """Return (n_bins,) int64: number of voxels of each pair ``row * n_columns + column``.

    ``rows`` and ``columns`` are (V,), V > 0. Label maps are constant over long runs; runs are counted unless they are
    short.
    """
    changes = np.flatnonzero((rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])) + 1
    if changes.size * SHORTEST_RUN > rows.size:
        return np.bincount(_pairs(rows, columns, n_columns), minlength=n_bins)
    starts = np.append(0, changes)
    lengths = np.diff(starts, append=rows.size)
    pairs = _pairs(rows[starts], columns[starts], n_columns)
    return np.bincount(pairs, weights=lengths, minlength=n_bins).astype(np.int64)  # exact: far below 2 ** 53


def _pairs(rows: NDArray[np.integer], columns: NDArray[np.integer], n_columns: int) -> NDArray[np.intp]:
    """Return ``rows * n_columns + columns`` for ``rows`` and ``columns`` (V,)."""
    pairs = rows.astype(np.intp)
    pairs *= n_columns
    np.add(pairs, columns, out=pairs, casting="same_kind")
    return pairs


def _indexed(values: NDArray[np.generic]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Return indices (V,) >= 0 of ``values`` (*S) into a table of values, and that table (n,) int64."""
    flat: NDArray[np.integer] = values.reshape(-1).view(np.uint8 if values.dtype == np.bool_ else values.dtype)
    if flat.size == 0:
        return flat, np.zeros(0, dtype=np.int64)
    low, high = int(flat.min()), int(flat.max())
    if flat.dtype.kind == "f" or high - low > RANGE_LIMIT:
        table, indices = np.unique(flat, return_inverse=True)
        return indices.reshape(-1), table.astype(np.int64)
    if low >= 0 and high <= DIRECT_LIMIT:
        return flat, np.arange(high + 1, dtype=np.int64)
    shifted = flat.astype(np.int64) - low
    occurs = np.zeros(high - low + 1, dtype=bool)
    occurs[shifted] = True
    numbers = np.cumsum(occurs) - 1
    return numbers[shifted], np.flatnonzero(occurs) + low


def _reference_faults(pairs: PairCounts, labels: Labels, case: str) -> list[Fault]:
    declared = labels.file_values()
    unknown = ~np.isin(pairs.reference_values, declared)
    if not unknown.any():
        return []
    values_found = _listed(pairs.reference_values[unknown], pairs.counts[unknown].sum(axis=1))
    return [
        Fault(
            where=f"reference of case {case!r}",
            found=f"undeclared values {values_found}",
            expected=f"only [{', '.join(map(value_name, declared))}]",
            fix=DECLARE_VALUES,
        )
    ]


def _prediction_faults(pairs: PairCounts, labels: Labels, case: str) -> list[Fault]:
    wrong = ~np.isin(pairs.prediction_values, labels.class_values)
    if not wrong.any():
        return []
    values = pairs.prediction_values[wrong]
    values_found = _listed(values, pairs.counts[:, wrong].sum(axis=0))
    unannotated = {"ignore": labels.ignore, "unlabelled": labels.unlabelled}
    hints = [
        f"{value_name(value)} is the {key} value, which no model predicts. "
        for key, value in unannotated.items()
        if value is not None and value in values
    ]
    return [
        Fault(
            where=f"prediction of case {case!r}",
            found=f"values {values_found}",
            expected=f"one of the classes {list(labels.class_values)} at every voxel",
            fix="".join(hints) + "Check that the file is a prediction, and that dataset.json belongs to it.",
        )
    ]


def _listed(values: NDArray[np.int64], counts: NDArray[np.int64]) -> str:
    """Return the first of ``values`` (n,) with their numbers of voxels ``counts`` (n,) as text."""
    return listed(f"{value_name(value)} ({n} voxels)" for value, n in zip(values, counts, strict=True))
