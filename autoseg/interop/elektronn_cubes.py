"""Training cubes of ELEKTRONN as a user names them: files and keys, priorities, and facts that files do not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted
from autoseg.io.hdf5 import parse_array
from autoseg.io.volumes import VOLUME_ENDINGS


@dataclass(frozen=True, slots=True)
class ConversionSettings:
    """Facts that the files do not contain."""

    class_names: tuple[str, ...] | None = None
    """Names of the classes 0, 1, ...; None: background, class_1, ..."""
    channel_names: tuple[str, ...] | None = None
    """None: EM, or channel_0, channel_1, ..."""
    axes: str = "xyz"
    """Order of the axes in the files, ``c`` for channels; label files have the same order without ``c``."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """mm, (z, y, x)."""
    ending: str = ".nii.gz"
    """Ending of the files to write."""
    slices: bool = False
    """Cubes are stacks of 2-D images along z: each becomes a case, NAME_z0000 and so on."""

    @property
    def spacing_of_files(self) -> tuple[float, float, float]:
        """mm, (z, y, x); slices are as thick as their voxels are long, so that a plan does not slice them again."""
        return (max(self.spacing), *self.spacing[1:]) if self.slices else self.spacing

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if a value is out of range."""
        if sorted(self.axes) not in (sorted("xyz"), sorted("cxyz")):
            raise ConfigError(f"axes: {self.axes!r}, expected x, y, z, and c for channels. For example: xyz or zcxy.")
        if self.ending not in VOLUME_ENDINGS:
            raise ConfigError(f"ending: {self.ending!r}, expected one of {', '.join(VOLUME_ENDINGS)}.")
        if not all(np.isfinite(edge) and edge > 0 for edge in self.spacing):
            raise ConfigError(f"spacing: {self.spacing[::-1]} mm, expected positive numbers. Correct it.")
        names = self.class_names or ("background", "other")
        folded = {name.casefold() for name in names}
        if len(names) < 2 or len(folded) < len(names) or names[0] != "background" or "ignore" in folded:
            raise ConfigError(
                f"class names: {', '.join(names)}, expected two or more different names, the first background, none of "
                "them ignore. For example: --names background membrane."
            )


@dataclass(frozen=True, slots=True)
class Cube:
    """One training cube, as given by the user."""

    name: str
    """Name of the case to write."""
    image: str
    """``file.h5:key``; the key may be omitted if the file has only one data set."""
    label: str
    priority: float | None = None
    """ELEKTRONN's ``cube_prios``."""


def pair_cubes(
    images: Sequence[str],
    labels: Sequence[str],
    priorities: Sequence[float] | None,
    names: Sequence[str] | None,
    written: Callable[[str], str],
) -> list[Cube]:
    """Return the cubes that the lists mean; raise ``ConfigError`` if their lengths differ, or a priority is negative.

    Parameters
    ----------
    images, labels
        ``file.h5:key``, in the same order.
    priorities, names
        In the same order; None: all the same, and the names of the image files.
    written
        ``images``, ``labels``, ``priorities`` or ``case_names`` -> what the user calls it, for messages.
    """
    for key, given in {"labels": labels, "priorities": priorities, "case_names": names}.items():
        if given and len(given) != len(images):
            raise ConfigError(
                f"{written(key)}: found {counted(len(given), 'value')}, expected {len(images)}, one for each of "
                f"{written('images')}. Correct it."
            )
    if priorities and not (all(0 <= priority < float("inf") for priority in priorities) and any(priorities)):
        raise ConfigError(
            f"{written('priorities')}: found {list(priorities)}, expected numbers of 0 or more, not all 0. "
            "Correct them."
        )
    weights: list[float | None] = [*priorities] if priorities else [None] * len(images)
    return [
        Cube(name, image, label, weight)
        for name, image, label, weight in zip(names or case_names(images), images, labels, weights, strict=True)
    ]


def case_names(images: Iterable[str]) -> tuple[str, ...]:
    """Return a case name for each image: the name of the file, with the key if a file holds several cubes."""
    parts = [parse_array(text) for text in images]
    stems = Counter(path.stem for path, _ in parts)
    return tuple(
        path.stem if stems[path.stem] == 1 or key is None else f"{path.stem}_{key.strip('/').replace('/', '_')}"
        for path, key in parts
    )
