"""The output ``--save-probabilities``: the probabilities of every case, as one file of all heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from autoseg.cases.case import CaseRecord
from autoseg.core.arrays import Float32Array
from autoseg.dataset.labels import Labels
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.export import outside_probabilities
from autoseg.inference.map_buffer import MapBuffer
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared import PreparedCase
from autoseg.io.images import without_ending, write_probabilities


@dataclass(frozen=True, slots=True)
class SavedProbabilities:
    """The output ``<case>.npz`` with ``probabilities`` (H, z, y, x) float32; see :mod:`autoseg.inference.outputs`.

    Meanwhile their uncompressed size is needed on the disk of the output folder, for up to two cases.
    """

    name: ClassVar[str] = "probabilities"

    def is_written(self, output: Path) -> bool:
        """Whether the file of a case exists."""
        return _path(output).is_file()

    @staticmethod
    def remove(output: Path) -> None:
        """Remove the file of a case, if it exists."""
        _path(output).unlink(missing_ok=True)

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> ProbabilityBuffer:
        """Return the buffer of a case, which writes the file from a temporary one beside it."""
        return ProbabilityBuffer(_stem(output), prepared.record, predictor.dataset.labels)


class ProbabilityBuffer:
    """Observer that keeps the probabilities (H, *S) float32 of a case in a :class:`~.map_buffer.MapBuffer`."""

    needs_members: ClassVar[bool] = False

    def __init__(self, stem: Path, record: CaseRecord, labels: Labels) -> None:
        """Open the temporary file beside ``<stem>.npz``."""
        self._stem, self._labels = stem, labels
        self._buffer = MapBuffer(stem.parent, record)

    def close(self) -> None:
        """Give the disk space back."""
        self._buffer.close()

    def __call__(self, slab: DecidedSlab) -> None:
        """Write the probabilities of a slab."""
        self._buffer.keep(slab.first, slab.probabilities)

    def write(self) -> None:
        """Write ``<stem>.npz``."""
        write_probabilities(self._stem, self.heads(), self._labels.n_heads)

    def heads(self) -> Iterator[Float32Array]:
        """Yield each head (z, y, x) float32 in the axes and the shape of the file; see :func:`~.export.probabilities`.

        Raises ``OSError`` if the temporary file is shorter than a head needs.
        """
        return self._buffer.maps(outside_probabilities(self._labels))


def _path(output: Path) -> Path:
    """Return the path of the probabilities of a label map."""
    return output.with_name(f"{without_ending(output)}.npz")


def _stem(output: Path) -> Path:
    """Return the path of a label map without its ending."""
    return output.with_name(without_ending(output))
