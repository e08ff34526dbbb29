"""Check and measures of a case that is too large for memory, from metadata and evenly spread blocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from autoseg.annotation.label_counts import CaseAnnotation, voxels_by_code
from autoseg.core.errors import DatasetError, Fault, FileFormatError
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels, head_states
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.inspection.annotation_outside import BorderAnnotation
from autoseg.inspection.case_check import CaseCheck, check_counts, image_faults, image_warnings, missing_warnings
from autoseg.inspection.case_measure import CaseMeasure
from autoseg.inspection.sampled_volume import SampledImage, SampledLabels, sample_image, sample_labels
from autoseg.inspection.voxel_sizes import VoxelSize
from autoseg.io.arrays import open_volume
from autoseg.io.stored_array import StoredArray
from autoseg.preprocessing.volume_annotation import open_annotation
from autoseg.preprocessing.volume_size import refused


def survey_volume(
    case: CaseFiles, labels: Labels, n_channels: int, n_knots: int, protocol: AnnotationProtocol | None = None
) -> tuple[CaseCheck, CaseMeasure | None]:
    """Check a case of a volume, and measure it unless it has faults or no annotation; at most about 1 GB is used.

    Parameters
    ----------
    n_channels
        Number of channels that the image must have; 0 if it is not known.
    n_knots
        Largest number of points of each channel's sketch.
    protocol
        Promises of the annotators, which are faults; None if there are none.
    """
    faults = list(refused(case, labels, protocol))
    try:
        image = open_volume(case.images)
        annotation = None if case.label is None or not labels.n_classes else open_annotation(case, labels)
    except FileFormatError as error:
        return CaseCheck((*faults, replace(error.fault, where=f"case {case.name!r}: {error.fault.where}"))), None
    except DatasetError as error:
        return CaseCheck((*faults, *error.faults)), None
    if faults:
        return CaseCheck(tuple(faults)), None
    try:
        sample = sample_image(image, None, n_knots) if annotation is None else None
        counted_labels = None if annotation is None else sample_labels(annotation)
        check = _checked(case, image, labels, counted_labels)
        if annotation is not None and not check.undeclared:
            sample = sample_image(image, annotation, n_knots)
    except FileFormatError as error:
        return CaseCheck((replace(error.fault, where=f"case {case.name!r}: {error.fault.where}"),)), None
    if sample is None:
        return check, None
    faults = image_faults(case, sample.conditions, n_channels)
    warnings = image_warnings(case, sample.conditions)
    warnings += [text for path in case.images for text in missing_warnings(case, path)]
    warnings += [] if case.label is None else missing_warnings(case, case.label, as_labels=True)
    check = replace(check, faults=(*faults, *check.faults), warnings=(*warnings, *check.warnings))
    if check.faults or check.annotation is None or not check.annotation.informative or counted_labels is None:
        return check, None
    return check, _measured(case, image, labels, sample, check.annotation, counted_labels)


def _checked(case: CaseFiles, image: StoredArray, labels: Labels, found: SampledLabels | None) -> CaseCheck:
    """Compare the labels with dataset.json."""
    geometry = image.geometry.model_copy(update={"metadata": {}})
    if found is None:
        return CaseCheck(geometry=geometry, size=VoxelSize.of(image.geometry))
    counts, declared = _with_ignored(found, labels)
    check = check_counts(case, counts, declared)
    remarks = image.header.remarks
    if found.share_read < 1:
        remarks = (
            *remarks,
            f"labels were sampled: {100 * found.share_read:.2g} % of the voxels were read; rare values may be missed",
        )
    return replace(check, geometry=geometry, size=VoxelSize.of(image.geometry), remarks=remarks)


def _with_ignored(found: SampledLabels, labels: Labels) -> tuple[dict[int, int], Labels]:
    """Return file value -> voxels, unannotated ones as the value ``ignore``, and labels that declare that value."""
    counts = dict(found.counts)
    if not found.n_unannotated:
        return counts, labels
    ignore = labels.ignore if labels.ignore is not None else max([*labels.file_values(), *counts]) + 1
    counts[ignore] = counts.get(ignore, 0) + found.n_unannotated
    return counts, replace(labels, ignore=ignore)


def _measured(
    case: CaseFiles,
    image: StoredArray,
    labels: Labels,
    sample: SampledImage,
    annotation: CaseAnnotation,
    found: SampledLabels,
) -> CaseMeasure:
    """Return the measures for the fingerprint."""
    numbers, label_sets = voxels_by_code(found.counts, labels, case.name)
    positive, _ = head_states(label_sets, labels.regions)
    return CaseMeasure(
        geometry=image.geometry.model_copy(update={"metadata": {}}),
        shape=image.spatial_shape,
        shape_after_crop=image.spatial_shape,
        annotated=annotation.annotated_fraction,
        drawn=annotation.drawn_fraction,
        in_slices=1.0 if annotation.drawn == annotation.voxels else sample.in_slices,
        heads=tuple(np.flatnonzero(positive[numbers > 0].any(axis=0)).tolist()),
        n_foreground=sample.n_foreground,
        outside=BorderAnnotation(),
        intensities=sample.foreground,
    )


def measure_volume(case: CaseFiles, labels: Labels, n_knots: int) -> CaseMeasure:
    """Measure a case without a check; parameters and result as :func:`autoseg.inspection.measure.measure_case`."""
    _, measure = survey_volume(case, labels, 0, n_knots)
    if measure is None:
        fault = Fault(
            f"case {case.name!r}", "faults, or no annotation", "a case that can be measured", "Check it first."
        )
        raise DatasetError([fault])
    return measure
