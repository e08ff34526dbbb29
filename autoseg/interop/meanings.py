"""Find classes that have one name in several data sets, and probably not one meaning."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.cases.label_codes import read_drawn, read_valid_mask
from autoseg.core.errors import AutosegError
from autoseg.core.parallel import map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.labels import Labels
from autoseg.interop.merging import Merger

MOSTLY = 0.5
"""A class is taken for a part of another one if more than this share of its surface lies against that."""
Contacts = Mapping[tuple[str, str], int]
"""(class, other class) -> pairs of touching voxels, each pair in both orders."""


@dataclass(frozen=True, slots=True)
class DoubtfulClass:
    """A class that one data set probably draws as several, and another one as one."""

    name: str
    dataset: Dataset
    """Draws ``name`` alone."""
    other: Dataset
    """Draws ``parts``, too."""
    parts: Mapping[str, float]
    """Classes that ``dataset`` lacks -> share of their surface, in ``other``, that lies against ``name``."""

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.0%} of the surface of {part}" for part, share in self.parts.items())
        parts = " and ".join(self.parts)
        return (
            f"{self.name}: found {shares} against {self.name} in {self.other.name}, and {parts} unknown in "
            f"{self.dataset.name}, whose {self.name} therefore probably holds {parts}. Merged by name it would say of "
            f"such voxels for certain that they are {self.name}. If it does hold {parts}, write in "
            f"{self.dataset.folder / DATASET_JSON} (its label files stay as they are)\n{indented(self.change())}\nand "
            f"merge again, into a new folder. If {self.dataset.name} has no {parts}, or left it in the background, "
            "nothing is to be done."
        )

    def change(self) -> dict[str, Any]:
        """Return what to write into the dataset.json of ``dataset``: ``labels`` and ``label_sets``.

        The value of ``name`` becomes a set of ``name`` and its parts, which get values that no file holds. So does
        ignore, which must be the highest value: a set of all classes in its place says the same.
        """
        labels = self.dataset.labels
        free = max(labels.file_values()) + 1
        values = dict(zip(labels.class_names, labels.class_values, strict=True))
        drawn = values.pop(self.name)
        added = [self.name, *self.parts]
        classes = {**values, **{name: free + index for index, name in enumerate(added)}}
        sets: dict[str, list[str]] = {
            key: list(names) for key, names in self.dataset.json.get("label_sets", {}).items()
        }
        sets[str(drawn)] = added
        if labels.ignore is not None:
            sets[str(labels.ignore)] = list(classes)
        return {"labels": classes, "label_sets": sets}


def indented(content: Mapping[str, Any]) -> str:
    """Return JSON as it stands in a file, a key a line, without the outer braces."""
    return ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in content.items())


def doubtful_classes(merger: Merger, *, workers: int = 1, progress: Progress = silent) -> tuple[DoubtfulClass, ...]:
    """Return classes of the same name that one data set probably divides and another one does not.

    A class that only some data sets declare, and whose surface lies mostly against another class, is probably a part of
    that: a tumour of a liver. A data set that has the liver and no tumour then probably calls both liver. Reads the
    label files of the data sets that have such classes; those that cannot be read are left out, for whoever writes the
    merged data set to name.

    Parameters
    ----------
    workers
        Processes that read label files.
    progress
        Called with the number of label files read, of all, and the name of the case.
    """
    datasets = [source.dataset for source in merger.sources]
    if any(dataset.labels.has_regions for dataset in datasets):
        return ()
    dividing = [
        dataset
        for dataset in datasets
        if any(_missing(dataset, other) and _common(dataset, other) for other in datasets)
    ]
    n_cases, done = sum(len(dataset.cases) for dataset in dividing), 0
    found: list[DoubtfulClass] = []
    for dataset in dividing:
        contacts: Counter[tuple[str, str]] = Counter()
        count = partial(_case_contacts, labels=dataset.labels)
        for index, result in map_unordered(count, dataset.cases, workers=workers):
            done += 1
            if not isinstance(result, AutosegError):
                contacts.update(result)
            progress(done, n_cases, dataset.cases[index].name)
        for other in datasets:
            found.extend(_doubtful(dataset, other, contacts))
    return tuple(found)


def count_contacts(file_labels: NDArray[Any], values: Mapping[int, str]) -> Counter[tuple[str, str]]:
    """Count the pairs of voxels that share a face and have different classes, each pair in both orders.

    Parameters
    ----------
    file_labels
        (*S) integers; empty gives no pair.
    values
        File value -> class; voxels with other values are not counted.
    """
    codes = np.full(file_labels.shape, len(values), dtype=np.uint16)
    for code, value in enumerate(values):
        codes[file_labels == value] = code
    n, names = len(values) + 1, list(values.values())
    pairs = np.zeros((n, n), dtype=np.int64)
    for axis in range(codes.ndim):
        low, high = (np.moveaxis(codes, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        differs = low != high
        joint = low[differs].astype(np.int64) * n + high[differs]
        pairs += np.bincount(joint, minlength=n * n).reshape(n, n)
    pairs += pairs.T
    return Counter(
        {(names[one], names[other]): int(pairs[one, other]) for one, other in np.argwhere(pairs[:-1, :-1]).tolist()}
    )


def _case_contacts(case: CaseFiles, labels: Labels) -> Counter[tuple[str, str]]:
    drawn, _ = read_drawn(case)
    valid = read_valid_mask(case, labels, drawn.shape)
    values = dict(zip(labels.class_values, labels.class_names, strict=True))
    if valid is not None:
        drawn = np.where(valid, drawn, np.iinfo(drawn.dtype).max)
    return count_contacts(drawn, values)


def _doubtful(dividing: Dataset, other: Dataset, contacts: Contacts) -> Iterator[DoubtfulClass]:
    """Yield the classes of ``other`` that ``dividing`` probably divides."""
    shares: dict[str, dict[str, float]] = {}
    for part in _missing(dividing, other):
        surface = sum(number for (name, _), number in contacts.items() if name == part)
        for name in _common(dividing, other):
            touching = contacts.get((part, name), 0)
            if touching > MOSTLY * surface:
                shares.setdefault(name, {})[part] = touching / surface
    for name, parts in shares.items():
        yield DoubtfulClass(name, other, dividing, parts)


def _missing(dataset: Dataset, other: Dataset) -> list[str]:
    """Return the classes of ``dataset`` that ``other`` does not declare."""
    return [name for name in dataset.labels.class_names if name not in other.labels.class_names]


def _common(dataset: Dataset, other: Dataset) -> list[str]:
    """Return the foreground classes of both."""
    return [name for name in dataset.labels.class_names[1:] if name in other.labels.class_names]
