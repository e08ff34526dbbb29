"""Uncertainty of each voxel, from the probabilities of the members of an ensemble: three maps on one fixed scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.dataset.labels import Head, Labels, background_value
from autoseg.inference.entropy import entropy

MapName = Literal["entropy", "expected_entropy", "mutual_information"]
MAPS: tuple[MapName, ...] = get_args(MapName)


def uncertainty_maps(members: Sequence[Float32Array], *, is_exclusive: bool) -> Float32Array:
    r"""Return the maps (3, *S) float32 in [0, 1], in the order of ``MAPS``, from probabilities of M members.

    .. math:: H(\bar p), \qquad \frac{1}{M} \sum_m H(p_m), \qquad H(\bar p) - \frac{1}{M} \sum_m H(p_m)

    with the mean probabilities :math:`\bar p` of the members, and H the entropy of :func:`~.entropy.entropy`: a share
    of the largest possible one, so that images and data sets can be compared. The last, the mutual information of class
    and member, is how much the members disagree; with one member it is exactly 0. Source: Depeweg et al. 2018
    (arXiv 1710.07283); deepflash2 has the first map alone and scales every picture by its own maximum.

    Parameters
    ----------
    members
        M >= 1 of (H, *S) float32, probabilities of heads.
    is_exclusive
        Whether heads are classes and not regions.
    """
    tensors = [torch.from_numpy(member) for member in members]
    mean, expected = tensors[0], entropy(tensors[0], is_exclusive=is_exclusive)
    if len(tensors) == 1:
        return torch.stack((expected, expected, torch.zeros_like(expected))).numpy()
    mean, expected = mean.clone(), expected.clone()
    for tensor in tensors[1:]:
        mean += tensor
        expected += entropy(tensor, is_exclusive=is_exclusive)
    total, expected = entropy(mean / len(tensors), is_exclusive=is_exclusive), expected / len(tensors)
    expected = expected.minimum(total)  # larger by rounding alone
    return torch.stack((total, expected, total - expected)).numpy()


@dataclass(frozen=True, slots=True)
class MeanUncertainty:
    """Mean of each map over some voxels of a case; None if there are none."""

    n_voxels: int
    entropy: float | None
    expected_entropy: float | None
    mutual_information: float | None


@dataclass(slots=True)
class UncertaintySums:
    """Sums of the maps of a case by predicted file value, to which slabs are added."""

    labels: Labels
    _counts: NDArray[np.int64] = field(init=False)
    """(V,): voxels of each file value."""
    _sums: NDArray[np.float64] = field(init=False)
    """(3, V)."""

    def __post_init__(self) -> None:
        n_values = max(self.labels.class_values) + 1
        self._counts, self._sums = np.zeros(n_values, dtype=np.int64), np.zeros((len(MAPS), n_values))

    def add(self, values: LabelMap, maps: Float32Array) -> None:
        """Add the voxels of a slab: predicted file values (planes, y, x) and the maps (3, planes, y, x)."""
        flat, n_values = values.reshape(-1), len(self._counts)
        self._counts += np.bincount(flat, minlength=n_values)
        self._sums += [np.bincount(flat, own.reshape(-1), n_values) for own in maps]

    def of_head(self, head: Head) -> MeanUncertainty:
        """Return the means over the voxels predicted as a class or region."""
        return self._mean(list(head.values))

    def of_foreground(self) -> MeanUncertainty:
        """Return the means over the voxels predicted as any class but background."""
        background = background_value(self.labels)
        return self._mean([value for value in self.labels.class_values if value != background])

    def of_image(self, n_voxels: int) -> MeanUncertainty:
        """Return the means over an image of ``n_voxels``; those that were not added, outside the crop, count as 0."""
        return self._mean(list(self.labels.class_values), n_voxels)

    def _mean(self, values: list[int], n_voxels: int | None = None) -> MeanUncertainty:
        n_voxels = int(self._counts[values].sum()) if n_voxels is None else n_voxels
        if not n_voxels:
            return MeanUncertainty(0, None, None, None)
        return MeanUncertainty(n_voxels, *(self._sums[:, values].sum(axis=1) / n_voxels).tolist())
