"""The size above which a case of a volume is read box by box, and what cannot be done with such a case."""

from __future__ import annotations

import math

from autoseg.core.errors import DatasetError, Fault
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.arrays import open_array

IN_MEMORY_VOXELS = 1 << 27
"""Voxels (one channel) of the largest case of a volume that is read into memory."""
REMEDY = f"Give boxes of at most {IN_MEMORY_VOXELS:,} voxels (512 x 512 x 512) as cases: docs/volumes.md, boxes."


def is_large(files: CaseFiles) -> bool:
    """Whether a case is a part of a volume, with more than ``IN_MEMORY_VOXELS``; no voxels are read.

    Raises ``FileFormatError`` if the volume cannot be opened.
    """
    if files.volume is None:
        return False
    shape = open_array(files.images[0]).spatial_shape if files.volume.box is None else files.volume.box.shape
    return math.prod(shape) > IN_MEMORY_VOXELS


def refuse_large(files: CaseFiles) -> None:
    """Raise ``DatasetError`` if a case of a volume would have to be read into memory, and is too large for that."""
    if is_large(files):
        found = f"a case of more than {IN_MEMORY_VOXELS:,} voxels"
        raise DatasetError([Fault(f"case {files.name!r}", found, "a case that fits into memory", REMEDY)])


def refused(files: CaseFiles, labels: Labels, protocol: AnnotationProtocol | None = None) -> list[Fault]:
    """Return a fault for everything that a data set asks for and that needs all of a case in memory."""
    asked = {
        "targets of a regression": bool(labels.targets),
        "label_weights": bool(labels.value_weights),
        "annotation_protocol": protocol is not None and not (labels.is_dense or protocol.is_empty),
    }
    found = f"a case of more than {IN_MEMORY_VOXELS:,} voxels"
    return [
        Fault(f"case {files.name!r}", f"{found} with {what}", "a case that fits into memory", REMEDY)
        for what, is_asked in asked.items()
        if is_asked
    ]
