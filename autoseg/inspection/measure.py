"""Measures of a data set: shapes, spacings, and intensities of voxels that are certainly foreground."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.label_counts import count_values
from autoseg.cases.case import Target
from autoseg.cases.label_codes import read_annotation
from autoseg.core.chunks import slabs
from autoseg.core.errors import AutosegError, DatasetError, Fault, FileFormatError, WorkerError
from autoseg.core.fingerprint import Fingerprint, IntensityProperties
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import order_towards, orientation_name, prevailing_direction
from autoseg.core.parallel import Workers, map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels, annotated_codes, foreground_codes, head_states, informative_codes
from autoseg.inspection.annotation_outside import BorderAnnotation, border_annotation
from autoseg.inspection.case_measure import CaseMeasure
from autoseg.inspection.coverage import share_in_slices
from autoseg.inspection.intensities import Sketch, Sketcher, knots_per_case, merge, properties, robust_properties
from autoseg.inspection.sampled_volume import sample_body
from autoseg.inspection.target_sums import TargetSums, target_properties
from autoseg.inspection.volume_check import measure_volume
from autoseg.io.images import read_intensities
from autoseg.preprocessing.crop import box_slices, content_box, count_outside, nonzero_mask
from autoseg.preprocessing.freshness import case_stamps
from autoseg.preprocessing.volume_size import is_large

_log = logging.getLogger(__name__)

MIN_FOREGROUND_VOXELS = 1000
"""With fewer annotated foreground voxels in the whole data set, intensity statistics are those of the body."""

READING_VERSION = 2
"""Number to be raised when the same files are read or measured differently; fingerprints are then extracted again."""

"""Called with (cases done, cases in all, name of the case just done)."""

Result = TypeVar("Result")


def extract_fingerprint(
    dataset: Dataset,
    workers: Workers = 1,
    progress: Progress = silent,
    *,
    skip: frozenset[str] = frozenset(),
) -> Fingerprint:
    """Measure all training cases.

    Intensity statistics come from voxels that are certainly foreground, whatever the annotation style. Unannotated
    voxels, which nnU-Net counts as foreground, never contribute. With fewer than 1,000 such voxels in the whole data
    set the statistics are robust ones of the body (voxels inside the non-zero region), with a warning.

    Parameters
    ----------
    workers
        Number of processes that read cases.
    progress
        Called after every case.
    skip
        Names of cases that are not measured, for example those without annotation.

    Raises
    ------
    DatasetError, FileFormatError
        If a case cannot be read, or its image and labels differ in shape; the message names the case.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``dataset_fingerprint/fingerprint_extractor.py``; in both, every case with foreground has the
    same weight. We count all voxels, nnU-Net a random sample.
    """
    cases = [case for case in dataset.cases if case.name not in skip]
    measure = partial(measure_case, labels=dataset.labels, n_knots=knots_per_case(len(dataset.cases)))
    measures = _measure_all(measure, cases, workers, progress)
    named = {case.name: measured for case, measured in zip(cases, measures, strict=True)}
    return fingerprint_of(dataset, named, workers=workers)


def fingerprint_of(dataset: Dataset, measures: Mapping[str, CaseMeasure], *, workers: Workers = 1) -> Fingerprint:
    """Return the fingerprint of a data set from the measures (case -> measure) of some of its cases.

    If too little foreground is annotated, the images are read once more, by ``workers`` processes. Raises
    ``DatasetError`` if there is no case.
    """
    cases = [case for case in dataset.cases if case.name in measures]
    if not cases:
        raise DatasetError(
            [Fault(dataset.name, "no case to measure", "at least one training case", "Add images with labels.")]
        )
    ordered = [measures[case.name] for case in cases]
    n_foreground = sum(measure.n_foreground for measure in ordered)
    intensities, source = _intensities(dataset, cases, ordered, n_foreground, workers)
    direction = prevailing_direction(measure.geometry for measure in ordered)
    orders = [order_towards(measure.geometry, direction) for measure in ordered]
    has_volumes = any(case.volume is not None for case in cases)
    is_cropped = not (dataset.labels.targets or has_volumes or any(measure.outside.foreground for measure in ordered))
    shapes = [measure.shape_after_crop if is_cropped else measure.shape for measure in ordered]
    return Fingerprint(
        spacings=tuple(order.permuted(item.geometry.spacing) for item, order in zip(ordered, orders, strict=True)),
        shapes_after_crop=tuple(order.permuted(shape) for shape, order in zip(shapes, orders, strict=True)),
        foreground_intensity_properties_per_channel={str(i): item for i, item in enumerate(intensities)},
        median_relative_size_after_cropping=float(
            np.median([math.prod(shape) / math.prod(item.shape) for shape, item in zip(shapes, ordered, strict=True)])
        ),
        cases=tuple(case.name for case in cases),
        intensity_source={str(i): source for i in range(len(intensities))},
        foreground_voxels=n_foreground,
        annotated_fraction={case.name: measure.annotated for case, measure in zip(cases, ordered, strict=True)},
        drawn_fraction={case.name: measure.drawn for case, measure in zip(cases, ordered, strict=True)},
        annotated_in_slices={case.name: measure.in_slices for case, measure in zip(cases, ordered, strict=True)},
        annotated_classes={case.name: measure.heads for case, measure in zip(cases, ordered, strict=True)},
        direction=direction,
        turned={
            case.name: orientation_name(direction, order)
            for case, order in zip(cases, orders, strict=True)
            if direction is not None and not order.is_identity
        },
        foreground_outside={
            case.name: item.outside.foreground
            for case, item in zip(cases, ordered, strict=True)
            if item.outside.foreground
        },
        background_outside={
            case.name: item.outside.background
            for case, item in zip(cases, ordered, strict=True)
            if item.outside.background
        },
        targets=target_properties(dataset.labels.targets, [measure.targets for measure in ordered]),
        source_hash=source_hash(dataset),
        has_volumes=has_volumes,
    )


def fingerprint_is_current(fingerprint: Fingerprint, dataset: Dataset) -> bool:
    """Whether dataset.json and all files of training cases are unchanged since the fingerprint was extracted."""
    return fingerprint.source_hash == source_hash(dataset)


def source_hash(dataset: Dataset) -> str:
    """Return a hash of dataset.json, of the stamps of all training files (:func:`case_stamps`) and of the version."""
    digest = hashlib.sha256(json.dumps([READING_VERSION, dict(dataset.json)], sort_keys=True, default=str).encode())
    for case in dataset.cases:
        digest.update(json.dumps([case.name, case_stamps(case)]).encode())
    return digest.hexdigest()


def measure_case(case: CaseFiles, labels: Labels, n_knots: int) -> CaseMeasure:
    """Read and measure one case with ``n_knots`` points per channel; a case without a label file has no foreground.

    Of a case that is too large for memory, blocks are measured (:mod:`autoseg.inspection.sampled_volume`).
    """
    if is_large(case):
        return measure_volume(case, labels, n_knots)
    image, geometry = read_intensities(case.images)
    z, y, x = image.shape[1:]
    target = None if case.label is None else read_annotation(case, labels, (z, y, x))
    return measure_arrays(image, geometry, target, labels, n_knots)


def measure_arrays(
    image: NDArray[Any], geometry: Geometry, target: Target | None, labels: Labels, n_knots: int
) -> CaseMeasure:
    """Measure an image (C, *S) and its target, slab by slab, without further arrays of their size.

    Parameters
    ----------
    target
        Codes (*S) and label sets (N, K); None for a case without annotation.
    n_knots
        Largest number of points of each channel's sketch.
    """
    low, high = content_box(image)
    outside = (
        BorderAnnotation()
        if target is None
        else border_annotation(count_outside(target.codes, low, high), target.label_sets)
    )
    # either all cases are cropped or none; if this one forbids it, statistics are those of the whole image
    window = (slice(None),) * 3 if outside.foreground else box_slices(low, high)
    annotated, drawn, in_slices, heads = (0.0, 0.0, 0.0, ()) if target is None else _annotation(target, labels)
    z, y, x = image.shape[1:]
    after_z, after_y, after_x = (stop - start for start, stop in zip(low, high, strict=True))
    n_foreground = 0
    sketchers = [Sketcher(n_knots) for _ in image]
    if target is not None:
        cropped, codes = image[(slice(None), *window)], target.codes[window]
        is_foreground = foreground_codes(target.label_sets)
        for slab in slabs(codes.shape):
            inside = is_foreground[codes[slab]]
            n_inside = int(np.count_nonzero(inside))
            n_foreground += n_inside
            for channel, sketcher in zip(cropped, sketchers, strict=True):
                if n_inside:
                    sketcher.add(channel[slab][inside])
    return CaseMeasure(
        geometry=geometry.model_copy(update={"metadata": {}}),
        shape=(z, y, x),
        shape_after_crop=(after_z, after_y, after_x),
        annotated=annotated,
        drawn=drawn,
        in_slices=in_slices,
        heads=heads,
        n_foreground=n_foreground,
        outside=outside,
        intensities=tuple(sketcher.finish() for sketcher in sketchers),
        targets=() if target is None or target.numbers is None else tuple(map(TargetSums.of, target.numbers)),
    )


def measure_body(case: CaseFiles, n_knots: int) -> tuple[Sketch | None, ...]:
    """Read one image and return the sketch of each channel inside its body: the non-zero region, or all if it is 0."""
    if is_large(case):
        return sample_body(case, n_knots)
    image, _ = read_intensities(case.images)
    body = nonzero_mask(image)
    if not body.any():
        body = np.ones_like(body)
    sketchers = [Sketcher(n_knots) for _ in image]
    for slab in slabs(body.shape):
        for channel, sketcher in zip(image, sketchers, strict=True):
            sketcher.add(channel[slab][body[slab]])
    return tuple(sketcher.finish() for sketcher in sketchers)


def _annotation(target: Target, labels: Labels) -> tuple[float, float, float, tuple[int, ...]]:
    """Return the shares of informative, of annotated voxels, of these in whole slices, and the heads with a voxel."""
    voxels = count_values(target.codes)
    is_informative = informative_codes(target.label_sets)
    is_drawn = annotated_codes(target.label_sets, target.undrawn)
    informative, drawn = (
        sum(number for code, number in voxels.items() if counts[code]) / max(target.codes.size, 1)
        for counts in (is_informative, is_drawn)
    )
    positive, _ = head_states(target.label_sets, labels.regions)
    heads = np.flatnonzero(positive[list(voxels)].any(axis=0))
    in_slices = 1.0 if drawn == 1 else share_in_slices(target.codes, is_drawn)
    return informative, drawn, in_slices, tuple(heads.tolist())


def _intensities(
    dataset: Dataset, cases: Sequence[CaseFiles], measures: Sequence[CaseMeasure], n_foreground: int, workers: Workers
) -> tuple[list[IntensityProperties], str]:
    """Return the statistics per channel, and their source: ``"foreground"`` or ``"body"``."""
    pooled = _pool([measure.intensities for measure in measures])
    if n_foreground >= MIN_FOREGROUND_VOXELS and None not in pooled:
        return [properties(item) for item in pooled if item is not None], "foreground"
    _log.warning(
        "%s: only %d voxels are annotated as foreground; intensity statistics need at least %d. Robust statistics of "
        "all voxels inside the body are used instead. Annotate more if contrast matters (CT).",
        dataset.name,
        n_foreground,
        MIN_FOREGROUND_VOXELS,
    )
    n_knots = knots_per_case(len(dataset.cases))
    body = _pool(_measure_all(partial(measure_body, n_knots=n_knots), cases, workers))
    return [_NO_VALUES if item is None else robust_properties(item) for item in body], "body"


_NO_VALUES = IntensityProperties(
    mean=0.0, median=0.0, std=0.0, min=0.0, max=0.0, percentile_99_5=0.0, percentile_00_5=0.0
)
"""Statistics of a channel without a finite value."""


def _pool(cases: Sequence[tuple[Sketch | None, ...]]) -> list[Sketch | None]:
    """Merge the sketches of each channel over all cases; None for a channel without values."""
    pooled: list[Sketch | None] = []
    for channel in zip(*cases, strict=True):
        present = [item for item in channel if item is not None]
        pooled.append(merge(present) if present else None)
    return pooled


def _measure_all(
    function: Callable[[CaseFiles], Result], cases: Sequence[CaseFiles], workers: Workers, progress: Progress = silent
) -> list[Result]:
    """Apply ``function`` to all cases; return results in case order, or raise the errors with the case names."""
    names = [case.name for case in cases]
    results = map_ordered(function, cases, names, workers=workers, progress=progress)
    errors = {name: item for name, item in zip(names, results, strict=True) if isinstance(item, AutosegError)}
    if errors:
        raise _named(errors)
    return [item for item in results if not isinstance(item, AutosegError)]


def _named(errors: Mapping[str, AutosegError]) -> AutosegError:
    """Return one error for all failed cases: all their faults, or the first error of another kind with its case."""
    ordered = list(errors.values())
    faults = [fault for error in ordered if isinstance(error, DatasetError) for fault in error.faults]
    if len(faults) >= len(ordered) and all(isinstance(error, DatasetError) for error in ordered):
        return DatasetError(faults)
    name, error = next((name, error) for name, error in errors.items() if not isinstance(error, DatasetError))
    more = f" ({len(errors) - 1} further cases failed)" if len(errors) > 1 else ""
    if isinstance(error, FileFormatError | WorkerError) and error.fault is not None:
        fault = error.fault
        return type(error)(replace(fault, where=f"case {name!r}: {fault.where}", fix=fault.fix + more))
    return type(error)(f"case {name!r}: {error}{more}")
