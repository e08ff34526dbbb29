"""Probabilities on their way to a file: slabs of planes of all heads come in, volumes of single heads go out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.dataset.labels import Labels
from autoseg.inference.export import outside
from autoseg.preprocessing import restore


class ProbabilityBuffer:
    """The probabilities (H, *S) float32 of a case in a nameless file, since a network gives them plane by plane.

    The file lies in the folder of the output and is gone once it is closed. No more memory than one head is taken. It
    is written, not mapped: where the disk is full, writing to a map ends the process.
    """

    def __init__(self, folder: Path, record: CaseRecord, labels: Labels) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as the buffer)
        self._record = record
        self._labels = labels

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def keep(self, first: int, values: Float32Array) -> None:
        """Take some planes, (H, planes, y, x) of the crop; ``first`` is the number of those before."""
        depth, *plane = self._record.shape_after_crop
        for head, planes in enumerate(values):
            self._file.seek(4 * (head * depth + first) * math.prod(plane))
            self._file.write(np.ascontiguousarray(planes).data)

    def heads(self) -> Iterator[Float32Array]:
        """Yield each head (z, y, x) in the axes and the shape of the file; see :func:`~.export.probabilities`.

        Raises ``OSError`` if the file holds less than was kept.
        """
        self._file.seek(0)
        for fill in outside(self._labels):
            values = np.empty(self._record.shape_after_crop, dtype=np.float32)
            if self._file.readinto(values.data.cast("B")) != values.nbytes:
                raise OSError(f"case {self._record.case}: found no more of the probabilities that were just written")
            restored: Float32Array = restore(values, self._record, fill=fill)
            yield restored
