"""Read ``labels`` and ``regions_class_order`` of a dataset.json: from names and integers to :class:`Labels`.

Source: nnU-Net v2 ``utilities/label_handling/label_handling.py``. We differ in that the ignore label may be any
integer above the other labels, in that background may have any value where ``unlabelled`` says what nobody looked at,
and in that every mistake is named, also those that nnU-Net takes without a word (equal values, gaps, negative values,
text for numbers, ``Ignore`` for ``ignore``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.file_values import MAX_VALUE, parse_value
from autoseg.dataset.labels import Head, Labels
from autoseg.dataset.region_json import parse_paint_values
from autoseg.dataset.unknown_json import (
    BACKGROUND,
    IGNORE,
    UNLABELLED,
    as_written,
    background_value,
    check_background,
    check_like_unlabelled,
    declare_unknown,
    move_to_unlabelled,
    parse_ignore,
    parse_unlabelled,
)

_LIKE_BACKGROUND = frozenset({"bg", "back", "outside", "other", "negative", "nothing", "empty", "drawn background"})
"""Names, in small letters, of what may be the background beside a 0 that nobody drew."""

Entries = dict[str, tuple[int, ...]]
"""Foreground label name -> its values, ascending; more than one for a region."""


def parse_labels(content: Mapping[str, Any], findings: Findings) -> Labels | None:
    """Return what ``labels``, ``unlabelled`` and ``regions_class_order`` declare; None after adding what is wrong.

    ``label_sets`` and ``cases`` are read elsewhere (``core.case_json``).
    """
    already = len(findings.faults)
    section = _labels_section(content, findings)
    if section is None:
        return None
    check_background(content, section, findings)
    misspelt = _check_spelling(content, section, findings)
    named = {name: value for name, value in section.items() if name not in {BACKGROUND, IGNORE, *misspelt}}
    entries = _foreground_entries(content, named, findings)
    ignore = parse_ignore(content, section, entries, findings)
    unlabelled = parse_unlabelled(content, section, entries, findings)
    background = background_value(section)
    has_regions = any(is_region(value) for value in named.values())
    _check_entries(entries, background, findings)
    if not named:
        findings.fault(
            "labels", found="no foreground class", expected="at least one beside background",
            fix='Write the classes with their values: {"background": 0, "liver": 1}.',
        )  # fmt: skip
    if has_regions:
        paint_values = parse_paint_values(content, named, entries, ignore, findings)
    else:
        paint_values = None
        if len(entries) == len(named):
            _check_gaps(content, entries, background, findings)
    if len(findings.faults) > already:
        return None
    return replace(_labels(entries, background, paint_values), ignore=ignore, unlabelled=unlabelled)


def classes_by_name(labels: Labels) -> dict[str, frozenset[int]]:
    """Return the class indices that each name of a class or region stands for, background included."""
    by_class = {name: frozenset({index}) for index, name in enumerate(labels.class_names)}
    return by_class | {head.name: frozenset(head.classes) for head in labels.heads}


def is_region(value: object) -> bool:
    """Whether a label value declares a region: a list of more than one integer (a one-element list does not)."""
    return isinstance(value, (list, tuple)) and len(value) > 1


def is_integer(value: object) -> bool:
    """Whether ``value`` is an integer; JSON's true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(text: str) -> bool:
    return text.strip().isdecimal() and len(text) <= len(str(MAX_VALUE))


def _labels_section(content: Mapping[str, Any], findings: Findings) -> Mapping[str, Any] | None:
    example = 'Write "labels": {"background": 0, "liver": 1}, and "ignore": 2 for voxels that nobody annotated.'
    if "labels" not in content:
        hint = did_you_mean("labels", content)
        findings.fault("labels", found="no such key", expected="an object from name to value", fix=example + hint)
        return None
    section = content["labels"]
    if not isinstance(section, Mapping):
        findings.fault("labels", found=shown(section), expected="an object from name to value", fix=example)
        return None
    if section and all(_is_number(name) and isinstance(value, str) for name, value in section.items()):
        turned = ", ".join(f'"{value}": {int(name)}' for name, value in section.items())
        findings.fault(
            "labels", found=f"values as keys, {shown(dict(section))} (nnU-Net v1's form)",
            expected="names as keys and integers as values", fix=f'Write "labels": {{{turned}}}.',
        )  # fmt: skip
        return None
    return section


def _check_spelling(content: Mapping[str, Any], section: Mapping[str, Any], findings: Findings) -> set[str]:
    """Return the names that are ``background`` or ``ignore`` in other letters, or of what is no class.

    Warn about names close to them.
    """
    misspelt = {name for name in section if check_like_unlabelled(content, name, findings)}
    for name in section:
        for exact in (BACKGROUND, IGNORE):
            if name == exact:
                continue
            if _folded(name) == exact:
                misspelt.add(name)
                fix = f'Write "{exact}": {shown(section[name])}; as {name!r} it would be trained as a class.'
                value = parse_value(section[name])
                if exact == IGNORE and IGNORE in section and value is not None:
                    fix = f"A second such value stands beside labels: write {move_to_unlabelled(content, name, value)}."
                findings.fault(f"labels.{name}", found=f"the name {name!r}", expected=f"exactly {exact!r}", fix=fix)
            elif did_you_mean(name, [exact], cutoff=0.85):
                findings.warn(f"labels.{name}", f"is trained as a class of its own. Did you mean {exact!r}?")
        if _folded(name) in _LIKE_BACKGROUND and background_value(section) == 0 and BACKGROUND in section:
            others = {other: value for other, value in section.items() if other not in {BACKGROUND, name}}
            written = {"labels": {BACKGROUND: section[name], **others}, **declare_unknown(content, 0)}
            findings.warn(
                f"labels.{name}", "is trained as a class beside background. If it is the background that somebody "
                f"drew, and 0 marks voxels that nobody looked at, write {as_written(written)}",
            )  # fmt: skip
    return misspelt


def _folded(name: str) -> str:
    return name.strip().casefold()


def _foreground_entries(content: Mapping[str, Any], named: Mapping[str, Any], findings: Findings) -> Entries:
    """Return the entries whose values are integers in range; add a fault for each that is not."""
    entries: Entries = {}
    for name, value in named.items():
        key = f"labels.{name}"
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        wrong = [item for item in values if not is_integer(item)]
        if not values:
            findings.fault(
                key, found="an empty region", expected="at least one integer",
                fix="List the values that make up the region, or remove the label.",
            )  # fmt: skip
        elif wrong:
            findings.fault(
                key, found=f"{shown(wrong[0])} ({_kind(wrong[0])})", expected="an integer, or a list of integers",
                fix=f'Write "{name}": {_integer_proposal(wrong[0])}, without quotes and decimal point.',
            )  # fmt: skip
        elif min(values) < 0 or max(values) > MAX_VALUE:
            outside = next(item for item in values if not 0 <= item <= MAX_VALUE)
            fix = "Choose such a value and re-map the label files."
            if outside < 0 and parse_value(outside) is not None and len(values) == 1:
                fix += f" If nobody looked at these voxels, write {move_to_unlabelled(content, name, outside)}."
            findings.fault(
                key, found=f"{'negative ' if outside < 0 else ''}value {outside}",
                expected=f"integers from 1 to {MAX_VALUE}", fix=fix,
            )  # fmt: skip
        else:
            entries[name] = tuple(sorted(set(values)))
            if len(values) > len(entries[name]):
                findings.warn(key, f"the region {shown(values)} lists a value twice")
    return entries


def _kind(value: object) -> str:
    names = {bool: "true or false", float: "a float", str: "text", list: "a list", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _integer_proposal(value: object) -> str:
    if isinstance(value, str) and _is_number(value):
        return str(int(value))
    if isinstance(value, float) and value == value and abs(value) <= MAX_VALUE:
        return str(round(value))
    return "1"


def _check_entries(entries: Entries, background: int, findings: Findings) -> None:
    """Find values that belong to the background and labels with equal values."""
    first_with: dict[tuple[int, ...], str] = {}
    for name, values in entries.items():
        if background in values:
            found = f"the value {background}" if len(values) == 1 else f"{background} in the region {list(values)}"
            findings.fault(
                f"labels.{name}", found=found, expected=f"only foreground values, since {background} is the background",
                fix=f"Use a value of {'1 or more' if background == 0 else 'its own'}, and leave {background} out of "
                "regions.",
            )  # fmt: skip
        elif values in first_with:
            shared = values[0] if len(values) == 1 else list(values)
            findings.fault(
                f"labels.{name}", found=f"duplicate value {shared}, also that of {first_with[values]!r}",
                expected="a value of its own for each label", fix="Give one of the two another value, or remove it.",
            )  # fmt: skip
        first_with.setdefault(values, name)


def _check_gaps(content: Mapping[str, Any], entries: Entries, background: int, findings: Findings) -> None:
    """Find values that nothing declares below that of the last class; where 0 is no background, above the first."""
    classes = {background, *(item for values in entries.values() for item in values)}
    sets = content.get("label_sets", {})
    others = [content.get(UNLABELLED), content["labels"].get(IGNORE), *(sets if isinstance(sets, Mapping) else ())]
    present = classes | {value for item in others if (value := parse_value(item)) is not None and value >= 0}
    highest = max(item for values in entries.values() for item in values) if entries else 0
    missing = sorted(set(range(min(classes), highest)) - present)
    if missing:
        findings.fault(
            "labels", found=f"the values {listed(sorted(present), 20)} with a gap (no {listed(missing)})",
            expected="consecutive values 0, 1, 2, ... (only ignore may be higher)",
            fix="Number the classes without gaps and re-map the label files.",
        )  # fmt: skip


def _labels(entries: Entries, background: int, paint_values: tuple[int, ...] | None) -> Labels:
    values = [background, *sorted({item for members in entries.values() for item in members})]
    index = {value: position for position, value in enumerate(values)}
    names = {members[0]: name for name, members in entries.items() if len(members) == 1} | {background: BACKGROUND}
    heads = [
        Head(name, tuple(index[value] for value in members), members)
        for name, members in (entries if paint_values is not None else _by_value(entries)).items()
    ]
    if paint_values is None:
        heads.insert(0, Head(BACKGROUND, (0,), (background,), is_background=True))
    return Labels(
        class_values=tuple(values),
        class_names=tuple(names.get(value, f"value {value}") for value in values),
        heads=tuple(heads),
        paint_values=paint_values,
    )


def _by_value(entries: Entries) -> Entries:
    return dict(sorted(entries.items(), key=lambda entry: entry[1]))
