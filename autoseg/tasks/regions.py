"""Segmentation of regions, which may overlap: one output, and one sigmoid, per region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.dataset.labels import Labels
from autoseg.tasks.dice import dice_per_head

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regions:
    """Outputs are the R regions; see :class:`autoseg.tasks.task.Task`."""

    labels: Labels
    is_exclusive: ClassVar[bool] = False
    refinement: ClassVar[None] = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """(R,) names of the regions."""
        return tuple(head.name for head in self.labels.heads)

    @property
    def regions(self) -> BoolArray:
        """(R, K) bool: the classes of each region."""
        return self.labels.regions

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits (B, R, *P) as they are."""
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return one sigmoid per region, (B, R, *P) in [0, 1], of logits of the same shape."""
        return logits.sigmoid()

    def score(self, counts: Tensor) -> list[float | None]:
        """Return the Dice of each of the regions from counts (3, R); None where it shows nowhere."""
        return dice_per_head(counts)

    def decode(self, logits: NDArray[np.floating[Any]]) -> LabelMap:
        """Return the file values (*S) that the predicted regions are painted with, from logits (R, *S)."""
        return self.labels.decode(logits)

    def finish(self, label_map: LabelMap) -> LabelMap:
        """Return the label map (z, y, x) as it is."""
        return label_map
