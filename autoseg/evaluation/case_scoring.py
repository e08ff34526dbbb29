"""Scores of one case: its reference and its predictions, each of any size and format, read once and box by box."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autoseg.cases.label_codes import apply_mask, check_mask_marks, check_mask_shape, classes_and_objects
from autoseg.core.arrays import Shape3
from autoseg.core.boxes import Box, blocks
from autoseg.core.errors import AutosegError, EvaluationError, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.labels import Labels, background_value
from autoseg.evaluation.case_sums import CaseSums, LabelBox, add_to
from autoseg.evaluation.cases import CaseMetrics, case_metrics
from autoseg.evaluation.grids import Grid, placing, stated_geometry
from autoseg.evaluation.label_boxes import IN_MEMORY_VOXELS, Known, LabelBoxes, box_shape, open_known, open_label_boxes
from autoseg.evaluation.surface_scores import SurfaceScores, surface_scores


@dataclass(frozen=True, slots=True)
class Job:
    """One case to score, as it is sent to a worker process."""

    case: str
    reference: Path
    predictions: tuple[Path | None, ...]
    """Prediction in each of the scored folders; None if a folder has none for the case."""
    labels: Labels
    mask: Path | None = None
    """Valid mask of the reference; None if it has none."""
    tolerance_mm: float | None = None
    """Of surface scores; None computes none."""
    images: tuple[Path, ...] = ()
    """Image of the case, whose missing tiles do not count; () if the reference alone decides."""

    def __repr__(self) -> str:
        return self.case

    @property
    def files(self) -> CaseFiles:
        """The reference as label file of a case."""
        return CaseFiles(self.case, (), label=self.reference, valid_mask=self.mask)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of one prediction."""

    metrics: CaseMetrics
    warnings: tuple[str, ...]


Outcome = Scored | AutosegError | None
"""Result for one prediction: its metrics, an error, or None if there is no prediction."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """Reference of a case."""

    job: Job
    values: LabelBoxes
    mask: LabelBoxes | None
    images: tuple[Known, ...] = ()

    def read(self, box: Box) -> LabelBox:
        """Return a box. Voxels of missing tiles of the labels are unannotated, whatever the mask says."""
        values = self.values.read(box)
        valid = None if self.mask is None else self.mask.read(box) != 0
        known = self.values.known(box)
        if known is not None:
            fill = background_value(self.job.labels)
            values = np.where(known, values, np.array(fill, dtype=np.min_scalar_type(fill)))
            valid = known if valid is None else valid & known
        of_channels = [seen for of_channel in self.images if (seen := of_channel(box)) is not None]
        seen = np.logical_and.reduce(of_channels) if of_channels else None
        return LabelBox(*classes_and_objects(values, self.job.labels, self.job.reference), valid, seen)


@dataclass
class _Prediction:
    """Prediction of a case, on the grid of its reference."""

    path: Path
    values: LabelBoxes
    geometry: Geometry
    """As the file states it."""
    doubt: str | None
    """Warning about its grid."""
    sums: list[CaseSums] = field(default_factory=list)
    """Of boxes that were scored, in parts (:func:`autoseg.evaluation.case_sums.add_to`)."""

    @property
    def total(self) -> CaseSums:
        """The sums of the whole case."""
        return sum(reversed(self.sums), CaseSums())

    def read(self, box: Box, job: Job) -> LabelBox:
        """Return a box. Raises ``EvaluationError`` if tiles are missing."""
        if self.values.known(box) is not None:
            raise EvaluationError(
                f"prediction of case {job.case!r} ({self.path}): found missing tiles in {box}, expected a class in "
                "every voxel. Bring back the tiles, or predict the case again."
            )
        return LabelBox(*classes_and_objects(self.values.read(box), job.labels, self.path))


def score(job: Job) -> tuple[Outcome, ...]:
    """Score the predictions of a case, and return what became of each of them.

    Memory depends on the boxes that are scored at once (``BOX_VOXELS``), and on the number of objects; image files
    that are not read in boxes are in memory as a whole. All sums are of integers, so that no score depends on the
    boxes. Raises ``AutosegError`` for errors of the reference.
    """
    reference = _open_reference(job)
    _check_surface(job, reference.values.shape)
    predictions = [None if path is None else _open_prediction(job, path, reference) for path in job.predictions]
    opened = [item for item in predictions if isinstance(item, _Prediction)]
    shape = reference.values.shape
    size = box_shape(shape, [reference.values.chunk, *(item.values.chunk for item in opened)])
    for box in blocks(Box.whole(shape), size):
        if not any(isinstance(item, _Prediction) for item in predictions):
            break
        drawn = reference.read(box)
        for place, prediction in enumerate(predictions):
            if isinstance(prediction, _Prediction):
                try:
                    add_to(prediction.sums, CaseSums.of(drawn, prediction.read(box, job), job.labels, job.case))
                except AutosegError as error:
                    predictions[place] = error
    return tuple(_scored(job, reference, item) if isinstance(item, _Prediction) else item for item in predictions)


def _open_reference(job: Job) -> _Reference:
    values = open_label_boxes(job.reference, allow_nan=NAN_VALUE in job.labels.file_values())
    images = tuple(open_known(path, values.shape) for path in job.images)
    if job.mask is None:
        return _Reference(job, values, None, images)
    try:
        mask = open_label_boxes(job.mask)
    except FileFormatError as error:
        fault = replace(error.fault, where=f"valid mask of case {job.case!r}: {error.fault.where}")
        raise FileFormatError(fault) from error
    check_mask_shape(job.files, mask.shape, values.shape)
    return _Reference(job, values, mask, images)


def _open_prediction(job: Job, path: Path, reference: _Reference) -> _Prediction | AutosegError:
    try:
        values = open_label_boxes(path)
        grid = Grid(job.reference, reference.values.shape, reference.values.geometry)
        order, doubt = placing(grid, values.shape, values.geometry, case=job.case, path=path)
    except AutosegError as error:
        return error
    return _Prediction(path, values.turned(order), values.geometry, doubt)


def _scored(job: Job, reference: _Reference, prediction: _Prediction) -> Scored | AutosegError:
    """Return the scores of a prediction from its sums; errors are returned, not raised."""
    geometry = stated_geometry(reference.values.geometry, prediction.geometry)
    labels, sums = job.labels, prediction.total
    try:
        counts = sums.head_counts(labels, job.case)
        if reference.mask is not None:
            check_mask_marks(job.files, labels, has_marks=sums.n_valid > 0)
        if not any(counts[head].n_decided for head in labels.foreground_heads):
            raise EvaluationError(
                f"reference of case {job.case!r} ({job.reference}): no annotated voxel of any class, expected at "
                "least one. Annotate some voxels, or remove the file from the references."
            )
        surface = _surface(job, reference, prediction, geometry.spacing)
    except AutosegError as error:
        return error
    metrics = case_metrics(
        job.case,
        str(job.reference),
        str(prediction.path),
        labels,
        counts,
        n_voxels=math.prod(reference.values.shape),
        voxel_volume=geometry.voxel_volume,
        surface=surface,
    )
    metrics = metrics.model_copy(update={"instances": sums.instance_scores()})
    warnings = (prediction.doubt, _absence_warning(job, metrics))
    return Scored(metrics, tuple(warning for warning in warnings if warning is not None))


def _check_surface(job: Job, shape: Shape3) -> None:
    """Raise ``EvaluationError`` if surface scores are asked for a case of more than ``IN_MEMORY_VOXELS``."""
    n_voxels = math.prod(shape)
    if job.tolerance_mm is not None and n_voxels > IN_MEMORY_VOXELS:
        raise EvaluationError(
            f"case {job.case!r} ({job.reference}): found {n_voxels} voxels, expected at most {IN_MEMORY_VOXELS} for "
            "surface scores, whose distances need the whole case in memory. Leave out --surface, or score parts of it."
        )


def _surface(
    job: Job, reference: _Reference, prediction: _Prediction, spacing: tuple[float, ...]
) -> Mapping[str, SurfaceScores]:
    """Return key of a head -> surface scores, for which all voxels are read at once; {} if they were not asked for."""
    if job.tolerance_mm is None:
        return {}
    whole = Box.whole(reference.values.shape)
    drawn, predicted = reference.read(whole), prediction.read(whole, job)
    classes, labels = apply_mask(drawn.classes, drawn.annotated, job.labels)
    return surface_scores(classes, predicted.classes, labels, spacing, job.tolerance_mm, case=job.case)


def _absence_warning(job: Job, metrics: CaseMetrics) -> str | None:
    """Return a warning if the reference contains a class that dataset.json declares absent; otherwise None."""
    names = {head.key: head.name for head in job.labels.heads}
    drawn = [names[key] for key in metrics.absent if metrics.metrics[key].n_ref]
    if not drawn:
        return None
    return (
        f"reference of case {job.case!r} ({job.reference}): found voxels of {', '.join(drawn)}, expected none because "
        f"of dataset.json: cases.{job.case}.absent. Correct one of the two."
    )
