"""A mean teacher: predictions by the mean of past weights, believed as far as held-out annotation confirms them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.annotation.touches import promise_statement
from autoseg.annotation.untouched import untouched_components
from autoseg.core.errors import ConfigError
from autoseg.core.ranks import ONE_PROCESS, Ranks
from autoseg.dataset.labels import Labels
from autoseg.nn.losses.code_tables import flat_codes, look_up
from autoseg.sampling.batch import Batch, BatchTable
from autoseg.tasks.task import task_of
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.source import DECAY, Evidence, EvidenceSource, Step, Term

LEAST_VOXELS = 20.0
"""A class is believed only if the teacher claimed, lately, at least so many held-out voxels for it."""


class Teacher(EvidenceSource):
    """Gives classes to voxels whose learnt set has several, where it is confident and known to be right.

    It says nothing of a voxel annotated as one class, and gives classes of the voxel's set only. A class is believed
    if, on held-out annotation, at least ``teacher_precision`` of the voxels that the teacher confidently claimed for it
    were annotated as it; otherwise the teacher says nothing of that class. What it says is a further term of the loss,
    and no voxel of which it says something is background by a prior.

    Source: mean teacher (Tarvainen & Valpola 2017, arXiv 1703.01780); ELEKTRONN's ``label_prop_thresh``, from which
    it differs in that targets come from averaged weights, stay inside the label set, and are checked.

    Parameters
    ----------
    config
        The settings whose names begin with ``teacher``.
    labels
        Of the data set; classes, no regions.
    touches_all
        Whether the annotators promise that every object carries an annotation (``instances_touched``).
    ranks
        The claims of all are counted.

    Raises
    ------
    ConfigError
        If the network has regions.
    """

    name = "teacher"

    def __init__(self, config: TrainingConfig, labels: Labels, touches_all: bool, ranks: Ranks = ONE_PROCESS) -> None:
        self.task = task_of(labels)
        if not self.task.is_exclusive:
            raise ConfigError(
                f"--set teacher_weight={config.evidence.teacher_weight}: the data set has regions, but a teacher is "
                "made for classes only. Leave it out."
            )
        self.config = config
        self.n_classes = labels.n_classes
        self.touches_all = touches_all
        self.ranks = ranks
        self.labels = labels
        self.network: nn.Module | None = None
        self.claims = torch.zeros(2, labels.n_classes)
        """Per class the held-out voxels that were claimed, and those of them that were right; decaying."""

    def adjust(self, evidence: Evidence, batch: Batch, step: Step) -> Evidence:
        """Return evidence with the teacher's term; open voxels of which it says something get a code of weight 0."""
        taught = self.teach(batch, step)
        if taught is None:
            return evidence
        weights, n_codes = evidence.code_weights, evidence.table.drawn.shape[1]
        is_open = batch.table.learnt.all(2).gather(1, flat_codes(batch.codes)).view(batch.codes.shape)
        term = Term(taught, self.label_sets(weights.device), self.config.evidence.teacher_weight)
        return Evidence(
            codes=torch.where(is_open & (taught != self.n_classes), n_codes, evidence.codes.int()),
            table=evidence.table.with_open_code(),
            weights=torch.cat([weights, weights.new_zeros(len(weights), 1)], 1),
            terms=(*evidence.terms, term),
        )

    def label_sets(self, device: torch.device) -> Tensor:
        """Return the label sets (2K + 1, K) bool of what the teacher says: class k, nothing, then "not class k"."""
        single = torch.eye(self.n_classes, dtype=torch.bool, device=device)
        return torch.cat([single, torch.ones_like(single[:1]), ~single])

    @torch.no_grad()
    def teach(self, batch: Batch, step: Step) -> Tensor | None:
        """Return rows (B, *P) int64 of :meth:`label_sets` for a batch; None before ``teacher_start``."""
        if self.network is None or step.iteration < self.config.evidence.teacher_start * self.config.iterations:
            return None
        logits = step.predict(self.network, batch.network_input).float()
        probabilities = self.task.probabilities(logits).flatten(2)  # (B, K, V)
        codes = flat_codes(batch.codes)
        self._check(probabilities, codes, batch.table)
        learnt = batch.table.learnt
        size = look_up(learnt.sum(2), codes)
        inside = _restricted(probabilities, codes, learnt)
        confidence, winner = inside.max(1)
        believed = self.believed().to(winner.device)[winner]
        says = (size > 1) & believed & (confidence > self.config.evidence.teacher_confidence)
        rows = torch.where(says, winner, self.n_classes)
        if self.touches_all:
            untouched = self._untouched(winner.view(batch.codes.shape), batch).flatten(1).to(winner.device)
            rows = torch.where(untouched & (size > 1) & (winner > 0), self.n_classes + 1 + winner, rows)
        return rows.view(batch.codes.shape)

    def believed(self) -> Tensor:
        """(K,) bool: classes that are believed."""
        claimed, right = self.claims
        is_believed: Tensor = (claimed >= LEAST_VOXELS) & (right >= self.config.evidence.teacher_precision * claimed)
        return is_believed

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move the weights towards those of ``network``; the first call copies them."""
        if self.network is None:
            self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
            return
        for own, other in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(other, 1 - self.config.evidence.teacher_decay)
        for statistics, others in zip(self.network.buffers(), network.buffers(), strict=True):  # of batch norm
            statistics.copy_(others)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"weights": None if self.network is None else self.network.state_dict(), "claims": self.claims}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Inverse of :meth:`state`."""
        self.claims.copy_(state["claims"])
        if state["weights"] is not None:
            self.network = copy.deepcopy(network).requires_grad_(requires_grad=False).eval()
            self.network.load_state_dict(state["weights"])

    def _untouched(self, prediction: Tensor, batch: Batch) -> Tensor:
        """(B, *P) bool: voxels whose predicted object, wholly inside the patch, carries no annotation of its class.

        Objects are found on the CPU, so that a GPU is waited for: only where ``instances_touched`` was promised.
        """
        sets = batch.table.drawn.cpu().numpy()
        cases = batch.cases or ("",) * len(sets)
        parts = zip(prediction.cpu().numpy(), batch.codes.cpu().numpy(), sets, cases, strict=True)
        masks = [
            untouched_components(classes, codes, drawn, promise_statement(self.labels, case))
            for classes, codes, drawn, case in parts
        ]
        return torch.from_numpy(np.stack(masks))

    def _check(self, probabilities: Tensor, codes: Tensor, table: BatchTable) -> None:
        """Count confident claims on held-out voxels, and how many of them are right."""
        self.claims = self.claims.to(probabilities.device, non_blocking=True).mul_(DECAY)  # to the device once
        confidence, winner = probabilities.max(1)
        is_claim = look_up(table.held_out, codes) & (confidence > self.config.evidence.teacher_confidence)
        truth = look_up(table.drawn.to(torch.uint8).argmax(2), codes)
        winners = torch.arange(self.n_classes, device=winner.device)[:, None, None] == winner  # (K, B, V)
        counts = [(winners & which).sum((1, 2)) for which in (is_claim, is_claim & (truth == winner))]
        self.claims.add_(self.ranks.sum(torch.stack(counts)).to(self.claims))


def _restricted(probabilities: Tensor, codes: Tensor, sets: Tensor) -> Tensor:
    """Probabilities (B, K, V) within the set of each voxel: 0 outside of it, summing to 1."""
    if sets.device.type == "cpu" and bool((sets.all(2) | (sets.sum(2) <= 1)).all()):
        return probabilities
    allowed = sets.to(probabilities).transpose(1, 2).gather(2, codes[:, None].expand(-1, sets.shape[2], -1))
    inside = probabilities * allowed
    return inside / inside.sum(1, keepdim=True).clamp_min(1e-12)
