"""Read which file values say nothing, ``labels.ignore`` and ``unlabelled`` of a dataset.json, and say how to write it.

``ignore`` is nnU-Net's and must be the highest label. ``unlabelled`` is ours and may be any value that no label has:
many tools leave 0, -1 or NaN where nobody drew, and draw background with a value of its own. A label set of all classes
says the same of a further value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autoseg.core.findings import Findings, shown
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, NAN_VALUE, json_value, parse_value, value_name

BACKGROUND = "background"
IGNORE = "ignore"
UNLABELLED = "unlabelled"
_LIKE_UNLABELLED = frozenset(
    {"unlabelled", "unlabeled", "not labelled", "not labeled", "unannotated", "not annotated", "not_annotated"}
)
"""Names, in small letters, of what is hardly a class."""

Entries = Mapping[str, tuple[int, ...]]
"""Foreground label name -> its values."""


def declare_unknown(content: Mapping[str, Any], *values: int) -> dict[str, Any]:
    """Return the keys of a dataset.json that say that nothing is known of voxels with ``values``.

    ``unlabelled`` for the first value if ``content``, the dataset.json, has none yet; label sets of all classes for the
    others. What ``label_sets`` says already is kept.
    """
    given = list(values)
    keys: dict[str, Any] = {}
    if content.get(UNLABELLED) is None and given:
        keys[UNLABELLED] = json_value(given.pop(0))
    if given:
        section, sets = content.get("labels", {}), content.get("label_sets", {})
        names = [name for name in section if name != IGNORE]
        keys["label_sets"] = {
            **(sets if isinstance(sets, Mapping) else {}),
            **{str(json_value(value)): names for value in given},
        }
    return keys


def as_written(keys: Mapping[str, Any]) -> str:
    """Return keys and values as they stand in a JSON file, without the braces around them."""
    return json.dumps(keys, ensure_ascii=False)[1:-1]


def move_to_unlabelled(content: Mapping[str, Any], name: str, *values: int) -> str:
    """Return what to write so that label ``name`` is no label any more and nothing is known of ``values``."""
    labels = {other: value for other, value in content["labels"].items() if other != name}
    return as_written({"labels": labels} | declare_unknown({**content, "labels": labels}, *values))


def background_value(section: Mapping[str, Any]) -> int:
    """Return the file value of background that ``labels`` gives; 0 if it gives none that can be used."""
    value = section.get(BACKGROUND)
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VALUE
    return int(value) if isinstance(value, int) and usable else 0


def check_background(content: Mapping[str, Any], section: Mapping[str, Any], findings: Findings) -> None:
    """Find a background without value, or with one that is not 0 though nothing says what 0 is."""
    if BACKGROUND not in section:
        if not any(name.strip().casefold() == BACKGROUND for name in section):
            findings.fault(
                "labels", found=f"no 'background' among {', '.join(map(str, section)) or 'none'}",
                expected="a label 'background' with value 0",
                fix='Add "background": 0. If 0 marks voxels that nobody looked at, add background with the value with '
                f"which it is drawn instead, and write {as_written(declare_unknown(content, 0))} beside labels.",
            )  # fmt: skip
        return
    value = section[BACKGROUND]
    is_value = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_VALUE
    if is_value and (value == 0 or UNLABELLED in content or _is_misplaced(section)):
        return
    fix = 'Write "background": 0 and re-map the label files if their background has another value.'
    if is_value and not any(0 in _values(item) for item in section.values()):
        fix = (
            f'If 0 marks voxels that nobody looked at, write "{UNLABELLED}": 0 beside labels, and "background": '
            f'{value} may stay; if no label file holds a 0, write "{UNLABELLED}": null. If 0 is background, write '
            '"background": 0.'
        )
    elif is_value:
        fix = f'If every voxel is labelled, write "{UNLABELLED}": null beside labels, and background may stay.'
    findings.fault("labels.background", found=shown(value), expected="the integer 0", fix=fix)


def _values(item: object) -> Sequence[Any]:
    return item if isinstance(item, (list, tuple)) else [item]


def _is_misplaced(section: Mapping[str, Any]) -> bool:
    """Whether another label says what voxels look like at which nobody looked; its own fault tells how to write it."""
    highest = max((value for item in section.values() for value in _values(item) if type(value) is int), default=0)
    return any(
        (name == IGNORE and type(value) is int and value < highest and parse_value(value) is not None)
        or (is_like_unlabelled(name) and parse_value(value) is not None)
        for name, value in section.items()
    )


def is_like_unlabelled(name: str) -> bool:
    """Whether a label is named like what is no class."""
    return name.strip().casefold() in _LIKE_UNLABELLED


def check_like_unlabelled(content: Mapping[str, Any], name: str, findings: Findings) -> bool:
    """Whether label ``name`` can only mean voxels that nobody labelled; that it cannot be a label is then a fault.

    Where it could be a class it is a warning.
    """
    section = content["labels"]
    value = parse_value(section[name])
    if not is_like_unlabelled(name) or value is None:
        return False
    text = move_to_unlabelled(content, name, value)
    if value > 0 and (background_value(section) == 0 or UNLABELLED in content):
        findings.warn(
            f"labels.{name}", f"is trained as a class of its own. If nobody looked at these voxels, write {text}"
        )
        return False
    findings.fault(
        f"labels.{name}", found=f"{shown(section[name])}, a label named {name!r}", expected="only names of classes",
        fix=f"If nobody looked at these voxels, write {text}.",
    )  # fmt: skip
    return True


def parse_ignore(
    content: Mapping[str, Any], section: Mapping[str, Any], entries: Entries, findings: Findings
) -> int | None:
    """Return ``labels.ignore``; None if there is none, or after a fault."""
    if IGNORE not in section:
        return None
    value = section[IGNORE]
    below = [item for values in entries.values() for item in values if item != value]
    highest = max([*below, background_value(section)], default=0)
    wanted = f"one integer greater than every other label, {highest + 1} or more"
    if not isinstance(value, int) or isinstance(value, bool):
        fix = f'Write "{IGNORE}": {highest + 1}, or whatever value un-annotated voxels have in the label files.'
        values = [parse_value(item) for item in _values(value)]
        several = [item for item in values if item is not None]
        if len(several) == len(values) and (len(values) > 1 or several == [NAN_VALUE]):
            fix = f"Any value may mean that nothing is known: write {move_to_unlabelled(content, IGNORE, *several)}."
        kinds = {bool: "true or false", float: "a float", str: "text", list: "a list", type(None): "null"}
        kind = kinds.get(type(value), type(value).__name__)
        findings.fault("labels.ignore", found=f"{shown(value)} ({kind})", expected=wanted, fix=fix)
        return None
    holders = [name for name, values in entries.items() if value in values]
    for name in holders:
        found = f"{value}, the ignore label, in the region {list(entries[name])}"
        if len(entries[name]) == 1:
            found = f"duplicate value {value}, also that of 'ignore'"
        findings.fault(
            f"labels.{name}", found=found, expected="only values of classes, never the ignore label",
            fix="Remove it there: un-annotated voxels belong to no class and no region.",
        )  # fmt: skip
    if value <= highest or value > MAX_VALUE:
        fix = f'Write "{IGNORE}": {min(highest + 1, MAX_VALUE)} and re-map the label files.'
        if value == background_value(section):
            fix = (
                f'{_ONE_MEANING[BACKGROUND]} Write "{UNLABELLED}": {value} beside labels then, without ignore in them.'
            )
        elif parse_value(value) is not None and not holders:
            fix = f"Such a value is declared beside labels: write {move_to_unlabelled(content, IGNORE, value)}."
        findings.fault("labels.ignore", found=str(value), expected=f"{wanted}, at most {MAX_VALUE}", fix=fix)
    return value


def parse_unlabelled(
    content: Mapping[str, Any], section: Mapping[str, Any], entries: Entries, findings: Findings
) -> int | None:
    """Return ``unlabelled``, NaN as ``file_values.NAN_VALUE``; None if there is none (null), or after a fault."""
    said = content.get(UNLABELLED)
    if said is None:
        return None
    value = parse_value(said)
    expected = f'a value of the label files of which nothing is known, from {LEAST_VALUE} to {MAX_VALUE}, or "nan"'
    if value is None:
        several = [parse_value(item) for item in said] if isinstance(said, list) else []
        known = [item for item in several if item is not None]
        fix = f'Write "{UNLABELLED}": 0, or the value that un-annotated voxels have. One above {MAX_VALUE} cannot be '
        fix += "declared; it is often -1, stored without a sign: store the label files as signed integers then."
        if known and len(known) == len(several):
            others = {key: item for key, item in content.items() if key != UNLABELLED}
            fix = (
                f"Write {as_written(declare_unknown(others, *known))}; a set of all classes says that nothing is known."
            )
        findings.fault(UNLABELLED, found=shown(said), expected=expected, fix=fix)
        return None
    holders = [
        name for name, values in {**entries, BACKGROUND: (background_value(section),)}.items() if value in values
    ]
    if type(section.get(IGNORE)) is int and section[IGNORE] == value:
        holders.append(IGNORE)
    for name in holders:
        findings.fault(
            UNLABELLED, found=f"{value_name(value)}, also that of {name!r}", expected=f"{expected}, and no label's",
            fix=_ONE_MEANING.get(name, "Remove the key, or the label."),
        )  # fmt: skip
    return value


_ONE_MEANING = {
    BACKGROUND: "If one value is both background and what nobody looked at, only a mask per case can tell: see "
    "valid_mask_folder. If background is drawn with a value of its own, write that value as labels.background.",
    IGNORE: 'Remove "ignore" from labels: both say the same.',
}
