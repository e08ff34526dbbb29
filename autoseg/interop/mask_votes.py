"""Votes of the masks of one image, read once and kept in a temporary file until it is known what their values mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.instance_gaps import separated
from autoseg.annotation.label_counts import count_values
from autoseg.annotation.votes import NO_VOTE, VotePatterns, vote_patterns
from autoseg.core.errors import AutosegError, DatasetError, Fault, FileFormatError
from autoseg.core.findings import listed
from autoseg.core.parallel import map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.inspection.grid_faults import FileGrid, grid_faults
from autoseg.interop.expert_masks import MOST_CLASSES, MaskSet
from autoseg.io.images import read_header, read_labels

INSTANCE_VALUES = (0, 1)
"""Values that stand for background and for instances, whatever their numbers are."""


@dataclass(frozen=True, slots=True)
class MaskReading:
    """How masks are read."""

    most_values: int = MOST_CLASSES
    """Number of different values of one image above which its votes are not kept: an error will follow."""
    allow_nan: bool = False
    """Whether NaN is a value, as in label files; otherwise it is a fault."""
    are_instances: bool = False
    """Whether values above 0 are numbers of instances."""
    unlabelled: int | None = None
    """Of instances, the value of voxels that an expert left unlabelled."""


@dataclass(frozen=True, slots=True)
class MaskVotes:
    """The masks of one image, read."""

    masks: MaskSet
    values: Mapping[str, tuple[int, ...]]
    """Expert -> values of the mask, ascending; ``INSTANCE_VALUES`` for instances."""
    file: Path
    """NumPy archive of the votes, and of instances; it does not exist if there are too many values."""
    highest: int = 0
    """Largest number of an instance; 0 without any."""

    @property
    def all_values(self) -> list[int]:
        """The values of all masks, ascending."""
        return sorted({value for values in self.values.values() for value in values})

    def patterns(self, class_of: Mapping[int, int], n_classes: int) -> VotePatterns:
        """Return the votes for ``n_classes`` classes; ``class_of`` gives that of each value, or ``NO_VOTE``."""
        with np.load(self.file, allow_pickle=False) as arrays:
            patterns = VotePatterns(
                arrays["pattern_of"], arrays["votes"].astype(np.int64), arrays["counts"], len(self.all_values)
            )
        return patterns.renumbered([class_of[value] for value in self.all_values], n_classes)

    def instances(self) -> Iterator[NDArray[np.integer[Any]]]:
        """Yield the numbers of instances (z, y, x) of each expert, 0 where there is none or nothing is labelled."""
        with np.load(self.file, allow_pickle=False) as arrays:  # each array is read when it is asked for
            for number in range(len(self.masks.files)):
                yield arrays[f"instances_{number}"]


def read_votes(
    sets: Sequence[MaskSet],
    folder: Path,
    reading: MaskReading,
    *,
    workers: int = 1,
    progress: Progress = silent,
) -> tuple[MaskVotes, ...]:
    """Read the masks of all images, each file once, and return their votes in the order of ``sets``.

    Parameters
    ----------
    folder
        Existing folder for the archives: about a byte a voxel, compressed, for all experts together. One process holds
        the masks of one image at a time, a byte a voxel and expert; of instances up to four.

    Raises
    ------
    DatasetError
        If masks cannot be read, or have another grid than the image, or than each other; names all of them.
    """
    read = partial(_read, folder=folder, reading=reading)
    return tuple(sorted(mapped(read, sets, workers, progress), key=lambda votes: votes.masks.name))


def values_of(votes: Sequence[MaskVotes]) -> set[int]:
    """Return the values of all masks; raise ``DatasetError`` if there are too many for classes."""
    values = {value for item in votes for value in item.all_values}
    if len(values) > MOST_CLASSES:
        number, path = max(
            (len(of_expert), str(item.masks.files[expert]))
            for item in votes for expert, of_expert in item.values.items()
        )  # fmt: skip
        found = f"{len(values)} different values, {number} of them in {path}"
        fix = "If values are numbers of instances, add --instances; if these are images, give the folder of the masks."
        raise DatasetError([Fault("masks", found, f"at most {MOST_CLASSES} classes", fix)])
    return values


def missing_values(values: set[int], unlabelled: int | None, *, are_instances: bool) -> tuple[str, ...]:
    """Return remarks on values that were to be expected and that no mask has: of foreground, of unlabelled voxels."""
    if are_instances:
        return ()
    remarks = []
    if unlabelled is not None and unlabelled not in values:
        remarks.append(f"--unlabelled {unlabelled}: no mask has this value, but {listed(sorted(values))}")
    if len(values - {unlabelled}) < 2:
        remarks.append(f"masks have one class only, the value {listed(sorted(values - {unlabelled}))}")
    return tuple(remarks)


def mapped(function: Any, items: Sequence[Any], workers: int, progress: Progress) -> Iterable[Any]:
    """Yield the results for masks of images; raise ``DatasetError`` with the faults of all that have one."""
    faults: list[Fault] = []
    for done, (index, result) in enumerate(map_unordered(function, items, workers=workers), 1):
        if isinstance(result, DatasetError):
            faults.extend(result.faults)
        elif isinstance(result, FileFormatError):
            faults.append(result.fault)
        elif isinstance(result, AutosegError):
            raise result
        else:
            yield result
        item = items[index]
        progress(done, len(items), (item if isinstance(item, MaskSet) else item.masks).name)
    if faults:
        raise DatasetError(sorted(faults, key=lambda fault: fault.where))


def place_of(masks: MaskSet, expert: str) -> str:
    """Return the place of a fault in the mask of an expert, for a message; masks of nobody in particular are a file."""
    path = masks.files[expert]
    return f"case {masks.name!r}, expert {expert!r} ({path})" if expert else str(path)


def _read(masks: MaskSet, *, folder: Path, reading: MaskReading) -> MaskVotes:
    _check_grids(masks)
    file = folder / f"{masks.name}.npz"
    if reading.are_instances:
        return _read_instances(masks, file, reading.unlabelled)
    order: dict[int, int] = {}  # value -> index, in order of first occurrence
    values: dict[str, tuple[int, ...]] = {}
    maps: list[NDArray[Any]] = []
    for expert, path in masks.files.items():
        labels, _ = read_labels(path, allow_nan=reading.allow_nan)
        values[expert] = tuple(count_values(labels))
        for value in values[expert]:
            order.setdefault(value, len(order))
        if len(order) <= reading.most_values:
            maps.append(_indices(labels, values[expert], order))
    votes = MaskVotes(masks, values, file)
    if len(order) <= reading.most_values:
        rank = {value: index for index, value in enumerate(votes.all_values)}
        patterns = vote_patterns(maps, max(len(order), 1))
        _save(file, patterns.renumbered([rank[value] for value in order], max(len(order), 1)), [])
    return votes


def _read_instances(masks: MaskSet, file: Path, unlabelled: int | None) -> MaskVotes:
    """Return the votes of masks of instances for background and for instances."""
    instances: list[NDArray[np.integer[Any]]] = []

    def votes() -> Iterator[NDArray[np.int8]]:
        for path in masks.files.values():
            vote, numbers = _as_votes(read_labels(path)[0], unlabelled)
            instances.append(numbers)
            yield vote

    patterns = vote_patterns(votes(), len(INSTANCE_VALUES))
    _save(file, patterns, instances)
    highest = max((int(numbers.max(initial=0)) for numbers in instances), default=0)
    return MaskVotes(masks, dict.fromkeys(masks.files, INSTANCE_VALUES), file, highest)


def _save(file: Path, patterns: VotePatterns, instances: Sequence[NDArray[np.integer[Any]]]) -> None:
    arrays: dict[str, Any] = {f"instances_{number}": numbers for number, numbers in enumerate(instances)}
    np.savez_compressed(file, pattern_of=patterns.pattern_of, votes=patterns.votes, counts=patterns.counts, **arrays)


def _check_grids(masks: MaskSet) -> None:
    """Raise ``DatasetError`` if the masks have other voxels than the image, or than each other."""
    grids = {expert: _grid(path) for expert, path in masks.files.items()}
    if masks.image is None and len({grid.shape for grid in grids.values()}) > 1:
        shapes = listed(f"{expert} {grid.shape}" for expert, grid in grids.items())
        fix = "Export the masks of one image on the same grid."
        found = f"masks of different shapes (z, y, x): {shapes}"
        raise DatasetError([Fault(f"masks named {masks.name!r}", found, "equal shapes", fix)])
    reference = next(iter(grids.values())) if masks.image is None else _grid(masks.image)
    faults = [
        fault
        for expert, grid in grids.items()
        for fault in grid_faults(_stated(grid, reference), reference, where=place_of(masks, expert))
    ]
    if faults:
        raise DatasetError(faults)


def _grid(path: Path) -> FileGrid:
    shape, geometry = read_header(path)
    return FileGrid(path, shape[1:], geometry)


def _stated(mask: FileGrid, image: FileGrid) -> FileGrid:
    """Return the grid of a mask, with the geometry of the image if one of their formats states no direction.

    Spacings of PNG and TIFF are left out, too: many programs write resolutions of a screen into masks.
    """
    own, of_image = mask.geometry, image.geometry
    is_comparable = own.ndim == of_image.ndim and own.is_directed and of_image.is_directed
    return mask if is_comparable else replace(mask, geometry=of_image)


def _as_votes(
    numbers: NDArray[np.integer[Any]], unlabelled: int | None
) -> tuple[NDArray[np.int8], NDArray[np.integer[Any]]]:
    """Return votes (z, y, x), 0, 1 or ``NO_VOTE``, for what is inside an instance, and the numbers (z, y, x) there.

    Touching instances have a gap between them.
    """
    is_unlabelled = np.zeros(numbers.shape, dtype=bool) if unlabelled is None else numbers == unlabelled
    inside = separated(np.where(is_unlabelled, 0, numbers))
    kept = np.where(inside, numbers, 0)
    return np.where(is_unlabelled, np.int8(NO_VOTE), inside), kept.astype(np.min_scalar_type(int(kept.max(initial=0))))


def _indices(labels: NDArray[np.integer[Any]], values: Sequence[int], order: Mapping[int, int]) -> NDArray[Any]:
    """Return the index of each value (z, y, x), in the smallest type."""
    dtype = np.min_scalar_type(max(len(order) - 1, 0))
    if not values:
        return np.zeros(labels.shape, dtype=dtype)
    low, high = min(values), max(values)
    indices = np.array([order[value] for value in values], dtype=dtype)
    if high - low >= 2**16:
        return indices[np.searchsorted(np.array(values), labels)]
    table = np.zeros(high - low + 1, dtype=dtype)
    table[np.array(values) - low] = indices
    return table[labels] if low == 0 else table[labels.astype(np.int64) - low]
