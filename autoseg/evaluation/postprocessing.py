"""Cleaning of label maps: steps that remove small components or fill holes of a class or region, and their JSON file.

Components are connected through faces, edges and corners; holes are enclosed by these, so that the outside is connected
through faces. In 2-D images both lie in the plane.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from autoseg.cases.layers import class_indices
from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.core.errors import ConfigError
from autoseg.core.findings import did_you_mean, listed
from autoseg.core.geometry import Geometry
from autoseg.core.json_models import load_model
from autoseg.dataset.labels import Labels, painting_of

POSTPROCESSING_JSON = "postprocessing.json"
Unit = Literal["mm3", "mm2"]
"""Unit of sizes: of volumes, and of 2-D images."""


Heads = Annotated[tuple[str, ...], Field(min_length=1)]
"""Names of classes or regions, which are treated as one object; never background."""


class KeepLargestComponent(BaseModel):
    """Remove every component except the largest; of several largest ones all stay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Literal["keep_largest_component"] = "keep_largest_component"
    of: Heads


class RemoveSmallerThan(BaseModel):
    """Remove every component that is smaller than a physical size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Literal["remove_smaller_than"] = "remove_smaller_than"
    of: Heads
    size: float = Field(gt=0, allow_inf_nan=False)
    unit: Unit


class FillHoles(BaseModel):
    """Fill every hole as far as it holds background or, of a region, regions that enclose it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: Literal["fill_holes"] = "fill_holes"
    of: Annotated[tuple[str, ...], Field(min_length=1, max_length=1)]
    """Name of one class or region."""


Step = Annotated[KeepLargestComponent | RemoveSmallerThan | FillHoles, Field(discriminator="operation")]


class Postprocessing(BaseModel):
    """Content of ``postprocessing.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...]
    """Applied in this order; without steps a label map stays as it is."""


def load_postprocessing(path: Path) -> Postprocessing:
    """Read ``postprocessing.json``; raise ``PlanError`` that names the faults if it is missing or malformed."""
    example = Postprocessing(steps=(RemoveSmallerThan(of=("liver",), size=50, unit="mm3"),)).model_dump_json()
    return load_model(
        Postprocessing, path, "autoseg_find_best writes one, or write it yourself: " + example, f"Example: {example}"
    )


class Parts(NamedTuple):
    """The parts of a label map that a step of one kind may change: components to remove, or holes to fill."""

    numbers: NDArray[np.int32]
    """(z, y, x) within ``box``: number of the part from 1 on, 0 elsewhere."""
    box: tuple[slice, ...]
    """Part of the label map around them."""
    n_voxels: NDArray[np.int64]
    """(C,) voxels of each part."""


@dataclass(frozen=True, slots=True)
class Change:
    """The parts that a step may change, and the class that voxels of each class become there."""

    labels: Labels = field(compare=False)
    heads: tuple[int, ...]
    """Indices of the heads that the step is about."""
    fills: bool
    """Whether holes are filled, instead of components removed."""

    @property
    def becomes(self) -> NDArray[np.intp]:
        """(K,) index of the class that a voxel of each class becomes where it is changed; its own if it never is.

        Removed: the regions within the removed ones are taken away, and the others painted as a prediction is: that is
        background, or the class of what encloses the removed ones (background if that is a removed class again).
        Filled: voxels without regions, or with enclosing ones only, get the filled region and those that enclose it.
        """
        regions, union = self.labels.regions[self._foreground], self._union
        table = np.arange(self.labels.n_classes)
        if self.fills:
            encloses = np.all(regions | ~union, axis=1)
            changed, after = ~union & ~np.any(regions[~encloses], axis=0), regions | encloses[:, np.newaxis]
        else:
            within = np.all(~regions | union, axis=1)
            changed, after = union, regions & ~within[:, np.newaxis]
        for index in np.flatnonzero(changed).tolist():
            painted = self._painted(after[:, index])
            if union[painted] == self.fills:
                table[index] = painted
            elif not self.fills:
                table[index] = 0
        return table

    def parts(self, classes: NDArray[np.integer[Any]], *, ndim: int) -> Parts:
        """Return the components of the heads, or their holes, in class indices (z, y, x); none without a voxel.

        ``ndim`` is that of the image: 2 for one slice.
        """
        mask = self._union[classes]
        box = _bounding_box(mask)
        inside = mask[box]
        if not self.fills:
            return _counted(_components(inside, ndim, ndim), box)
        numbers = _holes(inside, ndim)
        fillable = np.flatnonzero(self.becomes != np.arange(self.labels.n_classes))
        numbers = np.where(np.isin(classes[box], fillable), numbers, 0)
        return _counted(numbers, box)

    @property
    def _foreground(self) -> list[int]:
        return list(self.labels.foreground_heads)

    @property
    def _union(self) -> BoolArray:
        """(K,) bool: the classes of all heads of the step."""
        return np.asarray(self.labels.regions[list(self.heads)].any(axis=0), dtype=bool)

    def _painted(self, regions: BoolArray) -> int:
        """Return the index of the class that is painted for foreground heads (F,) bool."""
        if not regions.any():
            return 0
        if painting_of(self.labels) is None:
            return self._foreground[int(np.flatnonzero(regions)[0])]
        scores = np.where(regions, 1.0, -1.0)[:, None]
        return self.labels.class_values.index(int(self.labels.decode(scores)[0]))


def change_of(step: Step, labels: Labels) -> Change:
    """Return what a step changes in label maps of a data set.

    Raises ``ConfigError`` if a name is no class or region of ``labels``, or is background.
    """
    known = {head.name: index for index, head in enumerate(labels.heads) if not head.is_background}
    for name in step.of:
        if name not in known:
            raise ConfigError(
                f"post-processing: {step.operation} of {name!r}: found no such class or region to process, expected "
                f"one of {listed(known, 20)}. Correct the name.{did_you_mean(name, known)}"
            )
    return Change(labels, tuple(known[name] for name in step.of), fills=isinstance(step, FillHoles))


def postprocess(
    label_map: NDArray[np.integer[Any]], geometry: Geometry, labels: Labels, postprocessing: Postprocessing
) -> LabelMap:
    """Return a label map after all steps.

    Parameters
    ----------
    label_map
        (z, y, x) file values of classes; never changed itself.
    geometry
        Of the label map: number of axes, and size of a voxel.
    labels
        Meaning of the values.
    postprocessing
        Steps. Voxels that a step removes become background or, of a region, the class of what encloses it; see
        :attr:`Change.becomes`. Without a voxel of its classes a step changes nothing.

    Returns
    -------
    label_map
        (z, y, x), uint8 if the largest value of a class fits, otherwise uint16.

    Raises
    ------
    ConfigError
        If a step names a class or region that does not exist, or a size in a unit that the image does not have.
    ValueError
        If a value is not that of a class.

    Notes
    -----
    Source: nnU-Net ``postprocessing/remove_connected_components.py`` (largest component, all of several largest, full
    connectivity). Differs in that removing a region leaves what encloses it (there: background), in the physical sizes,
    and in the holes.
    """
    classes: NDArray[np.integer[Any]] = class_indices(label_map, labels)
    for step in postprocessing.steps:
        classes = changed_by(step, classes, geometry, labels)
    values = np.array(labels.class_values, dtype=np.uint8 if max(labels.class_values) < 256 else np.uint16)
    result: LabelMap = values[classes]
    return result


def changed_by(
    step: Step, classes: NDArray[np.integer[Any]], geometry: Geometry, labels: Labels
) -> NDArray[np.integer[Any]]:
    """Return class indices (z, y, x) after one step; errors as for :func:`postprocess`."""
    change = change_of(step, labels)
    parts = change.parts(classes, ndim=geometry.ndim)
    chosen = chosen_parts(step, parts.n_voxels, geometry)
    if not chosen.any():
        return classes
    where = np.append(False, chosen)[parts.numbers]
    result = classes.copy()
    result[parts.box][where] = change.becomes[classes[parts.box][where]]
    return result


def chosen_parts(step: Step, n_voxels: NDArray[np.int64], geometry: Geometry) -> BoolArray:
    """Return (C,) bool: the parts with ``n_voxels`` (C,) that a step changes; raises ``ConfigError`` for its unit."""
    if isinstance(step, FillHoles):
        return np.ones(len(n_voxels), dtype=bool)
    if isinstance(step, KeepLargestComponent):
        return np.asarray(n_voxels < n_voxels.max(initial=0))
    check_unit(step, geometry)
    sizes = n_voxels * geometry.voxel_volume
    return np.asarray(sizes < step.size * (1 - 1e-6))  # headers are rounded to float32


def check_unit(step: Step, geometry: Geometry) -> None:
    """Raise ``ConfigError`` if a step has a size in a unit that an image does not have."""
    if isinstance(step, RemoveSmallerThan) and step.unit != unit_of(geometry):
        raise ConfigError(
            f"post-processing: {step_text(step)}: found the unit {step.unit!r}, expected {unit_of(geometry)!r} for "
            f"{geometry.ndim}-D images. Write the size in {unit_of(geometry)}."
        )


def unit_of(geometry: Geometry) -> Unit:
    """Return the unit of the size of components in an image."""
    return "mm3" if geometry.ndim == 3 else "mm2"


def step_text(step: Step) -> str:
    """Return a step as words: ``remove_smaller_than 50 mm3 of liver``."""
    size = f" {step.size:g} {step.unit}" if isinstance(step, RemoveSmallerThan) else ""
    return f"{step.operation}{size} of {' + '.join(step.of)}"


def _bounding_box(mask: BoolArray) -> tuple[slice, ...]:
    """Return the smallest box with all true voxels of a mask; an empty one without any."""
    return tuple(_span(mask, axis) for axis in range(mask.ndim))


def _span(mask: BoolArray, axis: int) -> slice:
    others = tuple(other for other in range(mask.ndim) if other != axis)
    (places,) = np.nonzero(mask.any(axis=others))
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _components(mask: BoolArray, ndim: int, connectivity: int) -> NDArray[np.int32]:
    """Return component numbers (z, y, x) from 1 on, 0 outside of ``mask``, connected within the ``ndim`` last axes."""
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[slice(None) if ndim == 3 else 1] = ndimage.generate_binary_structure(ndim, connectivity)
    numbers: NDArray[np.int32] = ndimage.label(mask, structure)[0]
    return numbers


def _holes(inside: BoolArray, ndim: int) -> NDArray[np.int32]:
    """Return (z, y, x) the number of the hole, 0 outside of holes, of a mask cut to its bounding box."""
    if not inside.size:
        return np.zeros(inside.shape, dtype=np.int32)
    around = ((0, 0),) * (3 - ndim) + ((1, 1),) * ndim
    numbers = _components(~np.pad(inside, around), ndim, 1)
    cut = tuple(slice(low, edge - high) for (low, high), edge in zip(around, numbers.shape, strict=True))
    holes: NDArray[np.int32] = np.where(numbers == numbers[0, 0, 0], 0, numbers)[cut]  # the padding is outside
    return holes


def _counted(numbers: NDArray[np.int32], box: tuple[slice, ...]) -> Parts:
    return Parts(numbers, box, np.bincount(numbers.reshape(-1), minlength=1)[1:])
