"""The demands of a task on a network in training: target of a batch, classes of each output, online scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from autoseg.cases.layers import TARGETS
from autoseg.core.arrays import BoolArray
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Labels, painting_of
from autoseg.sampling.batch import Batch
from autoseg.tasks.regression import Regression
from autoseg.tasks.task import Refinement, Task, task_of
from autoseg.training.evidence.source import Evidence
from autoseg.training.metrics import count_heads


class Objective:
    """The tensors of a task of classes on the device of a training.

    Parameters
    ----------
    task
        Of the data set.
    device
        Where batches lie.

    Raises
    ------
    ConfigError
        If the regions of a user's task have another shape, or its refinement contradicts itself.
    """

    score_name = "Dice"

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        regions = _checked_regions(task)
        self.regions = None if regions is None else torch.from_numpy(regions).to(device)
        """(O, K) bool: the classes of each output, for the loss; None for a softmax over outputs."""
        labels, painting = task.labels, painting_of(task.labels)
        self._rows = None if task.is_exclusive else torch.from_numpy(labels.regions).to(device)
        self._painting = None if painting is None or painting.is_sound else painting
        self._sets = None if task.refinement is None else _checked_sets(task, task.refinement, regions).to(device)

    def target(self, evidence: Evidence) -> Evidence:
        """Return what outputs are to say: codes, and sets of outputs (B, M * N, O), where a task refines its classes.

        The code of a voxel with code c and rule m is m * N + c, so codes of rule 0 are those of the annotation, among
        them "nothing known" and that of unannotated voxels.
        """
        refinement = self.task.refinement
        if refinement is None or self._sets is None:
            return evidence
        table, n_rules = evidence.table, len(self._sets)
        n_codes = table.drawn.shape[1]
        rules = refinement.rules(evidence.codes, table.visible, evidence.objects)
        return Evidence(
            codes=evidence.codes.int() + n_codes * rules.int(),
            table=table._replace(
                drawn=self.output_sets(table.drawn),
                learnt=self.output_sets(table.learnt),
                base=torch.cat([table.base + n_codes * rule for rule in range(n_rules)], 1),
                held_out=table.held_out.repeat(1, n_rules),
                zone=table.zone.repeat(1, n_rules),
                weight=None if table.weight is None else table.weight.repeat(1, n_rules),
            ),
            weights=None if evidence.weights is None else evidence.weights.repeat(1, n_rules),
            terms=tuple(
                term._replace(label_sets=self.output_sets(term.label_sets[None])[0]) for term in evidence.terms
            ),
        )

    def output_sets(self, label_sets: Tensor) -> Tensor:
        """Return the outputs that label sets (B, N, K) leave by each rule, (B, M * N, O) bool; an empty set, none.

        Without a refinement these are the label sets themselves.
        """
        if self._sets is None:
            return label_sets
        n_allowed = torch.einsum("bnk,mko->bmno", label_sets.float(), self._sets.float())
        return (n_allowed > 0).flatten(1, 2)

    @property
    def labels(self) -> Labels:
        """Labels of the data set."""
        return self.task.labels

    def count(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return (3, R) int64: true positives, false positives and false negatives per row on decided voxels.

        ``logits`` are (B, O, *P), full resolution.
        """
        scores = self.task.scores(logits)
        return count_heads(scores, batch.codes, batch.table.drawn, self._rows, self._painting)

    def score(self, counts: Tensor) -> Sequence[float | None]:
        """Return the online score of each row from the sum of its counts (3, R)."""
        return self.task.score(counts)


@dataclass(frozen=True)
class NumberObjective:
    """What a regression asks of a network in training; see :class:`Objective`."""

    task: Regression
    score_name: ClassVar[str] = Regression.score_name

    @property
    def labels(self) -> Labels:
        """Labels of the data set."""
        return self.task.labels

    def target(self, evidence: Evidence) -> Evidence:
        """Return what outputs are to say: the numbers of the evidence, as they are."""
        return evidence

    def count(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return (4, R) sums over known voxels, of outputs (B, R, *P) at full resolution."""
        return self.task.count(logits, batch.layers[TARGETS])

    def score(self, counts: Tensor) -> Sequence[float | None]:
        """Return R2 of each target from the sum of its counts (4, R)."""
        return self.task.score(counts)


AnyObjective = Objective | NumberObjective


def objective_of(labels: Labels, device: torch.device) -> AnyObjective:
    """Return what the task of a data set asks of a network; raises as :class:`Objective` and ``task_of``."""
    return NumberObjective(Regression(labels)) if labels.targets else Objective(task_of(labels), device)


def _checked_regions(task: Task) -> BoolArray | None:
    """Return (O, C) bool, or None for a softmax; raise ``ConfigError`` if a user's task has something else."""
    regions: Any = task.regions
    if regions is None:
        return None
    n_outputs, n_classes = len(task.outputs), task.labels.n_classes
    columns = "C, the columns of refinement.sets" if task.refinement is not None else str(n_classes)
    shape: tuple[int, ...] = getattr(regions, "shape", ())
    is_table = isinstance(regions, np.ndarray) and regions.dtype == bool and regions.ndim == 2
    if not is_table or shape[0] != n_outputs or (task.refinement is None and shape[1] != n_classes):
        found = f"{getattr(regions, 'dtype', type(regions).__name__)} of shape {tuple(shape)}"
        raise ConfigError(
            f"task {task.labels.task!r}: found regions {found}, expected a NumPy array ({n_outputs}, {columns}) of "
            "bool: the classes for which each output is positive, or None for one softmax. Correct the task."
        )
    table: BoolArray = regions
    return table


def _checked_sets(task: Task, refinement: Refinement, regions: BoolArray | None) -> Tensor:
    """Return (M, K, O) bool; raise ``ConfigError`` if it has another shape, or if rule 0 is not the widest.

    ``regions`` (O, K) bool are those of the task.
    """
    sets = np.asarray(refinement.sets, dtype=bool)
    n_outputs = len(task.outputs) if regions is None else regions.shape[1]
    expected = (task.labels.n_classes, n_outputs)
    found = ""
    if sets.ndim != 3 or sets.shape[1:] != expected:
        found = f"sets of shape {sets.shape}, expected (M, {expected[0]}, {expected[1]}): rules, classes, outputs"
    elif (sets & ~sets[:1]).any():
        found = "outputs that a later rule allows and rule 0 does not, expected rule 0 to allow whatever any rule does"
    elif not sets.any(axis=2).all():
        rule, row = np.argwhere(~sets.any(axis=2))[0].tolist()
        found = (
            f"no output that rule {rule} allows for class {task.labels.class_names[row]!r}, expected at least one: "
            "such voxels would train nothing"
        )
    elif not sets[0].any(axis=0).all():
        found = "an output that rule 0 allows for no class, expected every output to be that of some class"
    if found:
        raise ConfigError(f"task {task.labels.task!r}: found a refinement with {found}. Correct the task.")
    return torch.from_numpy(sets)
