"""Rules by which data sets become one: classes are matched by name, and each case states which ones are annotated.

No file is read or written here; ``interop.merged_files`` writes the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import listed, shown
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import CaseStatement, unknown_values
from autoseg.dataset.schema import BACKGROUND, IGNORE, UNLABELLED
from autoseg.io.images import written_ending
from autoseg.tasks.task import refuse_instances, refuse_regression

WeightedSet = tuple[tuple[str, ...], float]
"""Names of the classes that a voxel may be, and how much it counts in training."""
_ABOUT_SLICES = ("classes_complete_in", "background_encloses")
"""Promises whose meaning depends on the axis of the slices."""


@dataclass(frozen=True)
class Source:
    """One of the data sets, with the new names and values."""

    dataset: Dataset
    prefix: str
    """Prefix of the names of its groups, and of cases whose names occur in several data sets."""
    case_names: Mapping[str, str]
    """Case -> its name in the merged data set."""
    values: Mapping[int, int]
    """File value -> file value in the merged data set."""
    added: tuple[str, ...]
    """Classes that only other data sets declare: not annotated here, and part of the background of this data set."""


@dataclass(frozen=True)
class Merger:
    """All decisions before a file is written."""

    sources: tuple[Source, ...]
    content: Mapping[str, Any]
    """dataset.json of the merged data set."""
    ignore: int | None
    """File value of unannotated voxels in the merged data set; None if every voxel is annotated."""
    warnings: tuple[str, ...]


def plan_merger(datasets: Sequence[Dataset], name: str) -> Merger:
    """Decide how ``datasets`` become the data set ``name``.

    Classes with the same name are the same class. If a data set lacks some classes, only its own classes are annotated
    in its cases; its background, and all statements about it, also stand for the missing classes. Voxels outside a
    valid mask get the ignore value.

    Raises
    ------
    DatasetError
        With every conflict between the data sets: channels, file endings, regions, lazy semantics.
    ConfigError
        If the task of one is regression or instances.
    """
    for dataset in datasets:
        refuse_regression(dataset.labels, "merging data sets")
        refuse_instances(dataset.labels, "merging data sets")
    faults = _conflicts(datasets)
    if faults:
        raise DatasetError(faults)
    classes = _class_names(datasets)
    first = datasets[0].labels
    # regions consist of values, so with regions the values do not change (they are the same in all data sets)
    class_values = dict(zip(classes, first.class_values if first.has_regions else range(len(classes)), strict=True))
    set_values = _set_values(datasets, classes, start=max(class_values.values()) + 1)
    has_unknown = any(unknown_values(dataset.labels) or dataset.labels.has_masks for dataset in datasets)
    ignore = len(set_values) + max(class_values.values()) + 1 if has_unknown else None
    sources = tuple(
        Source(
            dataset=dataset,
            prefix=prefix,
            case_names=names,
            values=_values(dataset, class_values, set_values, ignore, classes),
            added=_added(dataset, classes),
        )
        for dataset, prefix, names in zip(datasets, _prefixes(datasets), _case_names(datasets), strict=True)
    )
    protocol, warnings = _common_protocol(sources)
    labels = dict(datasets[0].json["labels"]) if first.has_regions else dict(class_values)
    labels.pop(IGNORE, None)
    background = class_values[BACKGROUND]
    optional = {
        "regions_class_order": datasets[0].json.get("regions_class_order") if first.has_regions else None,
        "label_sets": {str(value): list(members) for (members, weight), value in set_values.items() if weight == 1},
        "label_weights": {
            str(value): {"label": list(members), "weight": weight}
            for (members, weight), value in set_values.items()
            if weight < 1
        },
        "lazy_semantics": "seed" if _lazy_semantics(datasets) == {"seed"} else None,
        "annotation_protocol": protocol,
        "task": first.task,
        "cases": _case_entries(sources),
    }
    content: dict[str, Any] = {
        "name": name,
        "channel_names": {str(number): channel for number, channel in enumerate(datasets[0].channels)},
        "labels": labels if ignore is None else labels | {IGNORE: ignore},
        "numTraining": sum(len(dataset.cases) for dataset in datasets),
        "file_ending": written_ending(datasets[0].file_ending),
    }
    content |= {key: value for key, value in optional.items() if value}
    if background != 0:
        content[UNLABELLED] = None
    return Merger(sources, content, ignore, (*warnings, *_shared_images(datasets)))


def _conflicts(datasets: Sequence[Dataset]) -> list[Fault]:
    """Return all conflicts that prevent a merger."""
    if len(datasets) < 2:
        names = listed(dataset.name for dataset in datasets)
        return [Fault("data sets to merge", names, "at least two", "Give the names of the others, too.")]
    folders = Counter((dataset.folder.resolve(), dataset.name) for dataset in datasets)
    faults = [
        Fault(str(folder), f"the data set {name} {times} times", "each data set once", "Give it once.")
        for (folder, name), times in folders.items()
        if times > 1
    ]
    first = datasets[0]
    for other in datasets[1:]:
        faults += _channel_faults(first, other)
        if other.file_ending != first.file_ending:
            fix = "Convert the images and labels of one of them."
            expected = f"{first.file_ending!r}, as in {first.name}"
            faults.append(Fault(f"{other.name}: file_ending", repr(other.file_ending), expected, fix))
        faults += _region_faults(first, other)
        if other.labels.task != first.labels.task:
            found, expected = (shown(dataset.json.get("task", "no such key")) for dataset in (other, first))
            fix = "Write the same task into both, or remove the key."
            faults.append(Fault(f"{other.name}: task", found, f"{expected}, as in {first.name}", fix))
    faults += [
        Fault(
            f"{dataset.name}: case {case.name!r}", "a part of a volume", "images and labels in files of their own",
            "Write the boxes of all data sets into one dataset.json.",
        )
        for dataset in datasets for case in dataset.cases if case.volume is not None
    ]  # fmt: skip
    faults += [
        Fault(
            f"{dataset.name}: {image}", "an image with another ending", f"{dataset.file_ending!r}, as file_ending says",
            "Convert the file.",
        )
        for dataset in datasets for case in dataset.cases for image in case.images
        if case.volume is None and not image.name.endswith(dataset.file_ending)
    ]  # fmt: skip
    by_name: dict[str, set[str]] = {}
    for class_name in _class_names(datasets):
        by_name.setdefault(class_name.casefold(), set()).add(class_name)
    faults += [
        Fault("labels", f"the classes {listed(sorted(names))}", "one spelling of a name", "Rename one of them.")
        for names in by_name.values()
        if len(names) > 1
    ]
    if len(_lazy_semantics(datasets)) > 1:
        meanings = ", ".join(f"{dataset.labels.lazy_semantics} in {dataset.name}" for dataset in datasets)
        expected = 'the same meaning of 0 in all; it must be "marginal" if the data sets have different classes'
        faults.append(Fault("lazy_semantics", meanings, expected, 'Remove "lazy_semantics" where it is "seed".'))
    return faults


def _channel_faults(first: Dataset, other: Dataset) -> list[Fault]:
    first_names, other_names = ([channel.casefold() for channel in dataset.channels] for dataset in (first, other))
    if first_names == other_names:
        return []
    fix = "Data sets with different channels cannot be merged. If the channels are the same, give them the same names."
    if sorted(first_names) == sorted(other_names):
        fix = "Bring the channels into the same order, both files and channel_names."
    elif len(first_names) != len(other_names):
        fix = "Remove the channels that only one of them has."
    present, expected = (f"{len(dataset.channels)} ({listed(dataset.channels, 20)})" for dataset in (other, first))
    return [Fault(f"{other.name}: channel_names", present, f"{expected}, as in {first.name}", fix)]


def _region_faults(first: Dataset, other: Dataset) -> list[Fault]:
    if not first.labels.has_regions and not other.labels.has_regions:
        return []
    first_regions, other_regions = (_region_description(dataset) for dataset in (first, other))
    if first_regions == other_regions:
        return []
    fix = "Regions consist of values: give both data sets the same labels and regions_class_order, or use classes."
    return [Fault(f"{other.name}: labels", shown(other_regions), f"{shown(first_regions)}, as in {first.name}", fix)]


def _region_description(dataset: Dataset) -> list[Any]:
    labels = dataset.labels
    return [{head.name: list(head.values) for head in labels.heads}, list(labels.paint_values or ())]


def _class_names(datasets: Iterable[Dataset]) -> tuple[str, ...]:
    """Return the classes of all data sets in the order of their first occurrence, background first."""
    return tuple(dict.fromkeys(name for dataset in datasets for name in dataset.labels.class_names))


def _lazy_semantics(datasets: Sequence[Dataset]) -> set[str]:
    """Return the meanings of 0 that are used in cases whose annotation omits classes."""
    classes = _class_names(datasets)
    relied_on = {
        dataset.labels.lazy_semantics
        for dataset in datasets
        if any(statement.annotated is not None for statement in dataset.labels.statements.values())
    }
    return relied_on | {"marginal" for dataset in datasets if _added(dataset, classes)}


def _added(dataset: Dataset, classes: Iterable[str]) -> tuple[str, ...]:
    """Return the classes that ``dataset`` does not declare."""
    return tuple(name for name in classes if name not in dataset.labels.class_names)


def _merged_set(dataset: Dataset, members: Iterable[int], classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names of a label set of ``dataset`` in merged order; background includes classes it lacks."""
    names = {dataset.labels.class_names[index] for index in members}
    if BACKGROUND in names:
        names.update(_added(dataset, classes))
    return tuple(name for name in classes if name in names)


def _set_values(datasets: Iterable[Dataset], classes: Sequence[str], *, start: int) -> dict[WeightedSet, int]:
    """Return weighted label set -> value, from ``start`` on, for all data sets; equal ones share a value."""
    sets = {
        _weighted_set(dataset, value, classes)
        for dataset in datasets
        for value in dataset.labels.set_values
        if value not in unknown_values(dataset.labels)
    }
    ordered = sorted(sets, key=lambda item: (-item[1], [classes.index(name) for name in item[0]]))
    return {item: value for value, item in enumerate(ordered, start=start)}


def _weighted_set(dataset: Dataset, value: int, classes: Sequence[str]) -> WeightedSet:
    """Return what a file value of ``label_sets`` or ``label_weights`` means in merged classes."""
    labels = dataset.labels
    return _merged_set(dataset, labels.set_values[value], classes), labels.value_weights.get(value, 1.0)


def _values(
    dataset: Dataset, class_values: Mapping[str, int], set_values: Mapping[WeightedSet, int], ignore: int | None,
    classes: Sequence[str],
) -> dict[int, int]:  # fmt: skip
    """Return file value -> value in the merged data set."""
    labels = dataset.labels
    values = {value: class_values[name] for name, value in zip(labels.class_names, labels.class_values, strict=True)}
    values |= {
        value: set_values[_weighted_set(dataset, value, classes)]
        for value in labels.set_values
        if value not in unknown_values(labels)
    }
    return values if ignore is None else values | dict.fromkeys(unknown_values(labels), ignore)


def _prefixes(datasets: Sequence[Dataset]) -> list[str]:
    """Return the names of the data sets, with a number where names are equal."""
    times = Counter(dataset.name for dataset in datasets)
    return [
        dataset.name if times[dataset.name] == 1 else f"{dataset.name}_{number}"
        for number, dataset in enumerate(datasets, start=1)
    ]


def _case_names(datasets: Sequence[Dataset]) -> list[dict[str, str]]:
    """Return case -> merged name for each data set; names that occur in several data sets get a prefix."""
    times = Counter(name for dataset in datasets for name in dataset.case_names)
    renamed = [
        {name: name if times[name] == 1 else f"{prefix}_{name}" for name in dataset.case_names}
        for dataset, prefix in zip(datasets, _prefixes(datasets), strict=True)
    ]
    after = Counter(name for names in renamed for name in names.values())
    faults = [
        Fault("cases", f"{number} cases that would be named {name!r}", "names that differ", "Rename one of the cases.")
        for name, number in after.items()
        if number > 1
    ]
    if faults:
        raise DatasetError(faults)
    return renamed


def _case_entries(sources: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Return ``cases`` of the merged dataset.json, without cases about which nothing is stated."""
    entries = {
        source.case_names[case.name]: _case_entry(source, case) for source in sources for case in source.dataset.cases
    }
    return {name: entry for name, entry in entries.items() if entry}


def _case_entry(source: Source, case: CaseFiles) -> dict[str, Any]:
    """Return the statements about a case: annotated and absent classes, priority, group."""
    labels = source.dataset.labels
    statement = labels.statements.get(case.name, CaseStatement())
    annotated = statement.annotated
    if source.added:  # background of the source may be one of these, but not one of its own classes
        is_complete = annotated is None or (0 in annotated and labels.lazy_semantics == "marginal")
        annotated = frozenset(range(1, labels.n_classes)) if is_complete else (annotated or frozenset()) - {0}
    entry: dict[str, Any] = {}
    if annotated is not None:
        entry["annotated"] = [labels.class_names[index] for index in sorted(annotated)]
    if statement.absent:
        absent = [labels.class_names[index] for index in sorted(statement.absent)]
        entry["absent"] = absent + list(source.added if BACKGROUND in absent else ())
    if case.priority != 1:
        entry["priority"] = case.priority
    if case.group is not None:
        entry["group"] = f"{source.prefix}/{case.group}"
    return entry


def _common_protocol(sources: Sequence[Source]) -> tuple[dict[str, Any], list[str]]:
    """Return the promises that hold for the merged data set, and a warning that names all others."""
    sections: list[dict[str, Any]] = [dict(source.dataset.json.get("annotation_protocol", {})) for source in sources]
    common = {key: value for key, value in sections[0].items() if all(item.get(key) == value for item in sections)}
    if any(source.added for source in sources):
        common = {}
    if "slice_axis" not in common and any("slice_axis" in section for section in sections):
        common = {key: value for key, value in common.items() if key not in _ABOUT_SLICES}
    lost = sorted({key for section in sections for key in section} - common.keys())
    if not lost:
        return common, []
    reason = "a promise must hold for the whole data set, and not every source makes it for every class"
    return common, [f"annotation_protocol: {listed(lost)} dropped: {reason}"]


def _shared_images(datasets: Sequence[Dataset]) -> list[str]:
    """Return a warning for each image in several data sets: a fold could train and validate on it."""
    holders: dict[str, list[str]] = {}
    for dataset in datasets:
        for case in dataset.cases:
            holders.setdefault(str(case.images[0].resolve()), []).append(f"{dataset.name}/{case.name}")
    return [
        f"{path}: the image of {listed(cases)}. Give these cases the same group in the dataset.json of the merged data "
        "set. Otherwise a fold may train on one and validate on another"
        for path, cases in holders.items()
        if len(cases) > 1
    ]
