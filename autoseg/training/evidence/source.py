"""What a batch says of its voxels: drawn and inferred, and how much each counts in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from autoseg.nn.losses.code_tables import flat_codes, look_up
from autoseg.nn.losses.deep_supervision import DeepSupervisionLoss
from autoseg.nn.losses.label_sets import VoxelLoss
from autoseg.sampling.loader import Batch


class Evidence(NamedTuple):
    """What one batch says: a code per voxel, and what the loss takes each code for."""

    codes: Tensor
    """(B, *P) integers < N."""
    drawn: Tensor
    """(B, N, K) bool: what was drawn. Where a coarse cell has voxels of several codes, drawn ones come first."""
    sets: Tensor
    """(B, N, K) bool: what is learnt; narrower than ``drawn`` where something is inferred."""
    weights: Tensor | None
    """(B, N) float32: how much a voxel of the code counts; None: what is drawn counts 1."""
    taught: Tensor | None = None
    """(B, *P) int64: rows of :meth:`autoseg.training.evidence.teacher.Teacher.table`; None without a teacher."""
    undrawn: Tensor | None = None
    """(B,) int64: code of voxels that nobody annotated; None: "nothing known" in all samples."""


def drawn_evidence(batch: Batch) -> Evidence:
    """Return what was drawn in a batch, and nothing else."""
    return Evidence(batch.codes, batch.label_sets, batch.label_sets, None, undrawn=batch.undrawn)


def with_teacher(evidence: Evidence, taught: Tensor, batch: Batch) -> Evidence:
    """Add what the teacher says, and take no voxel of which it says something for background by the weak prior.

    ``evidence`` has weights, as all that infers anything does.
    """
    sets = batch.label_sets if batch.inferred_sets is None else batch.inferred_sets
    n_samples, n_codes, n_classes = sets.shape
    is_open = sets.all(2).gather(1, flat_codes(batch.codes)).view(batch.codes.shape)
    everything = torch.ones(n_samples, 1, n_classes, dtype=torch.bool, device=sets.device)
    weights = cast(Tensor, evidence.weights)
    return Evidence(
        codes=torch.where(is_open & (taught != n_classes), n_codes, batch.codes.int()),
        drawn=torch.cat([evidence.drawn, everything], 1),
        sets=torch.cat([evidence.sets, everything], 1),
        weights=torch.cat([weights, weights.new_zeros(n_samples, 1)], 1),
        taught=taught,
        undrawn=evidence.undrawn,
    )


class EvidenceLoss:
    """The training loss: a partial loss at every resolution, and one on what a teacher says at the full one.

    Parameters
    ----------
    partial
        The loss of one resolution.
    scales
        Patch voxels per logit of each output, for deep supervision; None where the network has one output.
    unknown
        Code of "nothing known" (K).
    teacher_sets
        (2K + 1 or more, O) bool: what the teacher's label sets leave of the outputs; None without a teacher.
    teacher_weight
        Of the loss on them.
    """

    def __init__(
        self,
        partial: VoxelLoss,
        scales: Sequence[Sequence[int]] | None,
        unknown: int,
        teacher_sets: Tensor | None = None,
        teacher_weight: float = 0.0,
    ) -> None:
        self.partial = partial
        self.supervised = None if scales is None else DeepSupervisionLoss(self._weighted, scales, unknown)
        self.teacher_sets = teacher_sets
        self.teacher_weight = teacher_weight

    def __call__(self, logits: list[Tensor], evidence: Evidence) -> Tensor:
        """Return the scalar loss of logits per resolution, full resolution first."""
        tables = () if evidence.weights is None else (evidence.sets, evidence.weights)
        if self.supervised is None:
            total = self._weighted(logits[0], evidence.codes, evidence.drawn, *tables)
        else:
            total = self.supervised(logits, evidence.codes, evidence.drawn, *tables, undrawn=evidence.undrawn)
        if evidence.taught is None or self.teacher_sets is None:
            return total
        sets = self.teacher_sets.expand(len(logits[0]), -1, -1)
        return total + self.teacher_weight * self.partial(logits[0], evidence.taught, sets)

    def _weighted(
        self, logits: Tensor, codes: Tensor, drawn: Tensor, sets: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        if sets is None or weights is None:
            return self.partial(logits, codes, drawn)
        return self.partial(logits, codes, sets, look_up(weights, flat_codes(codes)).view(codes.shape))
