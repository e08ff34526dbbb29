"""Semantic segmentation: one output per class, background first, and a softmax over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import LabelMap
from autoseg.dataset.labels import Labels
from autoseg.tasks.dice import dice_per_head

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Semantic:
    """Outputs are the classes; see :class:`autoseg.tasks.task.Task`."""

    labels: Labels
    is_exclusive: ClassVar[bool] = True
    regions: ClassVar[None] = None
    refinement: ClassVar[None] = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """(K,) names of the classes."""
        return tuple(head.name for head in self.labels.heads)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits (B, K, *P) as they are."""
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax over classes, (B, K, *P) in [0, 1], of logits of the same shape."""
        return logits.softmax(1)

    def score(self, counts: Tensor) -> list[float | None]:
        """Return the Dice of each of the classes from counts (3, K); None where it shows nowhere."""
        return dice_per_head(counts)

    def decode(self, logits: NDArray[np.floating[Any]]) -> LabelMap:
        """Return the file values (*S) of the classes with the largest logits (K, *S)."""
        return self.labels.decode(logits)

    def finish(self, label_map: LabelMap) -> LabelMap:
        """Return the label map (z, y, x) as it is."""
        return label_map
