"""Buffer of maps in a temporary file: written as slabs of planes of all maps, read map by map."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.preprocessing import restore


class MapBuffer:
    """Maps (M, *S) float32 of a case in a temporary file without name.

    A prediction yields them plane by plane for all maps, and an output file takes them map by map. The temporary file
    lies in the output folder and vanishes when it is closed. Memory holds one map at most. The file is written, not
    memory-mapped: writing to a map on a full disk kills the process.
    """

    def __init__(self, folder: Path, record: CaseRecord) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as the buffer)
        self._record = record

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def keep(self, first: int, values: Float32Array) -> None:
        """Write planes (M, planes, y, x) float32 of the crop; ``first`` is the index of the first of them."""
        depth, *plane = self._record.shape_after_crop
        for index, planes in enumerate(values):
            self._file.seek(4 * (index * depth + first) * math.prod(plane))
            self._file.write(np.ascontiguousarray(planes).data)

    def maps(self, fills: Sequence[float]) -> Iterator[Float32Array]:
        """Yield each map (z, y, x) float32 in the axes and the shape of the file; ``fills`` are outside of the crop.

        Raises ``OSError`` if the temporary file is shorter than a map needs.
        """
        self._file.seek(0)
        for fill in fills:
            values = np.empty(self._record.shape_after_crop, dtype=np.float32)
            if self._file.readinto(values.data.cast("B")) != values.nbytes:
                raise OSError(f"case {self._record.case}: found the temporary file of its maps cut short")
            restored: Float32Array = restore(values, self._record, fill=fill)
            yield restored
