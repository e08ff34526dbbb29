"""Buffer of probabilities in a temporary file: written as slabs of planes of all heads, read head by head."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.dataset.labels import Labels
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.export import outside_probabilities
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.io.images import write_probabilities
from autoseg.preprocessing import restore


@dataclass(frozen=True, slots=True)
class SavedProbabilities:
    """The output ``<case>.npz`` with ``probabilities`` (H, z, y, x) float32; see :mod:`autoseg.inference.outputs`.

    Meanwhile their uncompressed size is needed on the disk of the output folder, for up to two cases.
    """

    name: ClassVar[str] = "probabilities"

    def is_written(self, stem: Path) -> bool:
        """Whether the file of a case exists."""
        return stem.with_name(f"{stem.name}.npz").is_file()

    def begin(self, stem: Path, record: CaseRecord, predictor: PredictorGroup) -> ProbabilityBuffer:
        """Return the buffer of a case, which writes the file from a temporary one beside it."""
        return ProbabilityBuffer(stem, record, predictor.dataset.labels)


class ProbabilityBuffer:
    """Observer that keeps the probabilities (H, *S) float32 of a case in a temporary file without name.

    The prediction yields them plane by plane for all heads, and the output file takes them head by head. The temporary
    file lies in the output folder and vanishes when it is closed. Memory holds one head at most. The file is written,
    not memory-mapped: writing to a map on a full disk kills the process.
    """

    needs_members: ClassVar[bool] = False

    def __init__(self, stem: Path, record: CaseRecord, labels: Labels) -> None:
        """Open the temporary file beside ``<stem>.npz``."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._stem = stem
        self._file = tempfile.TemporaryFile(dir=stem.parent)  # noqa: SIM115 (open as long as the buffer)
        self._record = record
        self._labels = labels

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def __call__(self, slab: DecidedSlab) -> None:
        """Write the probabilities of a slab."""
        depth, *plane = self._record.shape_after_crop
        for head, planes in enumerate(slab.probabilities):
            self._file.seek(4 * (head * depth + slab.first) * math.prod(plane))
            self._file.write(np.ascontiguousarray(planes).data)

    def write(self) -> None:
        """Write ``<stem>.npz``."""
        write_probabilities(self._stem, self.heads(), self._labels.n_heads)

    def heads(self) -> Iterator[Float32Array]:
        """Yield each head (z, y, x) float32 in the axes and the shape of the file; see :func:`~.export.probabilities`.

        Raises ``OSError`` if the temporary file is shorter than a head needs.
        """
        self._file.seek(0)
        for fill in outside_probabilities(self._labels):
            values = np.empty(self._record.shape_after_crop, dtype=np.float32)
            if self._file.readinto(values.data.cast("B")) != values.nbytes:
                raise OSError(f"case {self._record.case}: found the temporary file of the probabilities cut short")
            restored: Float32Array = restore(values, self._record, fill=fill)
            yield restored
