"""Effect of cleaning a prediction: the change of true and false positives by each component and each hole.

The counts of every choice of components follow from these sums, so that each file is read once for many choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.label_codes import apply_mask, classes_and_objects, read_valid_mask
from autoseg.cases.layers import class_indices
from autoseg.core.arrays import BoolArray
from autoseg.core.errors import AutosegError
from autoseg.core.geometry import Geometry
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.labels import Labels, head_states
from autoseg.evaluation.grids import Grid, placed_on
from autoseg.evaluation.metrics import count_pairs
from autoseg.evaluation.postprocessing import Change, Step, changed_by, chosen_parts
from autoseg.io.images import read_labels


class ScoredFiles(NamedTuple):
    """Files of one case."""

    case: str
    reference: Path
    prediction: Path
    mask: Path | None = None
    """Valid mask of the reference; None if it has none."""
    images: tuple[Path, ...] = ()
    """Image of the case, of which missing tiles are unannotated; () if the reference alone decides."""


class Counts(NamedTuple):
    """Voxels of each head (H,) in a case, over the voxels that its reference decides."""

    true_positive: NDArray[np.int64]
    false_positive: NDArray[np.int64]
    reference: NDArray[np.int64]

    @property
    def dice(self) -> NDArray[np.float64]:
        """(H,) Dice; NaN where neither map has a voxel."""
        total = self.true_positive + self.false_positive + self.reference  # 2 TP + FP + FN
        scores: NDArray[np.float64] = np.full(len(total), np.nan)
        np.divide(2.0 * self.true_positive, total, out=scores, where=total > 0)
        return scores


@dataclass(frozen=True, slots=True)
class Effect:
    """Change of the counts of all heads by each of C components or holes."""

    n_voxels: NDArray[np.int64]
    """(C,) voxels of the part."""
    true_positive: NDArray[np.int64]
    """(C, H)."""
    false_positive: NDArray[np.int64]
    """(C, H)."""


@dataclass(frozen=True, slots=True)
class CaseEffects:
    """Counts of one case, and the effects of further changes on them."""

    case: str
    geometry: Geometry
    is_dense: BoolArray
    """(H,) whether the reference decides every voxel for the head."""
    counts: Counts
    effects: tuple[Effect, ...]
    """One per change that was asked for."""

    def after(self, step: Step, index: int) -> Counts:
        """Return the counts after ``step``, whose change is that with ``index``."""
        effect = self.effects[index]
        chosen = chosen_parts(step, effect.n_voxels, self.geometry)
        return Counts(
            self.counts.true_positive + effect.true_positive[chosen].sum(axis=0),
            self.counts.false_positive + effect.false_positive[chosen].sum(axis=0),
            self.counts.reference,
        )


@dataclass(frozen=True, slots=True)
class _Job:
    files: ScoredFiles
    labels: Labels
    steps: tuple[Step, ...]
    changes: tuple[Change, ...]

    def __repr__(self) -> str:
        return self.files.case


@dataclass(frozen=True, slots=True)
class _Reference:
    """Content of a reference."""

    classes: NDArray[np.integer[Any]]
    """(z, y, x) file values of classes."""
    labels: Labels
    """Meaning of ``classes``. If a mask was applied, it has an ignore value, which the data set may not have."""
    geometry: Geometry


def _read_reference(files: ScoredFiles, labels: Labels) -> _Reference:
    """Return the content of a reference.

    Where its valid mask is 0, and in missing tiles, the reference has an ignore value, which ``labels`` may not have.
    Raises ``FileFormatError`` if a file cannot be read, or holds numbers of no object, and ``DatasetError`` if the mask
    does not fit.
    """
    has_nan = NAN_VALUE in labels.file_values()
    path = files.reference
    values, geometry = read_labels(path, allow_nan=True) if has_nan else read_labels(path)
    own = CaseFiles(files.case, files.images, label=path, valid_mask=files.mask)
    valid = read_valid_mask(own, labels, values.shape)
    classes, _ = classes_and_objects(values, labels, path)
    return _Reference(*apply_mask(classes, valid, labels), geometry)


def measure_effects(
    files: Sequence[ScoredFiles],
    labels: Labels,
    steps: Sequence[Step],
    changes: Sequence[Change],
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> list[CaseEffects]:
    """Return the counts of all cases after ``steps``, and the effects of ``changes`` on them.

    ``changes`` are alternatives: each is measured on the result of ``steps``. Raises the ``AutosegError`` of the first
    case whose files cannot be compared.
    """
    jobs = [_Job(item, labels, tuple(steps), tuple(changes)) for item in files]
    results = map_ordered(_measure, jobs, [item.case for item in files], workers=workers, progress=progress)
    measured = []
    for result in results:
        if isinstance(result, AutosegError):
            raise result
        measured.append(result)
    return measured


def _measure(job: _Job) -> CaseEffects:
    """Return the effects in one case."""
    files = job.files
    reference = _read_reference(files, job.labels)
    geometry = reference.geometry
    grid = Grid(files.reference, reference.classes.shape, geometry)
    prediction, _ = placed_on(grid, *read_labels(files.prediction), case=files.case, path=files.prediction)
    classes: NDArray[np.integer] = class_indices(prediction, job.labels)
    for step in job.steps:
        classes = changed_by(step, classes, geometry, job.labels)
    codes, label_sets = reference.labels.encode(reference.classes, files.case)
    positive, negative = head_states(label_sets, job.labels.regions)
    pairs = count_pairs(codes, classes)
    inside = pairs.counts @ job.labels.regions[:, pairs.prediction_values].T.astype(np.int64)  # (codes, H)
    is_positive, is_negative = positive[pairs.reference_values], negative[pairs.reference_values]
    return CaseEffects(
        files.case,
        geometry,
        np.asarray(np.all(is_positive | is_negative, axis=0)),
        Counts(
            (inside * is_positive).sum(axis=0),
            (inside * is_negative).sum(axis=0),
            (pairs.counts.sum(axis=1, keepdims=True) * is_positive).sum(axis=0),
        ),
        tuple(_effect(change, classes, codes, positive, negative, geometry.ndim) for change in job.changes),
    )


def _effect(
    change: Change,
    classes: NDArray[np.integer],
    codes: NDArray[np.integer],
    positive: BoolArray,
    negative: BoolArray,
    ndim: int,
) -> Effect:
    """Return the effect of a change on class indices (z, y, x), against codes (z, y, x) with states (N, H)."""
    parts = change.parts(classes, ndim=ndim)
    places = parts.numbers > 0
    shape = (len(parts.n_voxels), change.labels.n_classes, len(positive))
    index = (parts.numbers[places] - 1, classes[parts.box][places], codes[parts.box][places])
    keys, n_voxels = np.unique(np.ravel_multi_index(index, shape), return_counts=True)
    part, before, code = np.unravel_index(keys, shape)
    regions = change.labels.regions.astype(np.int64)
    moved = (regions[:, change.becomes[before]] - regions[:, before]).T * n_voxels[:, np.newaxis]  # (rows, H)
    true_positive, false_positive = np.zeros((2, len(parts.n_voxels), len(regions)), dtype=np.int64)
    np.add.at(true_positive, part, moved * positive[code])
    np.add.at(false_positive, part, moved * negative[code])
    return Effect(parts.n_voxels, true_positive, false_positive)
