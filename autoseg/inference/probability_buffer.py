"""Buffer of probabilities in a temporary file: written as slabs of planes of all heads, read head by head."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.dataset.labels import Labels
from autoseg.inference.export import outside_probabilities
from autoseg.preprocessing import restore


class ProbabilityBuffer:
    """The probabilities (H, *S) float32 of a case in a temporary file without name.

    The prediction yields them plane by plane for all heads, and the output file takes them head by head. The temporary
    file lies in the output folder and vanishes when it is closed. Memory holds one head at most. The file is written,
    not memory-mapped: writing to a map on a full disk kills the process.
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
        """Write planes (H, planes, y, x) float32 of the crop; ``first`` is the index of the first of them."""
        depth, *plane = self._record.shape_after_crop
        for head, planes in enumerate(values):
            self._file.seek(4 * (head * depth + first) * math.prod(plane))
            self._file.write(np.ascontiguousarray(planes).data)

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
