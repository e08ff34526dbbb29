"""Sample of annotated voxels of a case with their predicted probabilities, from which calibration is fitted."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.core.atomic import atomic_path
from autoseg.core.errors import ModelError
from autoseg.dataset.labels import Labels


@dataclass(frozen=True, eq=False, slots=True)
class CaseSample:
    """Voxels of one case, n of them; there may be none."""

    scores: NDArray[np.float16]
    """(n, H): logarithm of the probabilities of classes, or log-odds of regions, without any temperature."""
    states: NDArray[np.int8]
    """(n, H): 1 where the annotation says that the voxel belongs to the head, -1 where not, 0 where it is undecided."""
    weights: NDArray[np.float32]
    """(n,): number of voxels of the case that each stands for."""

    def save(self, path: Path, labels: Labels) -> None:
        """Write the sample as npz without pickles, atomically."""
        heads = np.array([head.name for head in labels.heads])
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, scores=self.scores, states=self.states, weights=self.weights, heads=heads)


def load_sample(path: Path, labels: Labels) -> CaseSample:
    """Return a saved sample; raise ``ModelError`` if it is damaged, or its heads are not those of ``labels``."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            heads = content["heads"].tolist()
            sample = CaseSample(content["scores"], content["states"], content["weights"])
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise _unusable(path, f"no sample that can be read ({type(error).__name__}: {error})") from error
    expected = [head.name for head in labels.heads]
    if heads != expected:
        raise _unusable(path, f"the heads {heads}, not {expected}")
    return sample


def _unusable(path: Path, found: str) -> ModelError:
    return ModelError(
        f"{path}: found {found}, expected what the validation of the fold wrote. Remove the file, or run the "
        "validation again with autoseg_train and --resume."
    )
