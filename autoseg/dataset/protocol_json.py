"""Read ``annotation_protocol`` of a dataset.json: what the annotators promise about how they worked."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.label_json import classes_by_name
from autoseg.dataset.labels import Labels
from autoseg.dataset.protocol import AnnotationProtocol, Reach

SECTION = "annotation_protocol"
PROTOCOL_KEYS = ("classes_complete_in", "reach_mm", "instances_touched", "background_encloses", "slice_axis")
AXES = "zyx"
"""Names of the axes 0, 1, 2 of an array as it is read: z is the last axis of a NIfTI file, x the first."""
AUTO: Final = "auto"
_EXAMPLE = f'Write "{SECTION}": {{"classes_complete_in": "slice", "reach_mm": 25}}.'
_REACH_FIX = 'Write "reach_mm": 25 (mm, for every class), {"liver": 40}, or "auto".'


def parse_protocol(content: Mapping[str, Any], labels: Labels | None, findings: Findings) -> AnnotationProtocol:
    """Return what ``annotation_protocol`` promises; what is wrong with it is added to ``findings``.

    A promise that has a fault is left out. Without the key nothing is promised.

    Parameters
    ----------
    labels
        With everything that is said of cases, for the names of classes and to warn where nothing is left open; None
        after a fault in ``labels``: class names are not checked then.
    """
    section = content.get(SECTION, {})
    if not isinstance(section, Mapping):
        findings.fault(SECTION, found=shown(section), expected="an object with promises", fix=_EXAMPLE)
        return AnnotationProtocol()
    for name in section:
        if name not in PROTOCOL_KEYS:
            findings.fault(
                f"{SECTION}.{name}", found="an unknown key", expected=f"one of {', '.join(PROTOCOL_KEYS)}",
                fix="Correct or remove it." + did_you_mean(name, PROTOCOL_KEYS, 0.6),
            )  # fmt: skip
    encloses, gap_mm = _encloses(section, findings)
    protocol = AnnotationProtocol(
        classes_complete_in=_complete_in(section, findings),
        reach_mm=_reach(section, labels, findings),
        instances_touched=_claim(section, "instances_touched", findings),
        background_encloses=encloses,
        gap_mm=gap_mm,
        slice_axis=_slice_axis(section, findings),
    )
    if labels is not None and labels.is_dense and not protocol.is_empty:
        findings.warn(
            SECTION,
            "changes nothing, because every voxel of every case is said to be annotated: there is no ignore label, no "
            "unlabelled, no label_sets, no valid_mask_folder and nothing in cases that leaves a voxel open. Declare "
            'what un-annotated voxels look like, say "unlabelled": 255 beside labels',
        )
    return protocol


def _complete_in(section: Mapping[str, Any], findings: Findings) -> Literal["slice", "case"] | None:
    value = section.get("classes_complete_in")
    if value in ("slice", "case") or "classes_complete_in" not in section:
        return cast("Literal['slice', 'case'] | None", value)
    hint = did_you_mean(value, ("slice", "case"), 0.6) if isinstance(value, str) else ""
    findings.fault(
        f"{SECTION}.classes_complete_in", found=shown(value), expected='"slice" or "case"',
        fix='Write "slice" if every class in an annotated slice was annotated there, "case" if every class in a case '
        "was annotated somewhere in it, or remove the key." + hint,
    )  # fmt: skip
    return None


def _slice_axis(section: Mapping[str, Any], findings: Findings) -> int | None:
    value = section.get("slice_axis")
    if "slice_axis" not in section:
        return None
    if isinstance(value, str) and value in ("z", "y", "x"):
        return AXES.index(value)
    findings.fault(
        f"{SECTION}.slice_axis", found=shown(value), expected='"z", "y" or "x"',
        fix='Write the axis that counts the slices you drew in, say "slice_axis": "z" (z is the last axis of a NIfTI '
        "file, x the first), or remove the key.",
    )  # fmt: skip
    return None


def _encloses(section: Mapping[str, Any], findings: Findings) -> tuple[bool, float]:
    """Return whether ``background_encloses`` is promised, and the widest gap (mm) that it closes."""
    value = section.get("background_encloses", False)
    if not isinstance(value, Mapping):
        return _claim(section, "background_encloses", findings), 0.0
    gap = value.get("gap_mm")
    gap_mm = float(gap) if isinstance(gap, (int, float)) and not isinstance(gap, bool) and gap < math.inf else -1.0
    if set(value) == {"gap_mm"} and gap_mm >= 0:
        return True, gap_mm
    findings.fault(
        f"{SECTION}.background_encloses", found=shown(dict(value)),
        expected='true, false, or {"gap_mm": a number of mm of 0 or more}',
        fix='Write "background_encloses": {"gap_mm": 2} if gaps of up to 2 mm in a line of background count as closed.',
    )  # fmt: skip
    return False, 0.0


def _claim(section: Mapping[str, Any], key: str, findings: Findings) -> bool:
    value = section.get(key, False)
    if isinstance(value, bool):
        return value
    proposal = "false" if str(value).strip().casefold() in ("0", "no", "false", "none") else "true"
    findings.fault(
        f"{SECTION}.{key}", found=shown(value), expected="true or false",
        fix=f'Write "{key}": {proposal}, without quotes, or remove the key.',
    )  # fmt: skip
    return False


def _reach(section: Mapping[str, Any], labels: Labels | None, findings: Findings) -> Reach | Mapping[int, Reach] | None:
    """Return ``reach_mm``: one distance for all classes, or one per class index."""
    key = f"{SECTION}.reach_mm"
    if "reach_mm" not in section:
        return None
    value = section["reach_mm"]
    if not isinstance(value, Mapping):
        return _distance(key, value, 'a number of mm above 0, "auto", or an object from class name to these', findings)
    if not value:
        expected = "at least one class with its distance"
        findings.fault(key, found="an object without classes", expected=expected, fix=_REACH_FIX)
    reach: dict[int, Reach] = {}
    for name, distance in value.items():
        distance_mm = _distance(f"{key}.{name}", distance, 'a number of mm above 0, or "auto"', findings)
        index = _class_index(f"{key}.{name}", name, labels, findings) if labels is not None else None
        if index is not None and distance_mm is not None:
            reach[index] = distance_mm
    return reach or None


def _distance(key: str, value: object, expected: str, findings: Findings) -> Reach | None:
    """Return a distance in mm or "auto"; None after a fault."""
    if value == AUTO:
        return AUTO
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= sys.float_info.max:
        return float(value)
    fix = _REACH_FIX
    if isinstance(value, str):
        fix += did_you_mean(value, (AUTO,), 0.6) or (" Leave out the quotes." if _is_number(value) else "")
    findings.fault(key, found=shown(value), expected=expected, fix=fix)
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _class_index(key: str, name: str, labels: Labels, findings: Findings) -> int | None:
    """Return the foreground class that ``name`` stands for; None after a fault."""
    known = {other: members for other, members in classes_by_name(labels).items() if 0 not in members}
    single = [other for other, members in known.items() if len(members) == 1]
    fix = f"Choose among {listed(single, 20)}."
    if name in known and len(known[name]) == 1:
        return next(iter(known[name]))
    if name in known:
        findings.fault(
            key, found=f"the region {name!r} of {len(known[name])} classes",
            expected="the name of one class: a distance is promised per class, and a region is none", fix=fix,
        )  # fmt: skip
    elif name in labels.class_names:
        findings.fault(
            key, found=f"{name!r}", expected="a foreground class: background reaches everywhere",
            fix="Remove it; background_encloses is the promise about annotated background.",
        )  # fmt: skip
    else:
        findings.fault(
            key, found=f"the name {name!r}", expected="a class declared in labels",
            fix=fix + did_you_mean(name, single),
        )  # fmt: skip
    return None
