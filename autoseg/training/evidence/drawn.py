"""The annotation itself, from which all evidence starts."""

from __future__ import annotations

from autoseg.cases.layers import OBJECTS, TARGETS
from autoseg.sampling.batch import Batch
from autoseg.training.evidence.source import Evidence


def drawn_evidence(batch: Batch) -> Evidence:
    """Return the annotation of a batch that training sees, and nothing else: no promises, each voxel counts 1."""
    return Evidence(
        batch.codes,
        batch.table._replace(learnt=batch.table.visible),
        numbers=batch.layers.get(TARGETS),
        objects=batch.layers.get(OBJECTS),
    )
