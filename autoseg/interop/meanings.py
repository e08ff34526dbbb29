"""Search for classes with the same name but probably different meanings in several data sets."""

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
"""A class counts as part of another one if more than this share of its surface touches that class."""
Contacts = Mapping[tuple[str, str], int]
"""(class, other class) -> pairs of touching voxels; each pair is counted in both orders."""


@dataclass(frozen=True, slots=True)
class DoubtfulClass:
    """A class that one data set probably annotates as several classes, and another one as a single class."""

    name: str
    dataset: Dataset
    """Data set that annotates ``name`` as a single class."""
    other: Dataset
    """Data set that also annotates ``parts``."""
    parts: Mapping[str, float]
    """Class that ``dataset`` lacks -> share of its surface, in ``other``, that touches ``name``."""

    def __str__(self) -> str:
        shares = ", ".join(f"{share:.0%} of the surface of {part}" for part, share in self.parts.items())
        parts = " and ".join(self.parts)
        return (
            f"{self.name}: in {self.other.name}, {shares} touch {self.name}. {self.dataset.name} does not declare "
            f"{parts}, so its {self.name} probably includes {parts}. After merging by name, such voxels would count as "
            f"{self.name} only. If {self.name} does include {parts}, write in {self.dataset.folder / DATASET_JSON} "
            f"(its label files stay as they are)\n{indented(self.change())}\nand merge again, into a new folder. If "
            f"{self.dataset.name} has no {parts}, or annotates it as background, nothing has to be done."
        )

    def change(self) -> dict[str, Any]:
        """Return ``labels`` and ``label_sets`` to write into the dataset.json of ``dataset``.

        The value of ``name`` becomes a set of ``name`` and its parts, which get values that no file contains. Ignore
        must be the highest value, so its former value becomes a set of all classes, which means the same.
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
    """Return JSON as text of a file, one key per line, without the outer braces."""
    return ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in content.items())


def doubtful_classes(merger: Merger, *, workers: int = 1, progress: Progress = silent) -> tuple[DoubtfulClass, ...]:
    """Return classes that one data set probably divides into several and another one does not.

    A class that only some data sets declare, and whose surface mostly touches another class, is probably part of that
    class, as a tumour of the liver. A data set with liver and without tumour then probably calls both liver. Only label
    files of data sets with such classes are read. Files that cannot be read are skipped; writing the merged data set
    reports them.

    Parameters
    ----------
    workers
        Number of processes that read label files.
    progress
        Called with (label files read, label files in all, name of the case).
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
    doubtful: list[DoubtfulClass] = []
    for dataset in dividing:
        contacts: Counter[tuple[str, str]] = Counter()
        count = partial(_case_contacts, labels=dataset.labels)
        for index, result in map_unordered(count, dataset.cases, workers=workers):
            done += 1
            if not isinstance(result, AutosegError):
                contacts.update(result)
            progress(done, n_cases, dataset.cases[index].name)
        for other in datasets:
            doubtful.extend(_doubtful(dataset, other, contacts))
    return tuple(doubtful)


def count_contacts(file_labels: NDArray[Any], values: Mapping[int, str]) -> Counter[tuple[str, str]]:
    """Count the pairs of voxels that share a face and have different classes, each pair in both orders.

    Parameters
    ----------
    file_labels
        (*S) integers; an empty array has no pair.
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
    """Read the label file of a case and count its contacts inside the valid mask."""
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
