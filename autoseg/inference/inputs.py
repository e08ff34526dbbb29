"""Check, before anything is computed, that images fit a model: channels, axes, spacing, size, finite values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from autoseg.core.arrays import Float32Array
from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.findings import grouped_by_text
from autoseg.core.geometry import ASSUMED, FLAT_SPACING, Geometry
from autoseg.core.orientation import has_axes, orientation_name
from autoseg.core.plan import Configuration, Plan
from autoseg.io.images import read_header, read_remarks

UNUSUAL_SPACING = 3.0
"""Factor between the spacing and that of the training data from which a warning is given."""
IMPOSSIBLE_SPACING = 100.0
"""Factor from which the case is refused: the header is wrong (metres or micrometres instead of millimetres)."""
UNSTATED_SPACING = (FLAT_SPACING, 1.0, 1.0)
"""Spacing of training images that are pictures without a pixel size."""
LARGE_GB = 8
"""Needed memory in GiB from which a warning is given."""
CHANNEL_FIX = "Give one file per channel, <case>_0000, <case>_0001 ..., or one file that holds them all."
"""Way to give the channels of image files."""
BATCH = 256
"""Number of cases whose headers are checked at a time, so that memory does not grow with their number."""


@dataclass(frozen=True, slots=True)
class InputCheck:
    """Faults of the images given to a model, and warnings about them."""

    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    """Case -> reasons why it cannot be predicted; only cases that have any."""
    warnings: tuple[str, ...] = ()
    """Warnings about images that are probably not as intended, each naming the case."""


def check_inputs(
    cases: Mapping[str, Sequence[Path]],
    plans: Sequence[tuple[Plan, Configuration]],
    *,
    n_outputs: int,
    workers: int = 1,
) -> InputCheck:
    """Check the headers of all cases (case -> files in channel order) against the plans; reads no voxels.

    With the plans of several models, a fault or a warning that they share stands once. Cases with the same warning
    share a line.
    """
    faults: dict[str, tuple[Fault, ...]] = {}
    warnings: dict[str, tuple[str, ...]] = {}
    items = iter(cases.items())
    with ThreadPoolExecutor(max(1, workers)) as pool:
        while batch := list(islice(items, BATCH)):
            results = pool.map(lambda item: _check_files(item[0], item[1], plans, n_outputs), batch)
            for (name, _), (case_faults, texts) in zip(batch, results, strict=True):
                if case_faults:
                    faults[name] = case_faults
                if texts:
                    warnings[name] = texts
    return InputCheck(faults, tuple(grouped_by_text(warnings)))


def header_faults(
    where: str,
    shape: Sequence[int],
    geometry: Geometry,
    plan: Plan,
    configuration: Configuration,
    *,
    channel_fix: str = CHANNEL_FIX,
) -> tuple[Fault, ...]:
    """Return the reasons why an image of ``shape`` (C, z, y, x) cannot be predicted with the plan; empty if it can.

    ``channel_fix`` says how the right number of channels is given.
    """
    faults = [*_channel_faults(where, shape, plan, channel_fix)]
    if any(not math.isfinite(edge) or edge <= 0 for edge in geometry.spacing):
        faults.append(
            Fault(where, f"spacing {geometry.spacing}", "positive numbers (mm)", "Correct the header of the file.")
        )
        return tuple(faults)
    axes = _axis_fault(where, geometry, plan, configuration)
    if axes is not None:
        return (*faults, axes)
    factor = _spacing_factor(geometry, plan)
    if factor >= IMPOSSIBLE_SPACING:
        faults.append(
            Fault(
                where=where,
                found=f"spacing {_mm(geometry.spacing)}, {factor:.3g} times off the training data",
                expected=f"about {_mm(_trained_spacing(geometry, plan))}",
                fix=_spacing_fix(geometry, plan),
            )
        )
    return tuple(faults)


def header_warnings(
    shape: Sequence[int], geometry: Geometry, plan: Plan, configuration: Configuration, n_outputs: int
) -> tuple[str, ...]:
    """Return warnings about an image (C, z, y, x) without faults: direction missing, unusual spacing, much memory."""
    warnings = []
    if plan.direction is not None and not has_axes(geometry):
        warnings.append(
            f"found no direction of the axes in the file, expected one, as in the training data. The axes are "
            f"assumed to be those of the training data ({orientation_name(plan.direction)}). If they are not, left and "
            "right may be exchanged, for example."
        )
    factor = _spacing_factor(geometry, plan)
    if factor >= UNUSUAL_SPACING:
        warnings.append(
            f"found spacing {_mm(geometry.spacing)}, {factor:.1f} times off the training data's "
            f"{_mm(_trained_spacing(geometry, plan))}. The prediction may be poor."
        )
    resampled = _resampled_shape(shape[1:], geometry, plan, configuration)
    needed_gb = _needed_bytes(shape, resampled, configuration, n_outputs) / 2**30
    if needed_gb >= LARGE_GB:
        warnings.append(
            f"found {math.prod(resampled):.2g} voxels at the plan's spacing; with {n_outputs} outputs that "
            f"needs about {needed_gb:.0f} GB of memory. Cut the image, or predict at a lower resolution."
        )
    return tuple(warnings)


def image_fault(where: str, image: Float32Array) -> Fault | None:
    """Return a fault if an image (C, *S) holds NaN or infinite values, otherwise None."""
    broken = image.size - int(np.isfinite(image).sum())
    if not broken:
        return None
    return Fault(
        where, f"{broken} voxels that are NaN or infinite", "numbers only", "Replace them, or export it again."
    )


def _check_files(
    name: str, files: Sequence[Path], plans: Sequence[tuple[Plan, Configuration]], n_outputs: int
) -> tuple[tuple[Fault, ...], tuple[str, ...]]:
    """Return the faults of a case, and warnings about it and its files, none of which names the case."""
    where = f"case {name}"
    try:
        shape, geometry = _read_headers(files)
        remarks = [text for path in files for text in read_remarks(path)]
    except (FileFormatError, OSError) as error:
        return (Fault(where, f"files that cannot be read ({error})", "a readable image", "Replace them."),), ()
    faults = dict.fromkeys(fault for plan in plans for fault in header_faults(where, shape, geometry, *plan))
    if faults:
        return tuple(faults), ()
    warnings = [text for plan in plans for text in header_warnings(shape, geometry, *plan, n_outputs)]
    return (), tuple(dict.fromkeys([*warnings, *remarks]))


def _read_headers(files: Sequence[Path]) -> tuple[tuple[int, ...], Geometry]:
    """Return the shape (C, z, y, x) and geometry of a case; raise ``FileFormatError`` if its files disagree."""
    (first_shape, first), *others = [read_header(path) for path in files]
    for path, (shape, geometry) in zip(files[1:], others, strict=True):
        if shape[1:] != first_shape[1:] or first.differs_from(geometry):
            different = first.differs_from(geometry) or ("shape",)
            difference = f"another {' and '.join(different)} than in {files[0].name}"
            fix = "Resample them to one grid, or correct the wrong header."
            raise FileFormatError(Fault(str(path), difference, "the same in all files of a case", fix))
    return (first_shape[0] + sum(shape[0] for shape, _ in others), *first_shape[1:]), first


def _channel_faults(where: str, shape: Sequence[int], plan: Plan, channel_fix: str) -> list[Fault]:
    n_channels = len(plan.channel_names)
    faults = []
    if shape[0] != n_channels:
        names = ", ".join(plan.channel_names)
        faults.append(
            Fault(
                where=where,
                found=f"{shape[0]} {'channel' if shape[0] == 1 else 'channels'}",
                expected=f"{n_channels} ({names}), as in training",
                fix=channel_fix,
            )
        )
    if 0 in shape[1:]:
        faults.append(Fault(where, f"an image of shape {tuple(shape[1:])}", "voxels", "Replace the file."))
    return faults


def _axis_fault(where: str, geometry: Geometry, plan: Plan, configuration: Configuration) -> Fault | None:
    """Return a fault if the image is 2-D and the model was trained on volumes; otherwise None."""
    if geometry.ndim == 2 and (not configuration.is_2d or plan.transpose_forward[0] != 0):
        return Fault(where, "a 2-D image", "a volume: the model was trained on 3-D images", "Give 3-D images.")
    return None


def _spacing_factor(geometry: Geometry, plan: Plan) -> float:
    """Return the largest factor, over the axes, between the spacing and that of the training data, at least 1.

    The slice axis of 2-D data does not count.
    """
    mine: tuple[float, ...] = plan.voxel_order(geometry).permuted(geometry.spacing)
    first = 1 if geometry.ndim == 2 or plan.is_of_2d_images else 0
    ratios = [a / b for a, b in zip(mine[first:], plan.original_median_spacing[first:], strict=True)]
    return max(max(ratio, 1 / ratio) for ratio in ratios)


def _spacing_fix(geometry: Geometry, plan: Plan) -> str:
    if geometry.metadata.get("spacing") != ASSUMED and plan.original_median_spacing == UNSTATED_SPACING:
        return (
            "The training images state no pixel size, so 1 mm was assumed for them: give the image in a format that "
            "states none either, such as .npy or a Zarr array without OME metadata."
        )
    if geometry.metadata.get("spacing") != ASSUMED:
        return "Correct the spacing in the file's header (millimetres)."
    return (
        "The file does not state the spacing of every axis, so 1 mm was assumed: write it in mm into <case>.json "
        'beside the image (of an array volume.json beside volume.zarr), {"spacing": [z, y, x]}.'
    )


def _resampled_shape(
    shape: Sequence[int], geometry: Geometry, plan: Plan, configuration: Configuration
) -> tuple[float, float, float]:
    """Return the shape of the whole image (before cropping) at the configuration's spacing, in the plan's axes."""
    order = plan.voxel_order(geometry)
    edges = [float(edge) for edge in order.permuted(shape)]
    spacing = order.permuted(geometry.spacing)
    first = 3 - len(configuration.spacing)
    for axis, target in enumerate(configuration.spacing, start=first):
        edges[axis] *= spacing[axis] / target
    z, y, x = edges
    return (z, y, x)


def _needed_bytes(
    shape: Sequence[int], resampled: Sequence[float], configuration: Configuration, n_outputs: int
) -> float:
    """Return the bytes that a prediction needs: the image (C, z, y, x) as read and resampled, and the sums of planes.

    The sums are kept for as many planes as a patch has along its first axis
    (:class:`autoseg.inference.plane_sums.PlaneSums`).
    """
    depth, y, x = (1,) * (3 - len(configuration.patch_size)) + configuration.patch_size
    sums = n_outputs * depth * max(y, resampled[1]) * max(x, resampled[2])
    n_inputs = shape[0] + (n_outputs if configuration.previous_stage is not None else 0)
    return 4 * (math.prod(shape) + n_inputs * math.prod(resampled) + sums)


def _trained_spacing(geometry: Geometry, plan: Plan) -> tuple[float, float, float]:
    """Return the training data's spacing in the axes of a file."""
    return plan.voxel_order(geometry).inverse.permuted(plan.original_median_spacing)


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.4g}" for edge in spacing) + " mm"
