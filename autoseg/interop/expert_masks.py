"""Folders with the masks of several experts: which masks belong to one image, and what their values mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.annotation.votes import NO_VOTE
from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.dataset.folder_files import has_ending, visible
from autoseg.dataset.pairing import bare_name
from autoseg.io.images import SUPPORTED_ENDINGS

MOST_CLASSES = 50
"""Number of different values of masks above which they are taken for instances."""


@dataclass(frozen=True, slots=True)
class MaskSet:
    """The masks that experts made of one image."""

    name: str
    """Name of the masks, without ending."""
    files: Mapping[str, Path]
    """Expert -> mask, sorted by expert; at least one."""
    image: Path | None = None
    """File whose grid the masks must have."""


@dataclass(frozen=True, slots=True)
class MaskClasses:
    """What the values of masks mean."""

    names: tuple[str, ...]
    """Names of the K classes, the first one background."""
    values: tuple[int, ...]
    """(K,) value of each class in the masks, ascending. Without meaning for instances."""
    unlabelled: int | None = None
    """Value of voxels that an expert left unlabelled; None if there is none."""
    are_instances: bool = False
    """Whether values above 0 are numbers of instances of the second class."""

    @property
    def class_of(self) -> dict[int, int]:
        """Value of a mask -> class index, or ``NO_VOTE``; of masks of instances, 0 and 1 -> themselves."""
        by_value = {value: index for index, value in enumerate(self.values)}
        if self.unlabelled is None or self.are_instances:
            return by_value
        return by_value | {self.unlabelled: NO_VOTE}


def find_mask_sets(folder: Path) -> tuple[MaskSet, ...]:
    """Return the masks in ``folder``, which holds a folder for each expert, sorted by name.

    Masks of one image have the same name in all folders; their endings may differ. An expert may lack some.

    Raises
    ------
    DatasetError
        If there is no folder of an expert, one of them holds no mask or two of one name, or no name is in two folders
        although there are several experts.
    """
    if not folder.is_dir():
        raise DatasetError([Fault(str(folder), "no folder", "a folder that holds one for each expert", "Correct it.")])
    experts = [path for path in visible(folder) if path.is_dir()]
    if not experts:
        masks = [path for path in visible(folder) if _is_mask(path)]
        found = f"{len(masks)} masks, but no folders" if masks else "nothing"
        fix = "Put the masks of each expert into a folder of their own."
        raise DatasetError([Fault(str(folder), found, "one folder for each expert", fix)])
    files: dict[str, dict[str, Path]] = {}
    faults: list[Fault] = []
    for expert in experts:
        masks = [path for path in visible(expert) if _is_mask(path)]
        if not masks:
            expected = f"masks ({', '.join(SUPPORTED_ENDINGS)})"
            faults.append(Fault(str(expert), "no mask", expected, "Add them, or remove the folder."))
        for name, number in Counter(map(bare_name, masks)).items():
            if number > 1:
                found = f"{number} masks named {name!r} with different endings"
                faults.append(Fault(str(expert), found, "one", "Remove all but one."))
        for path in masks:
            files.setdefault(bare_name(path), {})[expert.name] = path
    if len(experts) > 1 and not faults and all(len(masks_of) == 1 for masks_of in files.values()):
        shown = listed(sorted(files))
        fix = "Give the masks of one image the same name in all folders."
        faults.append(Fault(str(folder), f"no name that two experts share ({shown})", "equal names", fix))
    if faults:
        raise DatasetError(faults)
    return tuple(MaskSet(name, dict(sorted(files[name].items()))) for name in sorted(files))


def classes_of(
    values: Iterable[int],
    *,
    names: Sequence[str] | None = None,
    unlabelled: int | None = None,
    are_instances: bool = False,
) -> MaskClasses:
    """Return the classes of masks, from the values that occur in all of them.

    0 is background; if 0 is ``unlabelled``, the lowest value is. With two values (0 and 255) masks are binary. With
    ``names`` for all values from 0 to the largest, a value is the index of its class; otherwise the classes are the
    values that occur, ascending.

    Parameters
    ----------
    values
        Of all masks.
    names
        Of the classes, background first; None makes them from the values.
    unlabelled
        Value of voxels that an expert left unlabelled.
    are_instances
        Whether values above 0 are numbers of instances.

    Raises
    ------
    DatasetError
        If the values do not fit ``names``.
    """
    labelled = ({*values} | (set() if unlabelled == 0 else {0})) - {unlabelled}
    if are_instances:
        labelled = {0, 1}
        if names is not None and len(names) != len(labelled):
            fix = "Give --names background cell, or leave them out."
            raise DatasetError([Fault("--names", listed(names), "two with --instances, background first", fix)])
    if names is None and len(labelled) == 1 and 0 not in labelled:
        found = f"the value {min(labelled)} alone, beside {unlabelled}, which is unlabelled"
        fix = f"If {unlabelled} is background, leave out --unlabelled; otherwise give --names for all classes."
        raise DatasetError([Fault("masks", found, "at least two classes", fix)])
    return _classes(sorted(labelled or {0}), names, unlabelled, are_instances=are_instances)


def _is_mask(path: Path) -> bool:
    return path.is_file() and any(has_ending(path.name, ending) for ending in SUPPORTED_ENDINGS)


def _classes(
    values: Sequence[int], names: Sequence[str] | None, unlabelled: int | None, *, are_instances: bool
) -> MaskClasses:
    """Return the classes with these values (ascending, 0 included)."""
    if min(values) < 0:
        fix = f"If voxels with this value are unlabelled, add --unlabelled {min(values)}."
        raise DatasetError([Fault("masks", f"the value {min(values)}", "classes from 0", fix)])
    if names is None and len(values) <= 2:
        names = ("background", "foreground")
    if names is None:
        names = ("background", *(f"class_{value}" for value in values[1:]))
    if len(values) < len(names) and max(values) < len(names):
        values = range(len(names))
    if len(values) != len(names):
        found, expected = f"the values {listed(values, 20)}", f"one for each of the names {listed(names, 20)}"
        raise DatasetError([Fault("masks", found, expected, "Give --names for all classes, background first.")])
    return MaskClasses(tuple(names), tuple(values), unlabelled, are_instances)
