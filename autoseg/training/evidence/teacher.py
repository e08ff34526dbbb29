"""A teacher for what nobody annotated: the mean of the network's past weights, believed as far as it can be checked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoseg.annotation.touches import promise_statement
from autoseg.annotation.untouched import untouched_components
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Labels
from autoseg.nn.losses.code_tables import flat_codes, informative_codes, look_up
from autoseg.sampling.loader import Batch
from autoseg.tasks.task import task_of
from autoseg.training.config import TrainingConfig

Predict = Callable[[nn.Module, Tensor], Tensor]
"""(network, images (B, C, *P)) -> logits (B, O, *P), as training computes them."""

DECAY = 0.98
"""Weight of the past in the statistics of predictions, per step."""
LEAST_VOXELS = 20.0
"""A class is believed only if the teacher claimed, lately, at least so many held-out voxels for it."""


class Teacher:
    """Gives classes to voxels whose label set has several, where it is confident and known to be right.

    It says nothing of a voxel drawn as one class, and gives classes of the voxel's set only. A class is believed if, on
    the annotation that training does not see, at least ``teacher_precision`` of what the teacher confidently claimed
    for it was drawn as it; else the teacher says nothing of that class.

    Source: mean teacher (Tarvainen & Valpola 2017, arXiv 1703.01780); ELEKTRONN's ``label_prop_thresh``, from which
    it differs in that targets come from averaged weights, stay inside the label set, and are checked.
    """

    def __init__(self, config: TrainingConfig, labels: Labels, touches_all: bool) -> None:
        self.task = task_of(labels)
        if not self.task.is_exclusive:
            raise ConfigError(
                f"--set teacher_weight={config.teacher_weight}: found regions, expected classes. A teacher is made for "
                "classes only; leave it out."
            )
        self.config = config
        self.n_classes = labels.n_classes
        self.touches_all = touches_all
        self.labels = labels
        self.network: nn.Module | None = None
        self.claims = torch.zeros(2, labels.n_classes)
        """Per class the held-out voxels that were claimed, and those of them that were right; decaying."""

    def table(self, device: torch.device) -> Tensor:
        """Return the label sets (2K + 1, K) of what the teacher says: class k, nothing, then "not class k"."""
        single = torch.eye(self.n_classes, dtype=torch.bool, device=device)
        return torch.cat([single, torch.ones_like(single[:1]), ~single])

    @torch.no_grad()
    def teach(self, batch: Batch, iteration: int, predict: Predict) -> Tensor | None:
        """Return rows (B, *P) of :meth:`table` for a batch; None before its time."""
        if self.network is None or iteration < self.config.teacher_start * self.config.iterations:
            return None
        probabilities = self.task.probabilities(predict(self.network, batch.images)).flatten(2)  # (B, K, V)
        codes = flat_codes(batch.codes)
        self._check(probabilities, codes, batch.held_sets)
        sets = batch.label_sets if batch.inferred_sets is None else batch.inferred_sets
        size = look_up(sets.sum(2), codes)
        inside = _restricted(probabilities, codes, sets)
        confidence, winner = inside.max(1)
        believed = self.believed().to(winner.device)[winner]
        says = (size > 1) & believed & (confidence > self.config.teacher_confidence)
        rows = torch.where(says, winner, self.n_classes)
        if self.touches_all:
            untouched = self._untouched(winner.view(batch.codes.shape), batch).flatten(1).to(winner.device)
            rows = torch.where(untouched & (size > 1) & (winner > 0), self.n_classes + 1 + winner, rows)
        return rows.view(batch.codes.shape)

    def believed(self) -> Tensor:
        """(K,) bool: classes that are believed."""
        claimed, right = self.claims
        is_believed: Tensor = (claimed >= LEAST_VOXELS) & (right >= self.config.teacher_precision * claimed)
        return is_believed

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move the weights towards those of ``network``; the first call copies them."""
        if self.network is None:
            self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
            return
        for own, other in zip(self.network.parameters(), network.parameters(), strict=True):
            own.lerp_(other, 1 - self.config.teacher_decay)

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"weights": None if self.network is None else self.network.state_dict(), "claims": self.claims}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Inverse of :meth:`state`."""
        self.claims.copy_(state["claims"])
        if state["weights"] is not None:
            self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
            self.network.load_state_dict(state["weights"])

    def _untouched(self, prediction: Tensor, batch: Batch) -> Tensor:
        """(B, *P) bool: voxels whose predicted object, wholly inside the patch, carries no annotation of its class."""
        sets = batch.label_sets if batch.held_sets is None else batch.label_sets & batch.held_sets
        cases = batch.cases or ("",) * len(sets)
        parts = zip(prediction.cpu().numpy(), batch.codes.cpu().numpy(), sets.cpu().numpy(), cases, strict=True)
        masks = [
            untouched_components(classes, codes, table, promise_statement(self.labels, case))
            for classes, codes, table, case in parts
        ]
        return torch.from_numpy(np.stack(masks))

    def _check(self, probabilities: Tensor, codes: Tensor, held_sets: Tensor | None) -> None:
        """Count confident claims on held-out voxels, and how many of them are right."""
        self.claims.mul_(DECAY)
        if held_sets is None:
            return
        is_held = look_up(informative_codes(held_sets), codes)
        confidence, winner = probabilities.max(1)
        is_claim = is_held & (confidence > self.config.teacher_confidence)
        truth = look_up(held_sets.to(torch.uint8).argmax(2), codes)
        claimed = winner[is_claim]
        right = claimed[truth[is_claim] == claimed]
        counts = torch.stack([torch.bincount(which, minlength=self.n_classes) for which in (claimed, right)])
        self.claims.add_(counts.to(self.claims))


def _restricted(probabilities: Tensor, codes: Tensor, sets: Tensor) -> Tensor:
    """Probabilities (B, K, V) within the set of each voxel: 0 outside of it, summing to 1."""
    if bool((sets.all(2) | (sets.sum(2) <= 1)).all()):
        return probabilities
    allowed = sets.to(probabilities).transpose(1, 2).gather(2, codes[:, None].expand(-1, sets.shape[2], -1))
    inside = probabilities * allowed
    return inside / inside.sum(1, keepdim=True).clamp_min(1e-12)
