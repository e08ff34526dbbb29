"""Normalisation: the intensities of each channel are brought to a common scale, as the plan says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.layers import Kind, Layer
from autoseg.cases.scaling import Scaling, scaled
from autoseg.core.arrays import BoolArray, Float32Array
from autoseg.core.chunks import slabs
from autoseg.core.errors import Fault, FileFormatError, PlanError
from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Configuration, Normalization, Plan
from autoseg.preprocessing.crop import nonzero_mask
from autoseg.preprocessing.volume_statistics import ChannelStatistics

_SMALLEST = 1e-8


def normalize(image: NDArray[Any], plan: Plan, configuration: Configuration) -> Float32Array:
    """Normalise each channel with the scheme that ``configuration`` gives for it.

    Parameters
    ----------
    image
        (C, *S) float32, or integers of at most 16 bits, cropped. Not changed.
    plan, configuration
        Schemes, masks and intensity statistics of the training data.

    Returns
    -------
    (C, *S) float32, C-contiguous.

    Raises
    ------
    PlanError
        If the image does not have the number of channels of the plan.
    FileFormatError
        If a channel planned as RGB has values outside 0 to 255.

    Notes
    -----
    Source: nnU-Net ``preprocessing/normalization/default_normalization_schemes.py``. We differ in the mask of the
    masked z-score: it is the filled non-zero part of the image, with and without annotation. nnU-Net adds annotated
    voxels, so that its training and its prediction see different intensities.
    """
    _check_channels(image, plan, configuration)
    result = np.empty(image.shape, dtype=np.float32)
    mask: BoolArray | None = None
    for index, (scheme, is_masked) in enumerate(
        zip(configuration.normalization, configuration.use_mask_for_norm, strict=True)
    ):
        if is_masked and scheme == "zscore" and mask is None:
            mask = nonzero_mask(image)
        used = mask if is_masked else None
        SCHEMES[scheme](image[index], result[index], plan.intensities[index], used)
    return result


def normalized_box(
    values: NDArray[Any], plan: Plan, configuration: Configuration, statistics: Sequence[ChannelStatistics]
) -> Float32Array:
    """Normalise a box of a volume by statistics of the whole volume, so that every voxel depends on itself alone.

    Parameters
    ----------
    values
        (C, *box) of any real type. Not changed.
    plan, configuration, statistics
        Schemes, intensities of the training data, and statistics of the volume, one per channel.

    Returns
    -------
    (C, *box) float32, C-contiguous; of all voxels of a volume the same as :func:`normalize` within float32, but for
    the masked z-score: its mask holds the voxels that are not 0, without the holes between them, which only the whole
    volume shows.

    Raises
    ------
    PlanError, FileFormatError
        As :func:`normalize`.
    """
    _check_channels(values, plan, configuration)
    for scheme, channel in zip(configuration.normalization, values, strict=True):
        if scheme == "rgb_to_0_1":
            check_rgb(float(channel.min(initial=0)), float(channel.max(initial=0)))
    return scaled(values, scalings(plan, configuration, statistics))


def scalings(plan: Plan, configuration: Configuration, statistics: Sequence[ChannelStatistics]) -> tuple[Scaling, ...]:
    """Return the normalisation of each channel of a volume as numbers; parameters as for :func:`normalized_box`."""
    rules = []
    for scheme, is_masked, training, of_volume in zip(
        configuration.normalization, configuration.use_mask_for_norm, plan.intensities, statistics, strict=True
    ):
        if scheme == "zscore":
            moments = of_volume.nonzero if is_masked else of_volume.everywhere
            rules.append(Scaling(shift=moments.mean, scale=max(moments.std, _SMALLEST), keeps_zero=is_masked))
        elif scheme == "rescale_to_0_1":
            rules.append(Scaling(shift=of_volume.low, scale=max(of_volume.high - of_volume.low, _SMALLEST)))
        elif scheme == "ct":
            low, high = training.percentile_00_5, training.percentile_99_5
            rules.append(Scaling(shift=training.mean, scale=max(training.std, _SMALLEST), low=low, high=high))
        else:
            rules.append(Scaling(scale=255.0 if scheme == "rgb_to_0_1" else 1.0))
    return tuple(rules)


def standardized(layer: Layer, plan: Plan) -> Layer:
    """Return the targets of a regression in units of their deviation from their mean; any other layer as it is.

    Raises ``PlanError`` if the plan was made for other targets.
    """
    if layer.info.kind is not Kind.NUMBERS:
        return layer
    if len(plan.targets) != layer.info.channels:
        raise PlanError(
            f"plan of {plan.dataset_name}: it has {len(plan.targets)} targets, expected {layer.info.channels}, as "
            "dataset.json. Plan again with --replan."
        )
    numbers = np.empty(layer.array.shape, dtype=np.float32)
    for values, target, out in zip(layer.array, plan.targets, numbers, strict=True):
        np.subtract(values, np.float32(target.mean), out=out)
        out /= np.float32(target.scale)
    return replace(layer, array=numbers)


def _check_channels(image: NDArray[Any], plan: Plan, configuration: Configuration) -> None:
    """Raise ``PlanError`` unless an image (C, *S) has the channels of the plan."""
    if image.shape[0] != len(configuration.normalization):
        raise PlanError(
            f"configuration {configuration.name!r}: the image has {image.shape[0]} channels, expected "
            f"{len(configuration.normalization)} ({', '.join(plan.channel_names)}). Give the same channels as in the "
            "training data, in the same order."
        )


def mean_and_std(values: NDArray[Any]) -> tuple[float, float]:
    """Return mean and population standard deviation of ``values`` (any shape), summed in float64; (0, 0) if empty."""
    if values.size == 0:
        return 0.0, 0.0
    mean = sum(float(piece.sum(dtype=np.float64)) for piece in _pieces(values)) / values.size
    squares = sum(float(np.square(piece - np.float64(mean)).sum()) for piece in _pieces(values))
    return mean, float(np.sqrt(squares / values.size))


def _ct(values: NDArray[Any], out: Float32Array, training: IntensityProperties, mask: BoolArray | None) -> None:
    """Fill ``out`` (*S): clip to the percentiles 0.5 and 99.5 of the training data, then use its mean and deviation."""
    np.clip(values, np.float32(training.percentile_00_5), np.float32(training.percentile_99_5), out=out)
    out -= np.float32(training.mean)
    out /= np.float32(max(training.std, _SMALLEST))


def _zscore(values: NDArray[Any], out: Float32Array, training: IntensityProperties, mask: BoolArray | None) -> None:
    """Fill ``out`` (*S): mean 0 and standard deviation 1 over the image, or over the mask; the rest does not change."""
    if mask is None:
        _shift_and_scale(values, out, *mean_and_std(values))
        return
    inside = values[mask].astype(np.float32, copy=False)
    mean, std = mean_and_std(inside)
    inside -= np.float32(mean)
    inside /= np.float32(max(std, _SMALLEST))
    out[...] = values
    out[mask] = inside


def _shift_and_scale(values: NDArray[Any], out: Float32Array, shift: float, scale: float) -> None:
    """Fill ``out`` (*S) with (``values`` - ``shift``) / ``scale``."""
    np.subtract(values, np.float32(shift), out=out)
    out /= np.float32(max(scale, _SMALLEST))


def _none(values: NDArray[Any], out: Float32Array, training: IntensityProperties, mask: BoolArray | None) -> None:
    """Copy ``values`` (*S) to ``out`` (*S) unchanged."""
    out[...] = values


def _rescale(values: NDArray[Any], out: Float32Array, training: IntensityProperties, mask: BoolArray | None) -> None:
    """Fill ``out`` (*S) so that the smallest of ``values`` (*S) becomes 0 and the largest 1."""
    if values.size:
        np.subtract(values, np.float32(values.min()), out=out)
        out /= np.float32(max(float(out.max()), _SMALLEST))


def _rgb(values: NDArray[Any], out: Float32Array, training: IntensityProperties, mask: BoolArray | None) -> None:
    """Fill ``out`` (*S) with ``values`` (*S) divided by 255; raise ``FileFormatError`` if they are outside 0 to 255."""
    check_rgb(float(values.min(initial=0)), float(values.max(initial=0)))
    np.divide(values, np.float32(255), out=out)


def check_rgb(low: float, high: float) -> None:
    """Raise ``FileFormatError`` if intensities from ``low`` to ``high`` are no RGB channel of 8 bits."""
    if low < 0 or high > 255:
        fix = "Convert the images to 8 bit, or give the channel another name in dataset.json, so that z-score is used."
        raise FileFormatError(Fault("RGB channel", f"values from {low:g} to {high:g}", "0 to 255", fix))


SCHEMES: Mapping[Normalization, Callable[[NDArray[Any], Float32Array, IntensityProperties, BoolArray | None], None]] = {
    "ct": _ct,
    "zscore": _zscore,
    "none": _none,
    "rescale_to_0_1": _rescale,
    "rgb_to_0_1": _rgb,
}
"""Name -> function that fills ``out`` (*S) from ``values`` (*S), given the training statistics and the mask (*S)."""


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield ``values`` (*S) in slabs along the first axis."""
    return (values[slab] for slab in slabs(values.shape))
