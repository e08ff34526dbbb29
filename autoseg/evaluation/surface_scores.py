"""Surface scores of every head of a case, and their means over cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import BoolArray
from autoseg.core.means import mean_known
from autoseg.dataset.labels import Labels, head_states
from autoseg.evaluation.surface import SurfaceDistances, surface_distances


class SurfaceScores(BaseModel):
    """Surface scores of one class or region in one case."""

    model_config = ConfigDict(frozen=True)

    HD95: float | None
    """Hausdorff distance, 95th percentile, mm. Null if reference or prediction has no surface."""
    ASSD: float | None
    """Average symmetric surface distance, mm. Null if reference or prediction has no surface."""
    NSD: float | None
    """Normalised surface Dice at the tolerance, 0 to 1. 0 if only one of both has a surface, null if neither has."""

    @classmethod
    def of(cls, distances: SurfaceDistances, tolerance_mm: float) -> SurfaceScores:
        """Return the scores that follow from distances."""
        return cls(HD95=distances.hd95, ASSD=distances.assd, NSD=distances.nsd(tolerance_mm))


class SurfaceMeans(BaseModel):
    """Means of surface scores of one class or region over cases."""

    model_config = ConfigDict(frozen=True)

    HD95: float | None
    """mm, over the cases in which both have a surface; null without any."""
    ASSD: float | None
    """mm, over the same cases."""
    NSD: float | None
    """Over the cases in which at least one of both has a surface; null without any."""
    n_cases: int
    """Cases in HD95 and ASSD."""
    n_one_sided: int
    """Cases in which only reference or only prediction has a surface. They have no distance, and an NSD of 0."""


def surface_scores(
    reference: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    labels: Labels,
    spacing: Sequence[float],
    tolerance_mm: float,
    *,
    case: str = "",
) -> dict[str, SurfaceScores]:
    """Return key of a foreground head -> its surface scores, over the voxels that the reference decides for it.

    Parameters
    ----------
    reference
        (z, y, x) declared file values, the ignore value and those of label sets included.
    prediction
        (z, y, x) values of classes.
    labels
        Meaning of the values.
    spacing
        mm, (z, y, x).
    tolerance_mm
        Largest distance that counts as agreement for the NSD.
    case
        Name of the case in ``dataset.json: cases``.
    """
    scores = {}
    for head, predicted, positive, decided in _masks(reference, prediction, labels, case):
        distances = surface_distances(predicted, positive, None if decided.all() else decided, spacing)
        scores[head] = SurfaceScores.of(distances, tolerance_mm)
    return scores


def mean_surface_scores(cases: Sequence[Mapping[str, SurfaceScores]], keys: Sequence[str]) -> dict[str, SurfaceMeans]:
    """Return key of a head -> means over cases; cases without an entry for a head are left out."""
    means = {}
    for key in keys:
        rows = [scores[key] for scores in cases if key in scores]
        distances = [(row.HD95, row.ASSD) for row in rows if row.HD95 is not None and row.ASSD is not None]
        shares = [row.NSD for row in rows if row.NSD is not None]
        means[key] = SurfaceMeans(
            HD95=mean_known([hausdorff for hausdorff, _ in distances]),
            ASSD=mean_known([average for _, average in distances]),
            NSD=mean_known(shares),
            n_cases=len(distances),
            n_one_sided=len(shares) - len(distances),
        )
    return means


def _masks(
    reference: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]], labels: Labels, case: str
) -> Iterator[tuple[str, BoolArray, BoolArray, BoolArray]]:
    """Yield (key, predicted, positive, decided), masks (z, y, x), for every foreground head."""
    codes, label_sets = labels.encode(reference, case)
    positive, negative = head_states(label_sets, labels.regions)  # (N, H)
    value_of_class = np.array(labels.class_values)
    for index in labels.foreground_heads:
        inside = value_of_class[labels.regions[index]]
        is_decided = positive[:, index] | negative[:, index]
        yield labels.heads[index].key, np.isin(prediction, inside), positive[:, index][codes], is_decided[codes]
