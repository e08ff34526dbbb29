"""Evidence of a batch: which classes the loss takes each code for, how much a voxel of it counts, and who says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from autoseg.nn.losses.code_tables import informative_codes
from autoseg.sampling.batch import Batch, BatchTable

DECAY = 0.98
"""Weight of the past in the statistics of predictions, per step."""


class Term(NamedTuple):
    """A further term of the loss, at the full resolution."""

    codes: Tensor
    """(B, *P) int64 < M."""
    label_sets: Tensor
    """(M, K) bool."""
    weight: float
    """Factor of the term."""


class Evidence(NamedTuple):
    """Classes and weights of codes from which the loss of one batch is computed."""

    codes: Tensor
    """(B, *P) integers < N."""
    table: BatchTable
    """Of these codes: ``learnt`` is what the loss takes a voxel for. Where a coarse cell has voxels of several codes,
    those annotated by ``visible`` come first."""
    weights: Tensor | None = None
    """(B, N) float32, non-negative: how much a voxel of the code counts; None: each voxel counts 1."""
    terms: tuple[Term, ...] = ()
    numbers: Tensor | None = None
    """(B, R, *P) float32 targets of a regression, NaN where unknown; None for classes."""
    objects: Tensor | None = None
    """(B, *P) int32 numbers of objects, 0 for none, -1 beyond the image; None unless label files hold them."""

    @property
    def code_weights(self) -> Tensor:
        """(B, N) float32: ``weights``; where these are None, 1 for informative codes and 0 for others."""
        return informative_codes(self.table.learnt).float() if self.weights is None else self.weights


class Step(NamedTuple):
    """A step of training, as far as a source of evidence may know of it."""

    iteration: int
    """From 0."""
    predict: Callable[[nn.Module, Tensor], Tensor]
    """(network, images (B, C, *P)) -> logits (B, H, *P), in the arithmetic of training."""


class EvidenceSource(Protocol):
    """A source of evidence beyond the annotation that training sees; a run has a tuple of them, asked in this order.

    A source never changes the learnt classes of an annotated code. Only :meth:`adjust` must be given.
    """

    name: str
    """Key of the source's state in a checkpoint; unique in a run."""

    def adjust(self, evidence: Evidence, batch: Batch, step: Step) -> Evidence:
        """Return what the sources before this one say of ``batch``, ``evidence``, with what this one says."""

    def observe(self, batch: Batch, logits: Tensor) -> None:
        """Take note of the logits (B, H, *P) of a batch, after its optimiser step; by default not at all."""
        return

    def follow(self, network: nn.Module) -> None:
        """Take note of the weights, after an optimiser step; by default not at all."""
        return

    def state(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as tensors and dictionaries of tensors; by default nothing."""
        return {}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Take over :meth:`state` of an earlier run; ``network`` has the architecture of the one that was followed."""
        return
