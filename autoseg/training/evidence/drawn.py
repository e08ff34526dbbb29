"""The annotation itself, from which all evidence starts."""

from __future__ import annotations

from autoseg.cases.layers import OBJECTS, TARGETS
from autoseg.nn.losses.code_tables import informative_codes
from autoseg.sampling.batch import Batch
from autoseg.training.evidence.source import Evidence


def drawn_evidence(batch: Batch) -> Evidence:
    """Return the annotation of a batch that training sees, and nothing else: no promises.

    Each voxel counts 1, or its weight in the table.
    """
    table = batch.table._replace(learnt=batch.table.visible)
    weights = None if table.weight is None else table.weight * informative_codes(table.learnt)
    numbers, objects = batch.layers.get(TARGETS), batch.layers.get(OBJECTS)
    return Evidence(batch.codes, table, weights, numbers=numbers, objects=objects)
