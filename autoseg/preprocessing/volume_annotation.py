"""The annotation of a case of a volume, encoded box by box: what lies outside its box, or is missing, is unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import Target
from autoseg.cases.label_codes import classes_and_objects, encode_target, part_shape_faults
from autoseg.core.arrays import BoolArray, CodeArray, LabelMap, Shape3
from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError, Fault
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.io.arrays import levels, open_array, open_volume
from autoseg.io.file_formats import label_map
from autoseg.io.stored_array import StoredArray


class Drawn(NamedTuple):
    """File values of a box."""

    classes: NDArray[np.integer[Any]]
    """(*box) values of classes."""
    valid: BoolArray | None
    """(*box) mask of annotated voxels; None if all are."""
    objects: LabelMap | None
    """(*box) numbers of objects, 0 where there is none; None if labels are classes."""


@dataclass(frozen=True)
class VolumeAnnotation:
    """Labels and valid mask of a case, on the grid of its own voxels, in the axes of the volume."""

    name: str
    labels: Labels
    image: StoredArray
    """The case's own voxels, of which some may be missing."""
    label: StoredArray
    mask: StoredArray | None
    has_unannotated: bool
    """Whether there is a mask, or tiles of image or labels are missing."""

    @property
    def shape(self) -> Shape3:
        """(z, y, x) of the case's own voxels."""
        return self.label.spatial_shape

    def drawn(self, box: Box) -> Drawn:
        """Return the annotation of a box within the case, as file values.

        Raises ``FileFormatError`` if the array is damaged, or holds numbers of no object.
        """
        path = Path(self.label.location)
        values = label_map(path, self.label.read(box), allow_nan=True)
        classes, objects = classes_and_objects(values, self.labels, path)
        if not self.has_unannotated:
            return Drawn(classes, None, objects)
        valid = self.label.known(box) & self.image.known(box)
        if self.mask is not None:
            valid &= (self.mask.read(box) != 0).any(axis=0) & self.mask.known(box)
        return Drawn(classes, valid, objects)

    def target(self, box: Box) -> Target:
        """Return the annotation of a box within the case. Raises ``DatasetError`` if a value is not declared."""
        drawn = self.drawn(box)
        return encode_target(drawn.classes, self.labels, self.name, valid=drawn.valid)

    def codes(self, box: Box) -> CodeArray:
        """Return the codes (*box) of a box, which may overhang the case. Its context may have any class."""
        return self._padded(lambda inner: self.target(inner).codes, box, self.labels.unknown)

    def objects(self, box: Box) -> NDArray[np.uint32]:
        """Return the numbers of objects (*box) of a box, which may overhang the case; 0 where there is none."""
        return self._padded(self._own_objects, box, 0)

    def _own_objects(self, box: Box) -> NDArray[np.uint32]:
        drawn = self.drawn(box)
        if drawn.objects is None:
            raise ValueError(f"case {self.name}: its labels are classes")
        objects = drawn.objects.astype(np.uint32)
        return objects if drawn.valid is None else np.where(drawn.valid, objects, np.uint32(0))

    def _padded(self, read: Callable[[Box], NDArray[Any]], box: Box, value: int) -> NDArray[Any]:
        """Return a box of what ``read`` returns, with ``value`` outside the case."""
        there = box.intersection(Box.whole(self.shape))
        if there == box:
            return read(box)
        inner = read(there if there.n_voxels else Box((0, 0, 0), (0, 0, 0)))
        result = np.full(box.shape, value, dtype=inner.dtype)
        if there.n_voxels:
            result[there.relative_to(box).slices] = inner
        return result


def open_annotation(files: CaseFiles, labels: Labels, level: Shape3 | None = None) -> VolumeAnnotation:
    """Open labels and mask of a case of a volume; no voxels are read.

    Parameters
    ----------
    level
        Shape of the level of a pyramid that is read of the image, if it is not the finest. Labels without a mask are
        then read at their level of that shape, if they have one.

    Raises
    ------
    FileFormatError
        If an array cannot be opened.
    DatasetError
        If there are no labels, or if a shape differs from that of the case.
    """
    if files.label is None:
        fault = Fault(f"case {files.name!r}", "no labels", "an array of labels", "Give label in boxes.")
        raise DatasetError([fault])
    if faults := part_shape_faults(files):
        raise DatasetError(faults)
    image = open_volume(files.images)
    label = open_array(files.label, as_labels=True)
    mask = None if files.valid_mask is None else open_array(files.valid_mask, as_labels=True)
    for array, what in ((label, "labels"), (mask, "valid mask")):
        if array is not None and array.spatial_shape != image.spatial_shape:
            found, expected = f"{what} of shape {array.spatial_shape}", f"{image.spatial_shape} (z, y, x), as the image"
            fix = "Export it on the grid of the image."
            raise DatasetError([Fault(f"case {files.name!r}: {array.location}", found, expected, fix)])
    coarser = None if level is None or mask is not None or image.missing() else _level(files.label, level)
    if coarser is not None:
        return VolumeAnnotation(files.name, labels, image, coarser, None, has_unannotated=False)
    has_unannotated = mask is not None or bool(image.missing() or label.missing())
    return VolumeAnnotation(files.name, labels, image, label, mask, has_unannotated)


def _level(label: Path, shape: Shape3) -> StoredArray | None:
    """Return the level of a pyramid of labels that has a shape; None if there is none."""
    for location, _ in levels(label):
        array = open_array(location, as_labels=True)
        if array.spatial_shape == shape:
            return array
    return None
