"""The annotation of a case of a volume, encoded box by box: what lies outside its box, or is missing, is unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.case import Target
from autoseg.cases.label_codes import encode_target
from autoseg.core.arrays import BoolArray, CodeArray, Shape3
from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError, Fault
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.io.arrays import open_array, open_volume
from autoseg.io.file_formats import label_map
from autoseg.io.stored_array import StoredArray


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

    def values(self, box: Box) -> tuple[NDArray[np.integer[Any]], BoolArray | None]:
        """Return the file values of a box, and the mask of those that are annotated, both (*box); None for all."""
        drawn = label_map(Path(self.label.location), self.label.read(box), allow_nan=True)
        if not self.has_unannotated:
            return drawn, None
        valid = self.label.known(box) & self.image.known(box)
        if self.mask is not None:
            valid &= (self.mask.read(box) != 0).any(axis=0) & self.mask.known(box)
        return drawn, valid

    def target(self, box: Box) -> Target:
        """Return the annotation of a box within the case. Raises ``DatasetError`` if a value is not declared."""
        drawn, valid = self.values(box)
        return encode_target(drawn, self.labels, self.name, valid=valid)

    def codes(self, box: Box) -> CodeArray:
        """Return the codes (*box) of a box, which may overhang the case. Its context may have any class."""
        there = box.intersection(Box.whole(self.shape))
        if there == box:
            return self.target(box).codes
        inner = self.target(there if there.n_voxels else Box((0, 0, 0), (0, 0, 0))).codes
        codes = np.full(box.shape, self.labels.unknown, dtype=inner.dtype)
        if there.n_voxels:
            codes[there.relative_to(box).slices] = inner
        return codes


def open_annotation(files: CaseFiles, labels: Labels) -> VolumeAnnotation:
    """Open labels and mask of a case of a volume; no voxels are read.

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
    image = open_volume(files.images)
    label = open_array(files.label, as_labels=True)
    mask = None if files.valid_mask is None else open_array(files.valid_mask, as_labels=True)
    for array, what in ((label, "labels"), (mask, "valid mask")):
        if array is not None and array.spatial_shape != image.spatial_shape:
            found, expected = f"{what} of shape {array.spatial_shape}", f"{image.spatial_shape} (z, y, x), as the image"
            fix = "Export it on the grid of the image."
            raise DatasetError([Fault(f"case {files.name!r}: {array.location}", found, expected, fix)])
    has_unannotated = mask is not None or bool(image.missing() or label.missing())
    return VolumeAnnotation(files.name, labels, image, label, mask, has_unannotated)
