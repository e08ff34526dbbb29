"""Slices of a case for an HTML page: image, truth, prediction, errors and uncertainty, side by side.

Slices are those with most errors and with most foreground; without a truth, those with most uncertainty and foreground.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.label_codes import classes_and_objects
from autoseg.cases.target_numbers import read_numbers
from autoseg.core.arrays import Float32Array
from autoseg.core.errors import AutosegError, DatasetError, EvaluationError, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.labels import Labels
from autoseg.evaluation.grids import Grid, on_grid_of
from autoseg.io.images import read_image, read_labels
from autoseg.report.class_maps import SWATCH, ClassMaps, View, as_bytes
from autoseg.report.contact_sheet import HEAT
from autoseg.report.number_sheet import UNKNOWN_COLOUR, NumberColumn, scale_of
from autoseg.report.overlay import are_colours, display_range, to_grey
from autoseg.report.patterns import pixels_per_voxel
from autoseg.sampling.patch_view import Meaning

LONGEST_EDGE = 420
"""Longest edge of a slice, voxels; of larger ones every second, third ... voxel is shown, so that pages stay small."""
NEAR = 0.1
"""Distance of two slices that show about the same, as a share of the number of slices."""
MOST_TARGETS = 2
"""Most targets of a regression that are shown."""
UNKNOWN_GREY = 0.25
"""Grey below label maps without an image."""

Panels = tuple[tuple[str, NDArray[np.uint8]], ...]
"""Caption and picture (y, x, 3) of each panel of a slice."""


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """Files of a case that is shown; what is missing is left out of its pictures."""

    case: str
    prediction: Path
    images: tuple[Path, ...] = ()
    reference: Path | None = None
    valid_mask: Path | None = None
    """Of the reference."""
    uncertainty: Path | None = None
    """Image with numbers 0 to 1."""


@dataclass(frozen=True, slots=True)
class CasePictures:
    """Pictures of a case."""

    slices: tuple[tuple[str, Panels], ...]
    """Heading and panels of each slice."""
    meanings: frozenset[Meaning] = frozenset()
    """Meanings of voxels that are shown; empty where label maps hold no classes."""
    remarks: tuple[str, ...] = ()
    """Reasons why something is not shown."""


def draw_case(files: PictureFiles, labels: Labels, channels: Sequence[str] = ()) -> CasePictures:
    """Read the files of a case and draw its slices, in the voxel order of the prediction.

    Files that cannot be read, or lie on another grid, are left out and named in the remarks. ``channels`` are the names
    of those of the image, of which the first is shown, or three as colours.
    """
    draw = _draw_numbers if labels.targets else _draw_classes
    try:
        return draw(files, labels, is_colour=are_colours(channels))
    except AutosegError as error:
        return CasePictures((), remarks=(f"{files.case}: {error}",))


def _draw_classes(files: PictureFiles, labels: Labels, *, is_colour: bool) -> CasePictures:
    values, geometry = read_labels(files.prediction)
    predicted = classes_and_objects(values, labels, files.prediction)
    grid = _OnGrid(files.case, Grid(files.prediction, values.shape, geometry))
    image = grid.read(files.images, read_image)
    allow_nan = labels.unlabelled == NAN_VALUE
    truth = grid.read(_listed(files.reference), lambda paths: read_labels(paths[0], allow_nan=allow_nan))
    valid = grid.read(_listed(files.valid_mask), lambda paths: read_labels(paths[0]))
    doubt = grid.read(_listed(files.uncertainty), read_image)
    valid = None if valid is None else valid != 0
    try:
        drawn = None
        if truth is not None and files.reference is not None:
            drawn = classes_and_objects(truth, labels, files.reference)
        maps = ClassMaps.of(predicted, drawn, labels, case=files.case, valid=valid)
    except (DatasetError, FileFormatError) as error:
        grid.remarks.append(f"{files.case}: truth not shown: {error}")
        maps = ClassMaps.of(predicted, None, labels, case=files.case)
    errors = maps.errors()
    worst = np.sum([*errors.values()], axis=0) if errors else doubt[0] if doubt is not None else None
    shown = _slices([worst, maps.foreground()], len(values))
    view = _view(values.shape[1:], geometry)
    slices = []
    for z in shown:
        base = _base(image, z, values.shape[1:], view, is_colour=is_colour)
        panels = [("image", base)] if image is not None else []
        panels += maps.panels(z, base, view)
        if doubt is not None:
            panels.append(("uncertainty", _heat(view.of(doubt[0, z]))))
        slices.append((_slice_name(z, len(values)), _finished(panels)))
    return CasePictures(tuple(slices), maps.shown_meanings(shown), tuple(grid.remarks))


def _draw_numbers(files: PictureFiles, labels: Labels, *, is_colour: bool) -> CasePictures:
    """Draw a case of a regression: truth, prediction and absolute error of each target, on the scale of the truth."""
    predicted, geometry = read_numbers(files.prediction, labels)
    grid = _OnGrid(files.case, Grid(files.prediction, predicted.shape[1:], geometry))
    image = grid.read(files.images, read_image)
    truth = grid.read(_listed(files.reference), lambda paths: read_numbers(paths[0], labels))
    worst = None if truth is None else np.nan_to_num(np.abs(truth - predicted)).sum(axis=0)
    shown = _slices([worst], predicted.shape[1])
    view = _view(predicted.shape[2:], geometry)
    slices = []
    for z in shown:
        panels = (
            [("image", _base(image, z, predicted.shape[2:], view, is_colour=is_colour))] if image is not None else []
        )
        for index, name in enumerate(labels.targets[:MOST_TARGETS]):
            numbers = {f"{name}, prediction": predicted[index, z]}
            if truth is not None:
                error = np.abs(truth[index, z] - predicted[index, z])
                numbers = {f"{name}, truth": truth[index, z], **numbers, f"{name}, absolute error": error}
            low, high = scale_of(name, [NumberColumn("", name, values) for values in numbers.values()])
            for caption, values in numbers.items():
                ends = (0.0, high - low) if caption.endswith("error") else (low, high)
                panels.append((f"{caption} ({ends[0]:.3g} to {ends[1]:.3g})", _shades(view.of(values), ends)))
        slices.append((_slice_name(z, predicted.shape[1]), _finished(panels)))
    return CasePictures(tuple(slices), remarks=tuple(grid.remarks))


@dataclass(frozen=True)
class _OnGrid:
    """Files of a case, brought to the voxel order of its prediction."""

    case: str
    grid: Grid
    remarks: list[str] = field(default_factory=list)

    def read(
        self, paths: Sequence[Path], reading: Callable[[Sequence[Path]], tuple[NDArray[Any], Geometry]]
    ) -> NDArray[Any] | None:
        """Return an array (..., z, y, x); None without files, or, with a remark, if they do not fit."""
        if not paths:
            return None
        try:
            array, geometry = reading(paths)
            array, _ = on_grid_of(self.grid.geometry, array, geometry)
            if array.shape[-3:] != self.grid.shape:
                raise EvaluationError(
                    f"{paths[0]}: found shape {array.shape[-3:]}, expected {self.grid.shape} as {self.grid.path}. "
                    "Give the file that belongs to the case."
                )
        except AutosegError as error:
            self.remarks.append(f"{self.case}: not shown: {error}")
            return None
        return array


def uncertainty_colours() -> NDArray[np.uint8]:
    """Return a strip (y, x, 3) with the colours of uncertainties from 0 to 1, for a legend."""
    return as_bytes(_heat(np.linspace(0, 1, 90, dtype=np.float32)[None].repeat(SWATCH[0], axis=0)))


def unknown_colour() -> NDArray[np.uint8]:
    """Return a small picture (y, x, 3) of voxels of which no number is known, for a legend."""
    return as_bytes(_shades(np.full(SWATCH, np.nan, dtype=np.float32), (0.0, 1.0)))


def _listed(path: Path | None) -> tuple[Path, ...]:
    return () if path is None else (path,)


def _slices(weights: Sequence[NDArray[Any] | None], n_slices: int) -> list[int]:
    """Return the slice with the largest sum of each of ``weights`` (z, y, x), ascending.

    A slice near to that of an earlier weight is left out. The middle slice if no weight is above 0.
    """
    sums = [weight.sum(axis=(1, 2), dtype=np.float64) for weight in weights if weight is not None]
    chosen: list[int] = []
    for z in [int(np.argmax(per_slice)) for per_slice in sums if per_slice.size and per_slice.max() > 0]:
        if all(abs(z - other) >= NEAR * n_slices for other in chosen):
            chosen.append(z)
    return sorted(chosen) or [n_slices // 2]


def _slice_name(z: int, n_slices: int) -> str:
    return f"slice {z} of 0 to {n_slices - 1}" if n_slices > 1 else ""


def _view(shape: Sequence[int], geometry: Geometry) -> View:
    """Return the view of slices of ``shape`` (y, x)."""
    step = max(1, math.ceil(max(shape) / LONGEST_EDGE))
    return View(pixels_per_voxel([math.ceil(edge / step) for edge in shape], geometry.spacing[1:]), step)


def _base(image: NDArray[Any] | None, z: int, shape: Sequence[int], view: View, *, is_colour: bool) -> Float32Array:
    """Return pixels (rows, columns, 3) of a slice of an image (C, z, y, x): its first channel, or three as colours.

    Equal shades, without an image.
    """
    if image is None:
        return view.of(np.full((3, *shape), UNKNOWN_GREY, dtype=np.float32)).transpose(1, 2, 0)
    channels = image[:3] if is_colour else image[:1].repeat(3, axis=0)
    shades: Float32Array = to_grey(view.of(channels[:, z]), display_range(channels)).transpose(1, 2, 0)
    return shades


def _shades(numbers: Float32Array, ends: tuple[float, float]) -> Float32Array:
    """Return numbers (rows, columns) in grey (rows, columns, 3): ``ends`` are black and white; unknown ones in blue."""
    from matplotlib.colors import to_rgb  # takes a moment to import: only when a picture is drawn

    shades = np.stack([to_grey(np.nan_to_num(numbers, nan=ends[0]), ends)] * 3, axis=-1)
    shades[np.isnan(numbers)] = to_rgb(UNKNOWN_COLOUR)
    return shades


def _heat(numbers: NDArray[Any]) -> Float32Array:
    """Return the colours (rows, columns, 3) of numbers from 0 to 1."""
    from matplotlib import colormaps  # takes a moment to import: only when a picture is drawn

    colours: Float32Array = colormaps[HEAT](np.clip(np.nan_to_num(numbers), 0, 1))[..., :3].astype(np.float32)
    return colours


def _finished(panels: Sequence[tuple[str, Float32Array]]) -> Panels:
    return tuple((caption, as_bytes(pixels)) for caption, pixels in panels)
