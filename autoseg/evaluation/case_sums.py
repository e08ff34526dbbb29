"""Sums over the voxels of a case from which all its scores follow. Sums over boxes of a case add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.dataset.labels import Labels
from autoseg.evaluation.contingency import Contingency
from autoseg.evaluation.instance_scores import InstanceScores, instance_tables
from autoseg.evaluation.instances import count_matches
from autoseg.evaluation.metrics import NO_PAIRS, HeadCounts, PairCounts, count_heads, count_pairs
from autoseg.evaluation.partitions import count_partitions


class LabelBox(NamedTuple):
    """Content of a box of a label map."""

    classes: NDArray[np.integer[Any]]
    """(*box) file values of classes."""
    objects: LabelMap | None = None
    """(*box) numbers of objects; None if label files hold classes."""
    valid: BoolArray | None = None
    """(*box) of a reference: where it is annotated, whatever its values; None: everywhere."""
    seen: BoolArray | None = None
    """(*box) of a reference: where its image has data; None: everywhere. Elsewhere nothing counts, not even a class
    that is absent from the case."""

    @property
    def annotated(self) -> BoolArray | None:
        """(*box) where the reference is annotated, and its image has data; None: everywhere."""
        if self.valid is None or self.seen is None:
            return self.seen if self.valid is None else self.valid
        return self.valid & self.seen


@dataclass(frozen=True, eq=False, slots=True)
class CaseSums:
    """Joint histogram of classes, and tables of overlapping objects, of a reference and a prediction."""

    pairs: PairCounts = NO_PAIRS
    """Of voxels that are not masked."""
    masked: PairCounts = NO_PAIRS
    """Of masked voxels, all of which have the reference value 0."""
    n_valid: int = 0
    """Voxels that are not masked."""
    largest: int = 0
    """Largest value of the reference, masked or not."""
    tables: Mapping[str, Contingency] = field(default_factory=dict)
    """Key of a foreground class -> overlaps of its objects, if label files hold numbers of objects. Left out of boxes
    with a value that is not declared, with which there are no scores."""

    @classmethod
    def of(cls, reference: LabelBox, prediction: LabelBox, labels: Labels, case: str) -> CaseSums:
        """Return the sums over a box. Raises ``EvaluationError`` as :func:`autoseg.evaluation.metrics.count_pairs`."""
        valid, masked = reference.annotated, NO_PAIRS
        if valid is None:
            pairs = count_pairs(reference.classes, prediction.classes)
        else:
            pairs = count_pairs(reference.classes[valid], prediction.classes[valid])
            hidden = prediction.classes[~valid if reference.seen is None else ~valid & reference.seen]
            masked = count_pairs(np.zeros(hidden.shape, dtype=np.uint8), hidden)
        return cls(
            pairs,
            masked,
            int(pairs.counts.sum()),
            int(reference.classes.max(initial=0)),
            _tables(reference, prediction, pairs, labels, case),
        )

    def __add__(self, other: CaseSums) -> CaseSums:
        tables = dict(self.tables)
        for key, table in other.tables.items():
            tables[key] = tables[key] + table if key in tables else table
        return CaseSums(
            self.pairs + other.pairs,
            self.masked + other.masked,
            self.n_valid + other.n_valid,
            max(self.largest, other.largest),
            tables,
        )

    @property
    def n_overlaps(self) -> int:
        """Number of pairs of overlapping objects: the size of the tables."""
        return sum(len(table.voxels) for table in self.tables.values())

    def head_counts(self, labels: Labels, case: str) -> tuple[HeadCounts, ...]:
        """Return the counts of every head.

        Masked voxels are unannotated: they may have any class that is not absent. Raises ``EvaluationError`` if a value
        is not declared, naming all such values.
        """
        if not len(self.masked.reference_values):
            return count_heads(self.pairs, labels, case)
        ignore = labels.ignore
        if ignore is None:  # any value that neither the labels nor the file use
            ignore = max([*labels.file_values(), self.largest]) + 1
        masked = replace(self.masked, reference_values=np.array([ignore], dtype=np.int64))
        return count_heads(self.pairs + masked, replace(labels, ignore=ignore), case)

    def instance_scores(self) -> dict[str, InstanceScores]:
        """Return key of a foreground class -> the scores of its objects; {} if label files hold classes."""
        return {
            key: InstanceScores.of(count_matches(table), count_partitions(table)) for key, table in self.tables.items()
        }


def add_to(stack: list[CaseSums], sums: CaseSums) -> None:
    """Add sums to a stack, of which the sum is wanted in the end.

    Sums are added when they are as large as those below, so that a table of many objects is seldom gone through.
    """
    stack.append(sums)
    while len(stack) > 1 and stack[-1].n_overlaps >= stack[-2].n_overlaps:
        last = stack.pop()
        stack[-1] += last


def _tables(
    reference: LabelBox, prediction: LabelBox, pairs: PairCounts, labels: Labels, case: str
) -> Mapping[str, Contingency]:
    """Return ``CaseSums.tables`` of a box."""
    is_declared = np.isin(pairs.reference_values, labels.file_values()).all()
    if reference.objects is None or prediction.objects is None or not is_declared:
        return {}
    drawn, predicted = (reference.classes, reference.objects), (prediction.classes, prediction.objects)
    return instance_tables(drawn, predicted, labels, case=case, valid=reference.annotated)
