"""Probabilities on their way to a file: slabs of planes of all heads come in, volumes of single heads go out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.dataset.labels import Labels
from autoseg.inference.export import outside
from autoseg.preprocessing import restore


class ProbabilitySpool:
    """Holds the probabilities of a case in a nameless file, since a network gives them plane by plane.

    A file of probabilities begins with all planes of the first head. The spool takes (H, *S) float32 of disk space in
    the folder of the output while it is open, and no more memory than one head.
    """

    def __init__(self, folder: Path, record: CaseRecord, labels: Labels) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (open as long as the spool)
        self._record = record
        self._labels = labels
        self._slabs: list[tuple[int, int]] = []

    def __enter__(self) -> ProbabilitySpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def keep(self, first: int, values: Float32Array) -> None:
        """Take the next planes, (H, planes, y, x) of the crop; ``first`` is the number of those before."""
        self._slabs.append((first, values.shape[1]))
        self._file.write(np.ascontiguousarray(values).data)

    def heads(self) -> Iterator[Float32Array]:
        """Yield each head (z, y, x) in the axes and the shape of the file; see :func:`~.export.probabilities`."""
        shape = self._record.shape_after_crop
        plane = 4 * shape[1] * shape[2]
        for index, fill in enumerate(outside(self._labels)):
            values = np.empty(shape, dtype=np.float32)
            for first, n_planes in self._slabs:
                self._file.seek(plane * (self._labels.n_heads * first + index * n_planes))
                part = values[first : first + n_planes]
                if self._file.readinto(part.data.cast("B")) != part.nbytes:
                    raise OSError(
                        f"case {self._record.case}: found no more of the probabilities that were just written"
                    )
            restored: Float32Array = restore(values, self._record, fill=fill)
            yield restored
