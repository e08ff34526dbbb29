"""The training loss: a loss of label sets at every resolution, and the further terms of evidence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from autoseg.nn.losses.code_tables import flat_codes, look_up
from autoseg.nn.losses.deep_supervision import DeepSupervisionLoss
from autoseg.nn.losses.label_sets import VoxelLoss
from autoseg.nn.losses.numbers import NumberLoss, NumberSupervision
from autoseg.training.evidence.source import Evidence


class NumbersLoss:
    """The loss of a regression: that of the numbers of evidence at every resolution.

    Parameters
    ----------
    loss
        The loss of one resolution.
    scales
        As for :class:`EvidenceLoss`.
    """

    def __init__(self, loss: NumberLoss, scales: Sequence[Sequence[int]] | None) -> None:
        self.supervised = NumberSupervision(loss, scales)

    def __call__(self, outputs: list[Tensor], evidence: Evidence) -> Tensor:
        """Return the scalar loss of outputs per resolution, full resolution first."""
        if evidence.numbers is None:
            raise ValueError("loss of numbers: the batch has no layer of targets")
        return self.supervised(outputs, evidence.numbers)


class EvidenceLoss:
    """The loss of evidence: that of its codes at every resolution, and its further terms at the full one.

    Parameters
    ----------
    partial
        The loss of one resolution.
    scales
        Patch voxels per logit of each output, for deep supervision; None where the network has one output.
    unknown
        Code of "nothing known" (K).
    """

    def __init__(self, partial: VoxelLoss, scales: Sequence[Sequence[int]] | None, unknown: int) -> None:
        self.partial = partial
        self.supervised = None if scales is None else DeepSupervisionLoss(self._weighted, scales, unknown)

    def __call__(self, logits: list[Tensor], evidence: Evidence) -> Tensor:
        """Return the scalar loss of logits per resolution, full resolution first."""
        codes, table = evidence.codes, evidence.table
        learnt = (table.learnt,) if evidence.weights is None else (table.learnt, evidence.weights)
        if self.supervised is None:
            total = self._weighted(logits[0], codes, table.visible, *learnt)
        else:
            total = self.supervised(logits, codes, table.visible, *learnt, undrawn=table.undrawn)
        for term in evidence.terms:
            label_sets = term.label_sets.expand(len(term.codes), -1, -1)
            total = total + term.weight * self.partial(logits[0], term.codes, label_sets)
        return total

    def _weighted(
        self, logits: Tensor, codes: Tensor, visible: Tensor, learnt: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Return the loss of one resolution; ``visible`` (B, N, K) is the annotation, which it does not need."""
        if weights is None:
            return self.partial(logits, codes, learnt)
        return self.partial(logits, codes, learnt, look_up(weights, flat_codes(codes)).view(codes.shape))
