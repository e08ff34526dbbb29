"""Keys of a dataset.json about the classes of voxels and cases: ``label_sets``, ``label_weights`` and ``cases``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoseg.core.findings import Findings, did_you_mean, listed
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, parse_value
from autoseg.dataset.folder_files import normal_name
from autoseg.dataset.json_advice import as_written
from autoseg.dataset.label_section import classes_by_name
from autoseg.dataset.labels import CaseStatement, Labels
from autoseg.dataset.schema import IGNORE, CaseEntry, DatasetSchema


def add_statements(labels: Labels, schema: DatasetSchema, names: Collection[str] | None, findings: Findings) -> Labels:
    """Return labels with all that is declared beside ``labels``: sets, weights, ``valid_mask_folder`` and ``cases``.

    Parameters
    ----------
    names
        The training cases, to check the keys of ``cases``; None if they are not known (model folders).
    """
    weighted = _weighted_values(schema, labels, findings)
    labels = replace(
        labels,
        set_values=_label_sets(schema, labels, findings) | {value: members for value, (members, _) in weighted.items()},
        value_weights={value: weight for value, (_, weight) in weighted.items() if 0 < weight < 1},
        lazy_semantics=schema.lazy_semantics,
        has_masks=schema.valid_mask_folder is not None,
        has_boxes=bool(schema.boxes),
    )
    entries = entries_by_case(schema)
    _check_cases(schema, names, findings)
    _check_fusion(schema, labels, findings)
    if labels.lazy_semantics == "seed" and all(entry.annotated is None for entry in entries.values()):
        findings.warn("lazy_semantics", "has no effect, because no case lists its annotated classes")
    statements = {case: _statement(f"cases.{case}", entry, labels, findings) for case, entry in entries.items()}
    stated = {case: statement for case, statement in statements.items() if statement != CaseStatement()}
    return replace(labels, statements=stated)


def entries_by_case(schema: DatasetSchema) -> dict[str, CaseEntry]:
    """Return case -> its entry in ``cases``, for entries without fault; names are in normal form (NFC)."""
    return {normal_name(name): entry for name, entry in schema.cases.items() if entry is not None}


def _check_cases(schema: DatasetSchema, names: Collection[str] | None, findings: Findings) -> None:
    """Add faults for entries of cases without files, and if no case has a priority above 0."""
    for case in map(normal_name, schema.cases):
        if names is not None and case not in names:
            findings.fault(
                f"cases.{case}", found="a case without files", expected="the name of a training case",
                fix="Correct the name (file name without channel number and ending)." + did_you_mean(case, names, 0.8),
            )  # fmt: skip
    entries = entries_by_case(schema)
    if names and all(name in entries and entries[name].priority == 0 for name in names):
        findings.fault(
            "cases", found="priority 0 for every case", expected="at least one case to train on",
            fix="Give some cases a priority above 0.",
        )  # fmt: skip


def _check_fusion(schema: DatasetSchema, labels: Labels, findings: Findings) -> None:
    """Add faults for an ``expert_fusion`` that contradicts itself or the labels."""
    fusion, key = schema.expert_fusion, "expert_fusion"
    classes = (IGNORE, *labels.class_names)
    if fusion.undecided not in classes:
        findings.fault(
            f"{key}.undecided", found=repr(fusion.undecided), expected=f"one of {listed(classes, 20)}",
            fix=f"Correct it.{did_you_mean(fusion.undecided, classes)}",
        )  # fmt: skip
    elif fusion.method == "sets" and (fusion.soft or fusion.undecided != IGNORE):
        findings.fault(
            key, found='"method": "sets" with soft or undecided', expected="sets alone, which decides nothing",
            fix='Remove the others, or write "method": "staple".',
        )  # fmt: skip
    if key in schema.model_fields_set and not any(entry.experts for entry in entries_by_case(schema).values()):
        findings.warn(key, "has no effect, because no case has experts")


def _label_sets(schema: DatasetSchema, labels: Labels, findings: Findings) -> dict[int, frozenset[int]]:
    """Return file value -> indices of the possible classes, from ``label_sets``; empty if there is none."""
    declared: set[int | None] = {*labels.file_values()}
    example = {"label_sets": {"5": ["liver", "tumour"]}}
    sets: dict[int, frozenset[int]] = {}
    for text, names in schema.label_sets.items():
        value = _value(f"label_sets.{text}", text, declared, example, findings)
        if value is not None:
            sets[value] = _classes(f"label_sets.{text}", names or (), labels, findings)
    return sets


def _weighted_values(
    schema: DatasetSchema, labels: Labels, findings: Findings
) -> dict[int, tuple[frozenset[int], float]]:
    """Return file value -> indices of its classes and its weight, from ``label_weights``.

    A weight of 0 means that nothing is known: then the classes are all classes.
    """
    declared: set[int | None] = {*labels.file_values(), *map(parse_value, schema.label_sets)}
    example = {"label_weights": {"3": {"label": "tumour", "weight": 0.6}}}
    weighted: dict[int, tuple[frozenset[int], float]] = {}
    for text, entry in schema.label_weights.items():
        key = f"label_weights.{text}"
        value = _value(key, text, declared, example, findings)
        if value is not None and entry is not None:
            members = _classes(key, entry.label, labels, findings)
            weighted[value] = (members if entry.weight > 0 else frozenset(range(labels.n_classes)), entry.weight)
    return weighted


def _value(
    key: str, text: str, declared: set[int | None], example: Mapping[str, Any], findings: Findings
) -> int | None:
    """Return the file value that ``text`` declares, and add it to ``declared``; None after a fault."""
    value = parse_value(text)
    if value is None:
        findings.fault(
            key, found=repr(text), expected=f'a label value from {LEAST_VALUE} to {MAX_VALUE}, or "nan", as key',
            fix=f"Write {as_written(example)}.",
        )  # fmt: skip
    elif value in declared:
        findings.fault(
            key, found=f"the value {value}, which is declared already", expected="a value of its own",
            fix="Choose another value and re-map the label files.",
        )  # fmt: skip
    declared.add(value)
    return value


def _classes(key: str, names: Sequence[str], labels: Labels, findings: Findings) -> frozenset[int]:
    """Return the indices of the classes in the named classes and regions; unknown names are faults."""
    known = classes_by_name(labels)
    for name in names:
        if name not in known:
            findings.fault(
                key, found=f"the name {name!r}", expected="a name declared in labels",
                fix=f"Choose among {listed(known, 20)}.{did_you_mean(name, known)}",
            )  # fmt: skip
    return frozenset().union(*(known.get(name, frozenset()) for name in names))


def _statement(key: str, entry: CaseEntry, labels: Labels, findings: Findings) -> CaseStatement:
    absent = _classes(f"{key}.absent", entry.absent, labels, findings)
    if len(absent) == labels.n_classes:
        findings.fault(
            f"{key}.absent", found="all classes", expected="at least one class that may be there",
            fix="Remove a class that does occur in this case.",
        )  # fmt: skip
    if entry.annotated is None:
        return CaseStatement(None, absent)
    annotated = _classes(f"{key}.annotated", entry.annotated, labels, findings)
    return CaseStatement(None if _is_complete(annotated, labels) else annotated, absent)


def _is_complete(annotated: frozenset[int], labels: Labels) -> bool:
    """Whether a list of annotated classes means the same as no list: all classes are annotated.

    If all foreground classes are annotated, an unannotated voxel is background; with "seed" it is not. A list with
    background and only some other classes means less, since no promise holds for the missing ones.
    """
    needed = range(labels.n_classes) if labels.lazy_semantics == "seed" else range(1, labels.n_classes)
    return annotated.issuperset(needed)
