"""Faults of a dataset.json against its schema: pydantic's errors as messages that say what to write instead."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from autoseg.core.findings import Findings, did_you_mean, shown
from autoseg.dataset import schema as keys
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, NAN_VALUE, parse_value
from autoseg.dataset.json_advice import as_written, declare_unknown, move_to_unlabelled, paint_advice
from autoseg.dataset.schema import (
    BACKGROUND,
    FAULTY,
    IGNORE,
    PROTOCOL,
    BoxEntry,
    CaseEntry,
    DatasetFile,
    DatasetSchema,
    ExpertFusion,
    LabelSection,
    ProtocolSection,
    Section,
)

MISSPELLING_CUTOFF = 0.85
_KINDS = {bool: "true or false", float: "a float", str: "text", list: "a list", dict: "an object", type(None): "null"}
_SECTIONS: dict[str, type[Section]] = {
    "cases": CaseEntry,
    "boxes": BoxEntry,
    PROTOCOL: ProtocolSection,
    "expert_fusion": ExpertFusion,
}
"""Key -> the keys that an object below it may have."""


@dataclass(frozen=True)
class Refusal:
    """A value that is not valid by the schema."""

    path: tuple[str, ...]
    """Keys from the top level of the file down to the value."""
    value: Any
    kind: str
    """Error type of pydantic."""
    content: Mapping[str, Any]
    """Content of the whole file."""


def read_schema(content: Mapping[str, Any], findings: Findings) -> DatasetFile:
    """Return a dataset.json with its valid parts; add every fault against the schema to ``findings``.

    These are missing, misspelt and unknown keys, and values that are not valid for their key.
    """
    _check_keys(content, findings)
    labels = content.get("labels")
    is_read = {  # others are passed over
        keys.ORDER: isinstance(labels, Mapping) and keys.has_regions(labels),
        "modality": "channel_names" not in content,
    }
    read = {key: value for key, value in content.items() if is_read.get(key, True)}
    try:
        return DatasetFile(content, DatasetSchema.model_validate(read))
    except ValidationError as error:
        refusals = _refusals(content, error.errors(include_url=False))
    sound = copy.deepcopy(read)
    for refusal in refusals:
        _add_fault(refusal, findings)
        section: Any = sound
        for name in refusal.path[:-1]:
            section = section[name]
        section[refusal.path[-1]] = FAULTY
    faulty = frozenset(".".join(refusal.path) for refusal in refusals)
    return DatasetFile(content, DatasetSchema.model_validate(sound), faulty)


def _check_keys(content: Mapping[str, Any], findings: Findings) -> None:
    is_regression = content.get("task") == keys.REGRESSION
    required = keys.REQUIRED_OF_REGRESSION if is_regression else keys.REQUIRED
    for key in required:
        if key == "file_ending" and "boxes" in content:
            continue  # the reader of files asks for it if there are other cases
        if key not in content and not (key == "channel_names" and "modality" in content):
            expected, fix = _advice(Refusal((key,), None, "missing", content))
            findings.fault(key, found="no such key", expected=expected, fix=fix + did_you_mean(key, content))
    for key in sorted(content.keys() - keys.NNUNET_KEYS - keys.OWN_KEYS):
        if hint := did_you_mean(key, keys.OWN_KEYS | {keys.ORDER}, MISSPELLING_CUTOFF):
            findings.fault(key, found="an unknown key", expected="a key of dataset.json", fix="Rename it." + hint)


def _refusals(content: Mapping[str, Any], errors: Iterable[ErrorDetails]) -> list[Refusal]:
    """Return the first refusal of each key; the path of a key ends where the file has no further object."""
    by_path: dict[tuple[str, ...], Refusal] = {}
    for error in errors:
        path: tuple[str, ...] = ()
        section: Any = content
        for name in error["loc"]:
            if isinstance(name, int) or not isinstance(section, Mapping) or name not in section:
                break
            path, section = (*path, name), section[name]
        by_path.setdefault(path, Refusal(path, error["input"], error["type"], content))
    return list(by_path.values())


def _add_fault(refusal: Refusal, findings: Findings) -> None:
    found, value, name = shown(refusal.value), refusal.value, refusal.path[-1]
    if refusal.kind == "extra_forbidden":
        known = _SECTIONS[refusal.path[0]].model_fields
        found, expected = "an unknown key", f"one of {', '.join(known)}"
        fix = "Correct or remove it." + did_you_mean(name, known, 0.6)
    else:
        expected, fix = _advice(refusal)
        if refusal.kind == "int_type" or refusal.path == ("labels", IGNORE):
            found += f" ({_KINDS.get(type(value), type(value).__name__)})"
        if isinstance(value, str):
            fix += did_you_mean(value, re.findall(r'"(\w+)"', expected), 0.6)
    findings.fault(".".join(refusal.path), found=found, expected=expected, fix=fix)


def _advice(refusal: Refusal) -> tuple[str, str]:
    """Return the expected value, and the remedy."""
    path, depth = refusal.path, _DEPTHS.get(refusal.path[0], 0)
    key = path[depth] if len(path) > depth else path[0]
    if path[0] == "labels" and len(path) > 1 and key not in LabelSection.model_fields:
        return f"an integer from 1 to {MAX_VALUE}, or a list of these for a region", _label(refusal)
    expected, example = _ADVICE[key]
    if refusal.kind == "inverted":
        return f"{expected}, not values as keys (nnU-Net v1's form)", _labels_turned(refusal)
    if callable(example):
        return expected, example(refusal)
    return expected, f"Write {as_written({key: example})}{'.' if key in _NEEDED else ', or remove the key.'}"


def _labels_turned(refusal: Refusal) -> str:
    return f"Write {as_written({'labels': {name: int(value) for value, name in refusal.value.items()}})}."


def _label(refusal: Refusal) -> str:
    """Return the remedy for the value of a class or region."""
    value, name = refusal.value, refusal.path[-1]
    number = round(value) if isinstance(value, float) and abs(value) <= MAX_VALUE else parse_value(value)
    fix = "Choose such a value and re-map the label files."
    if number is not None and number < 0 and len(_items(refusal.content["labels"][name])) == 1:
        return f"{fix} If nobody looked at these voxels, write {move_to_unlabelled(refusal.content, name, number)}."
    return fix if refusal.kind != "int_type" else f"Write {as_written({name: number or 1})}, without quotes and point."


def _ignored(refusal: Refusal) -> str:
    values = _file_values(refusal.value)
    if len(values) > 1 or values == [NAN_VALUE]:
        written = move_to_unlabelled(refusal.content, IGNORE, *values)
        return f"Any value may mean that nothing is known: write {written}."
    labels = [item for value in refusal.content["labels"].values() for item in _items(value) if type(item) is int]
    return f'Write "{IGNORE}": {max(labels, default=0) + 1}, or the value of un-annotated voxels in the label files.'


def _unlabelled(refusal: Refusal) -> str:
    if isinstance(refusal.value, list) and (values := _file_values(refusal.value)):
        others = {key: item for key, item in refusal.content.items() if key != keys.UNLABELLED}
        return f"Write {as_written(declare_unknown(others, *values))}; a set of all classes says that nothing is known."
    return (
        f'Write "unlabelled": 0, or the value that un-annotated voxels have. One above {MAX_VALUE} cannot be declared; '
        "it is often -1, stored without a sign: store the label files as signed integers then."
    )


def _items(value: object) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else [value]


def _file_values(value: object) -> list[int]:
    """Return the file values of a value or list; empty if one of them is not a file value."""
    values = [parse_value(item) for item in _items(value)]
    return [item for item in values if item is not None] if None not in values else []


_CHANNELS = ("an object from channel number to name (text), with at least one", {"0": "CT"})
_FILES = {"images": ["imagesTr/case_1_0000.nii.gz"], "label": "labelsTr/case_1.nii.gz"}
_BOX = {"image": "volume.zarr", "box": [[0, 30], [64, 192], [64, 192]], "label": "cubes.h5:cubeA"}
_ADVICE: dict[str, tuple[str, Any]] = {  # key -> what is expected, and what to write or a function that says it
    "channel_names": _CHANNELS,
    "modality": _CHANNELS,
    "file_ending": ("text that starts with a dot", ".nii.gz"),
    "labels": (
        "an object from name to value, with 'ignore' for voxels that nobody annotated",
        {BACKGROUND: 0, "liver": 1, IGNORE: 2},
    ),
    BACKGROUND: (f"an integer from 0 to {MAX_VALUE}", 0),
    IGNORE: ("one integer greater than every other label", _ignored),
    keys.ORDER: (
        "a list of integers, one value per region in the order of labels",
        lambda refusal: paint_advice(refusal.content["labels"]),
    ),
    keys.UNLABELLED: (
        f'a file value of which nothing is known, from {LEAST_VALUE} to {MAX_VALUE}, or "nan"', _unlabelled
    ),
    "label_sets": ("an object from value to a list of the classes that it may be", {"5": ["liver", "tumour"]}),
    "label_weights": (
        "an object from value to the label that it means and how much its voxels count in training, 0 to 1",
        {"3": {"label": "tumour", "weight": 0.6}},
    ),
    "lazy_semantics": (
        '"marginal" (0 means none of the annotated classes) or "seed" (what is annotated as a class outside annotated, '
        "0 included, means only that it is no absent class)", "seed",
    ),
    "cases": (
        f"an object from case to an object with some of {', '.join(CaseEntry.model_fields)}",
        {"case_1": {"absent": ["tumour"]}},
    ),
    "annotated": ("a list of class names", ["liver"]),
    "absent": ("a list of class names", ["tumour"]),
    "priority": ("a number of 0 or more: 2 draws patches from this case twice as often, 0 never", 2),
    "group": ("a name, say of the patient", "patient_7"),
    "experts": (
        "an object from at least one expert to the path of a mask, which starts at the folder of dataset.json",
        {"anna": "experts/anna/case_1.nii.gz"},
    ),
    "expert_fusion": (
        f"an object with some of {', '.join(ExpertFusion.model_fields)}", {"method": "staple", "undecided": IGNORE}
    ),
    "method": ('"staple", "majority" or "sets" (a voxel may be any of the classes that experts named)', "staple"),
    "undecided": (f'"{IGNORE}", or the name of a class: what voxels are that the experts do not decide', IGNORE),
    "soft": ("true (voxels of which experts are less sure count less in training) or false", True),
    PROTOCOL: ("an object with promises", {"classes_complete_in": "slice"}),
    "classes_complete_in": (
        '"slice" (every class in an annotated slice was annotated there) or "case" (every class in a case was '
        "annotated somewhere in it)", "slice",
    ),
    "reach_mm": ('a number of mm above 0, "auto", or an object from at least one class to these', 25),
    "instances_touched": ("true or false", True),
    "background_encloses": (
        'true, false, or {"gap_mm": a number of 0 or more} for gaps that count as closed', {"gap_mm": 2}
    ),
    "slice_axis": ('"z" (the last axis of a NIfTI file), "y" or "x" (the first), across the annotated slices', "z"),
    keys.MASK_FOLDER: ("the path of a folder as text; it starts at the folder of dataset.json", "masksTr"),
    "task": (
        "the name of a task: semantic, regions, instances, regression, or package.module:attribute", "my_parts:Boundary"
    ),
    keys.TARGETS: ("a list with a name for each channel of the label files, in their order", ["distance to membrane"]),
    keys.PER_CLASS: ("a whole number: value v is object v % this number of class v // this number", 1000),
    keys.AFFINITIES: ("a list of 1 to 6 offsets [z, y, x] in voxels", [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]),
    "boxes": (
        'an object from case to an object with "image" (a location, or a list with one per channel), "label" (a '
        'location) and, unless it is all of the volume, "box"',
        {"cubeA": _BOX},
    ),
    "image": ("a location, or a list of locations, one per channel", "volume.zarr"),
    "box": ("[[z0, z1], [y0, y1], [x0, x1]] in voxels, from 0, one past the last", _BOX["box"]),
    "label": ("a location as text", "cubes.h5:labels"),
    "valid_mask": ("a location as text", "cubes.h5:mask"),
    "dataset": ('an object from case to "images" (a list of paths) and "label" (a path)', {"case_1": _FILES}),
}  # fmt: skip
_DEPTHS = {"labels": 1, "cases": 2, "boxes": 2, PROTOCOL: 1, "expert_fusion": 1}
"""Key -> number of levels below it at which keys have advice of their own."""
_NEEDED = {*keys.REQUIRED, keys.TARGETS, "image", "label", "modality", BACKGROUND}
