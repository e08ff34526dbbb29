"""Image-to-image regression: one output per target, a number in each voxel, learnt where it is known.

Networks compute standardised numbers: each target minus its mean, divided by its standard deviation over all known
voxels of the training cases (``Plan.targets``). Only ``decode`` leads back to the units of the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.core.fingerprint import TargetProperties
from autoseg.dataset.labels import Labels

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regression:
    """Outputs are the R targets that ``dataset.json: targets`` names."""

    labels: Labels
    score_name: ClassVar[str] = "R2"

    @property
    def outputs(self) -> tuple[str, ...]:
        """(R,) names of the targets."""
        return self.labels.targets

    def count(self, outputs: Tensor, numbers: Tensor) -> Tensor:
        """Return (4, R) float64 sums over known voxels: their number, t, t squared, and (p - t) squared.

        They add up over patches and ranks. On devices without float64 they are float32.

        Parameters
        ----------
        outputs
            (B, R, *P) predictions p.
        numbers
            (B, R, *P) targets t, NaN where unknown.
        """
        wide = (outputs, numbers) if outputs.device.type == "mps" else (outputs.double(), numbers.double())
        predicted, target = (values.transpose(0, 1).flatten(1) for values in wide)  # (R, B * V)
        is_unknown = target.isnan()
        error = (predicted - target).masked_fill(is_unknown, 0)
        target = target.masked_fill(is_unknown, 0)
        sums = target.new_empty((4, len(target)))
        for row, values in enumerate((~is_unknown, target, target.square(), error.square())):
            sums[row] = values.sum(1)
        return sums

    def score(self, counts: Tensor) -> list[float | None]:
        """Return R2 of each target, at most 1, from the sums of :meth:`count`.

        None if no voxel is known, or all known numbers are the same.
        """
        scores: list[float | None] = []
        for n, total, squares, errors in counts.T.tolist():
            variation = squares - total * total / n if n else 0.0
            scores.append(1 - errors / variation if variation > 1e-12 * squares else None)
        return scores

    def decode(self, outputs: NDArray[np.floating[Any]], targets: Sequence[TargetProperties]) -> Float32Array:
        """Return the numbers (R, *S) float32 in the units of the files, from outputs (R, *S) of any part of a case."""
        axes = (1,) * (outputs.ndim - 1)
        scale, mean = (
            np.array(values, dtype=np.float32).reshape(-1, *axes)
            for values in ([target.scale for target in targets], [target.mean for target in targets])
        )
        numbers: Float32Array = outputs * scale + mean
        return numbers
