"""Read ``label_sets`` and ``cases`` of a dataset.json: what is known of some voxels and of some cases."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, parse_value
from autoseg.dataset.folder_files import normal_name
from autoseg.dataset.label_json import classes_by_name
from autoseg.dataset.labels import CaseStatement, Labels, LazySemantics

CASE_KEYS = ("annotated", "absent", "priority", "group", "experts")


@dataclass(frozen=True)
class CaseSection:
    """``dataset.json: cases``, by case name; cases of which nothing is said are left out."""

    statements: Mapping[str, CaseStatement] = field(default_factory=dict)
    priorities: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)


def parse_label_sets(content: Mapping[str, Any], labels: Labels, findings: Findings) -> dict[int, frozenset[int]]:
    """Return file value -> class indices that it may be, from ``label_sets``; empty if there is none."""
    section = content.get("label_sets", {})
    example = 'Write "label_sets": {"5": ["liver", "tumour"]}.'
    if not isinstance(section, Mapping):
        findings.fault("label_sets", found=shown(section), expected="an object from value to class names", fix=example)
        return {}
    taken = set(labels.file_values())
    result: dict[int, frozenset[int]] = {}
    for text, names in section.items():
        key = f"label_sets.{text}"
        value = parse_value(text)
        if value is None:
            expected = f'a label value from {LEAST_VALUE} to {MAX_VALUE}, or "nan", as key'
            findings.fault(key, found=repr(text), expected=expected, fix=example)
            continue
        if value in taken:
            findings.fault(
                key, found=f"the value {value}, which is declared already", expected="a value of its own",
                fix="Choose another value and re-map the label files.",
            )  # fmt: skip
        taken.add(value)
        members = _class_names(key, names, labels, findings)
        if members is not None and not members:
            findings.fault(key, found="no class", expected="the names of the classes that it may be", fix=example)
        elif members is not None:
            result[value] = members
    return result


def parse_lazy_semantics(content: Mapping[str, Any], findings: Findings) -> LazySemantics:
    """Return ``lazy_semantics``: how cases are read whose ``annotated`` leaves classes out."""
    known = get_args(LazySemantics)
    value = content.get("lazy_semantics", "marginal")
    if value not in known:
        hint = did_you_mean(value, known, 0.6) if isinstance(value, str) else ""
        findings.fault(
            "lazy_semantics", found=shown(value), expected='"marginal" or "seed"',
            fix='Remove the key ("marginal": 0 means "none of the annotated classes"), or write "seed" (what is drawn '
            'as a class outside annotated, 0 included, means only "not an absent class").' + hint,
        )  # fmt: skip
        return "marginal"
    entries = content["cases"].values() if isinstance(content.get("cases"), Mapping) else ()
    if value == "seed" and not any(isinstance(entry, Mapping) and "annotated" in entry for entry in entries):
        findings.warn("lazy_semantics", "changes nothing, because no case says which classes are annotated")
    return cast("LazySemantics", value)


def parse_cases(
    content: Mapping[str, Any], labels: Labels, names: Collection[str] | None, findings: Findings
) -> CaseSection:
    """Return what ``cases`` says.

    Parameters
    ----------
    labels
        With its ``set_values`` and ``lazy_semantics``.
    names
        The training cases, for the check of the keys; None where they are not known (model folders).
    """
    section = content.get("cases", {})
    if not isinstance(section, Mapping):
        findings.fault(
            "cases", found=shown(section), expected="an object with one entry per case",
            fix='Write "cases": {"case_1": {"absent": ["tumour"]}}.',
        )  # fmt: skip
        return CaseSection()
    statements: dict[str, CaseStatement] = {}
    priorities: dict[str, float] = {}
    groups: dict[str, str] = {}
    for given, entry in section.items():
        case = normal_name(given)
        key = f"cases.{case}"
        if names is not None and case not in names:
            findings.fault(
                key, found="a case without files", expected="the name of a training case",
                fix="Correct the name (file name without channel number and ending)." + did_you_mean(case, names, 0.8),
            )  # fmt: skip
        if not isinstance(entry, Mapping):
            expected = f"an object with some of {', '.join(CASE_KEYS)}"
            findings.fault(key, found=shown(entry), expected=expected, fix='Write {"absent": ["tumour"]}.')
            continue
        _check_keys(key, entry, findings)
        statement = _statement(key, entry, labels, findings)
        if statement != CaseStatement():
            statements[case] = statement
        if "priority" in entry:
            priorities[case] = _priority(key, entry["priority"], findings)
        if "group" in entry:
            groups[case] = _group(key, entry["group"], findings)
    _check_priorities(priorities, names, findings)
    return CaseSection(statements, priorities, groups)


def _class_names(key: str, names: object, labels: Labels, findings: Findings) -> frozenset[int] | None:
    """Return the classes of a list of class or region names; None after a fault."""
    known = classes_by_name(labels)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        findings.fault(
            key, found=shown(names), expected="a list of class names", fix=f"Choose among {listed(known, 20)}."
        )
        return None
    unknown = [name for name in names if name not in known]
    for name in unknown:
        findings.fault(
            key, found=f"the name {name!r}", expected="a name declared in labels",
            fix=f"Choose among {listed(known, 20)}.{did_you_mean(name, known)}",
        )  # fmt: skip
    return None if unknown else frozenset().union(*(known[name] for name in names))


def _check_keys(key: str, entry: Mapping[str, Any], findings: Findings) -> None:
    for name in entry:
        if name not in CASE_KEYS:
            findings.fault(
                f"{key}.{name}", found="an unknown key", expected=f"one of {', '.join(CASE_KEYS)}",
                fix="Correct or remove it." + did_you_mean(name, CASE_KEYS),
            )  # fmt: skip
    if "experts" in entry:
        findings.fault(
            f"{key}.experts", found="several experts", expected="one label file per case",
            fix="Experts are not supported by this version; fuse them into one label file and remove the key.",
        )  # fmt: skip


def _statement(key: str, entry: Mapping[str, Any], labels: Labels, findings: Findings) -> CaseStatement:
    annotated, absent = (
        _class_names(f"{key}.{name}", entry[name], labels, findings) if name in entry else None
        for name in ("annotated", "absent")
    )
    if annotated is not None and _is_complete(annotated, labels):
        annotated = None
    if absent is not None and len(absent) == labels.n_classes:
        findings.fault(
            f"{key}.absent", found="all classes", expected="at least one class that may be there",
            fix="Remove a class that does occur in this case.",
        )  # fmt: skip
    return CaseStatement(annotated, absent or frozenset())


def _is_complete(annotated: frozenset[int], labels: Labels) -> bool:
    """Whether a list of annotated classes says as much as none.

    A complete foreground leaves nothing but background undrawn; "seed" does not take that for granted. A list with
    background and some of the other classes does say something: for those that it leaves out no promise holds.
    """
    needed = range(labels.n_classes) if labels.lazy_semantics == "seed" else range(1, labels.n_classes)
    return annotated.issuperset(needed)


def _priority(key: str, value: object, findings: Findings) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max:
        return float(value)
    findings.fault(
        f"{key}.priority", found=shown(value), expected="a number of 0 or more (1 is usual)",
        fix="Write 2 to draw patches from this case twice as often, 0 for never.",
    )  # fmt: skip
    return 1.0


def _check_priorities(priorities: Mapping[str, float], names: Collection[str] | None, findings: Findings) -> None:
    if names and not any(priorities.get(name, 1.0) for name in names):
        findings.fault(
            "cases", found="priority 0 for every case", expected="at least one case to train on",
            fix="Give some cases a priority above 0.",
        )  # fmt: skip


def _group(key: str, value: object, findings: Findings) -> str:
    if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).strip():
        return str(value)
    findings.fault(
        f"{key}.group", found=shown(value), expected="a name, say of the patient", fix='Write "group": "patient_7".'
    )
    return ""
