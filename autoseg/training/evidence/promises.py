"""Promises of the annotators, and statements that a class is absent from a case."""

from __future__ import annotations

import torch

from autoseg.nn.losses.code_tables import annotated_codes, informative_codes
from autoseg.sampling.batch import Batch
from autoseg.training.evidence.source import Evidence, EvidenceSource, Step
from autoseg.training.evidence.totals import Totals


class Promises(EvidenceSource):
    """Takes unannotated voxels for the classes that promises leave, with a weight that follows from their number.

    Parameters
    ----------
    promise_weight
        Weight of all promised voxels together, relative to that of the annotated ones; see :attr:`weight`.
    totals
        Of the training cases.
    settled
        Cases of which no voxel counts as annotated: :func:`autoseg.dataset.labels.settled_cases`.
    """

    name = "promises"

    def __init__(self, promise_weight: float, totals: Totals, settled: frozenset[str] = frozenset()) -> None:
        self.promise_weight = promise_weight
        self.totals = totals
        self.settled = settled

    def adjust(self, evidence: Evidence, batch: Batch, step: Step) -> Evidence:
        """Return evidence of the learnt classes of the batch: promised codes count :attr:`weight`.

        Annotated codes count 1, or their weight in the table. Codes of which only the absence of classes is known count
        as promised, even if a single class is left. Held-out codes count 0.
        """
        table = batch.table
        is_annotated = annotated_codes(table.visible, table.undrawn)
        for sample, case in enumerate(batch.cases):
            if case in self.settled:
                is_annotated[sample] = False
        drawn = 1.0 if table.weight is None else table.weight
        weights = torch.where(is_annotated, drawn, self.weight * informative_codes(table.learnt))
        return evidence._replace(table=evidence.table._replace(learnt=table.learnt), weights=weights)

    @property
    def weight(self) -> float:
        """Weight of a voxel of which only a promise or an absent class says something, 0 to 1.

        Their total weight is ``promise_weight`` times that of the annotated voxels. Otherwise statements that hold
        for every voxel of an image would outweigh a few scribbles.
        """
        return min(1.0, self.promise_weight * self.totals.n_drawn / max(self.totals.n_promised, 1))
