"""Preprocessing of a case from its file to the grid of the network, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import Case, CaseRecord
from autoseg.cases.layers import Layer
from autoseg.core.arrays import BoolArray, CodeArray, Float32Array, Shape3
from autoseg.core.boxes import Box
from autoseg.core.orientation import VoxelOrder
from autoseg.core.plan import Configuration, Plan
from autoseg.preprocessing.crop import box_slices, content_box, full_box
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.normalize import normalize, normalized_box, standardized
from autoseg.preprocessing.resample_codes import resample_codes
from autoseg.preprocessing.resample_image import resample_image
from autoseg.preprocessing.resample_layers import resample_layer

ANISOTROPY = 3.0
"""If the largest spacing is more than this times the smallest, the coarsest axis is resampled separately."""


@dataclass(frozen=True, slots=True)
class Preprocessed:
    """A case on the grid of a configuration."""

    image: Float32Array
    """(C, *S) float32, normalised, C-contiguous."""
    codes: CodeArray | None
    """(*S) unsigned integers < N'; None for a case without annotation."""
    record: CaseRecord
    """Description of the preprocessing, for :func:`restore`."""
    inferred: CodeArray | None = None
    """(*S) codes of the classes that promises leave; None if nothing is inferred."""
    label_sets: BoolArray | None = None
    """(N', K) bool: the rows of the target, then unions for ties in resampling; None for a case without annotation."""
    layers: tuple[Layer, ...] = ()
    """Further layers of the case."""


def preprocess(
    case: Case,
    plan: Plan,
    configuration: Configuration,
    *,
    unknown: int | None,
    inferred: CodeArray | None = None,
) -> Preprocessed:
    """Turn, crop, normalise and resample a case; the same for training, validation and prediction.

    A case with another voxel order than most training cases is first brought to theirs. Normalisation comes after the
    crop, so that an empty border does not shift the mean, and before resampling, so that clipped outliers do not cause
    ringing in the spline.

    Parameters
    ----------
    case
        Image (C, *S) and, if it has them, target and further layers, axes as in the file. A part of a volume is not
        cropped, and normalised by the statistics of the volume; its context stays.
    plan, configuration
        The decisions.
    unknown
        Code of unannotated voxels, which lose against annotated ones; None if every voxel is annotated (dense data).
    inferred
        (*S) codes of the classes that promises leave (``annotation.promises.infer``). They are resampled separately, so
        that they do not change the annotation, and by the rule for dense maps, so that no inferred set grows.

    Raises
    ------
    PlanError
        If the channels are not those of the plan.
    FileFormatError
        If a channel planned as RGB has values outside 0 to 255.

    Notes
    -----
    Source: nnU-Net ``preprocessing/preprocessors/default_preprocessor.py:run_case_npy``.
    """
    order, prevailing = plan.voxel_order(case.geometry), plan.prevailing_order(case.geometry)
    # a copy, so that sums are taken in the same order whatever the file's
    stored = case.image if prevailing.is_identity else np.ascontiguousarray(prevailing.apply(case.image))
    axes = VoxelOrder(plan.transpose_forward)
    is_cropped = plan.crop and case.statistics is None
    low, high = (axes.permuted(corner) for corner in (content_box(stored) if is_cropped else full_box(stored)))
    box: tuple[Any, ...] = box_slices(low, high)
    cropped = axes.apply(stored)[(slice(None), *box)]
    spacing_before = order.permuted(case.geometry.spacing)
    spacing = target_spacing(spacing_before, configuration)
    shape = resampled_shape(cropped.shape[1:], spacing_before, spacing)
    separate_axis = anisotropic_axis(spacing_before, spacing)
    codes = label_sets = None
    if case.target is not None:
        drawn, unions = order.apply(case.target.codes)[box], LabelSetUnions(case.target.label_sets)
        codes = resample_codes(drawn, shape, unknown=unknown, separate_axis=separate_axis, unions=unions)
        label_sets = unions.label_sets
    if inferred is not None:
        inferred = resample_codes(order.apply(inferred)[box], shape, unknown=None, separate_axis=separate_axis)
    layers = tuple(
        standardized(
            resample_layer(replace(layer, array=order.apply(layer.array)[(..., *box)]), shape, separate_axis), plan
        )
        for layer in case.layers
    )
    record = CaseRecord(
        case=case.name,
        geometry=case.geometry,
        transpose=order.axes,
        flipped=order.flipped,
        **_crop_and_context(case, order, Box(low, high)),
        spacing_before=spacing_before,
        spacing=spacing,
        shape=shape,
    )
    # after the labels, so that fewer large arrays exist at once
    if case.statistics is None:
        image = normalize(cropped, plan, configuration)
    else:
        image = normalized_box(cropped, plan, configuration, case.statistics)
    if image.shape[1:] != shape:
        image = resample_image(image, shape, separate_axis=separate_axis)
    return Preprocessed(image, codes, record, inferred=inferred, label_sets=label_sets, layers=layers)


def _crop_and_context(case: Case, order: VoxelOrder, crop: Box) -> dict[str, Shape3]:
    """Return the fields of the record of a case on its shape, crop and context; ``crop`` is a box of the image.

    A case of which only a part is its own is never cropped.
    """
    shape = case.image.shape[1:]
    if case.box is None:
        return {"shape_before_crop": order.permuted(shape), "crop_low": crop.start, "crop_high": crop.stop}
    own = order.turned_box(case.box, shape)
    behind = Box(own.stop, order.permuted(shape)).shape
    return {
        "shape_before_crop": own.shape,
        "crop_low": (0, 0, 0),
        "crop_high": own.shape,
        "context_low": own.start,
        "context_high": behind,
    }


def restore(array: NDArray[Any], record: CaseRecord, *, fill: float = 0) -> NDArray[Any]:
    """Bring an array on the grid after the crop back to the axes and the shape of the file.

    Parameters
    ----------
    array
        (*S) or (H, *S) with *S = ``record.shape_after_crop``, axes of the plan.
    record
        What preprocessing did.
    fill
        Value of voxels outside the crop.

    Returns
    -------
    (*S) or (H, *S) of the file, C-contiguous, same type. Inside the box it holds ``array``, outside ``fill``.

    Raises
    ------
    ValueError
        If the spatial shape of ``array`` is not ``record.shape_after_crop``.
    """
    if array.ndim not in (3, 4) or array.shape[-3:] != record.shape_after_crop:
        raise ValueError(
            f"case {record.case!r}: the array has shape {array.shape}, expected (*S) or (H, *S) with spatial shape "
            f"{record.shape_after_crop}. Resample it to the shape after the crop first."
        )
    order = record.voxel_order
    file_shape = order.inverse.permuted(record.shape_before_crop)
    restored = np.full((*array.shape[:-3], *file_shape), fill, dtype=array.dtype)
    box: tuple[Any, ...] = (..., *box_slices(record.crop_low, record.crop_high))
    order.apply(restored)[box] = array  # a view: filling it fills the result
    return restored


def anisotropic_axis(spacing_before: Sequence[float], spacing_after: Sequence[float]) -> int | None:
    """Return the axis that must be resampled separately; None if there is none.

    It is the coarsest axis of the spacing before, if it is more than 3 times the finest; otherwise that of the spacing
    after, by the same rule. None if two axes are equally coarse. Source: nnU-Net
    ``default_resampling.py:determine_do_sep_z_and_axis``.
    """
    for spacing in (spacing_before, spacing_after):
        if max(spacing) / min(spacing) > ANISOTROPY:
            coarsest = [axis for axis, edge in enumerate(spacing) if edge == max(spacing)]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def target_spacing(spacing_before: Sequence[float], configuration: Configuration) -> tuple[float, float, float]:
    """Return the spacing after resampling (mm, axes of the plan); a 2-D configuration keeps that of the slices."""
    if len(configuration.spacing) == 2:
        return (spacing_before[0], *configuration.spacing)
    z, y, x = configuration.spacing
    return (z, y, x)


def resampled_shape(shape: Sequence[int], spacing_before: Sequence[float], spacing: Sequence[float]) -> Shape3:
    """Return the shape at another spacing with the same field of view: rounded half to even, at least 1 voxel."""
    return _triple([max(1, round(old / new * n)) for old, new, n in zip(spacing_before, spacing, shape, strict=True)])


def _triple(values: Sequence[int]) -> Shape3:
    z, y, x = values
    return (z, y, x)
