"""A mistake in a key of dataset.json is found whatever else is wrong, and what its fault says to write mends it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.core.findings import Findings
from autoseg.dataset.schema import DatasetSchema
from autoseg.dataset.schema_faults import read_schema

SOUND: dict[str, Any] = {
    "channel_names": {"0": "CT"},
    "file_ending": ".png",
    "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 9},
    "label_sets": {"7": ["liver", "tumour"]},
    "label_weights": {"8": {"label": "liver", "weight": 0.5}},
    "unlabelled": -1,
    "lazy_semantics": "seed",
    "cases": {
        "a": {"annotated": ["liver"], "absent": ["tumour"], "priority": 2, "group": "p"},
        "b": {"group": 7, "experts": {"anna": "x.png"}},
    },
    "expert_fusion": {"method": "majority", "undecided": "liver", "soft": True},
    "annotation_protocol": {
        "classes_complete_in": "slice",
        "reach_mm": {"liver": 5},
        "instances_touched": True,
        "background_encloses": {"gap_mm": 1},
        "slice_axis": "z",
    },
    "valid_mask_folder": "masks",
    "task": "semantic",
    "targets": ["depth"],
    "instances_per_class": 1000,
    "affinities": [[-1, 0, 0], [0, -1, 0]],
    "dataset": {"a": {"images": ["a_0000.png"], "label": "a.png"}},
    "boxes": {
        "c": {"image": "v.zarr", "box": [[0, 2], [0, 3], [4, 5]], "label": "c.h5:labels", "valid_mask": "c.h5:mask"}
    },
}
MISTAKES: dict[tuple[str, ...], Any] = {
    ("channel_names", "0"): 5,
    ("file_ending",): "png",
    ("labels", "background"): False,
    ("labels", "liver"): "1",
    ("labels", "tumour"): 2.0,
    ("labels", "ignore"): None,
    ("label_sets", "7"): [],
    ("label_weights", "8"): {"label": "liver", "weight": 2},
    ("unlabelled",): 0.5,
    ("lazy_semantics",): ["seed"],
    ("cases", "a", "annotated"): None,
    ("cases", "a", "absent"): [1],
    ("cases", "a", "priority"): 10**400,
    ("cases", "a", "group"): True,
    ("cases", "b", "experts", "anna"): 1,
    ("cases", "b", "group"): [1],
    ("expert_fusion", "method"): "simple",
    ("expert_fusion", "undecided"): 0,
    ("expert_fusion", "soft"): "yes",
    ("annotation_protocol", "classes_complete_in"): "slices",
    ("annotation_protocol", "reach_mm", "liver"): float("inf"),
    ("annotation_protocol", "instances_touched"): "yes",
    ("annotation_protocol", "background_encloses"): {"gap": 1},
    ("annotation_protocol", "slice_axis"): 0,
    ("valid_mask_folder",): " ",
    ("task",): 1,
    ("targets",): [],
    ("instances_per_class",): 1.5,
    ("affinities",): [[-1, 0]],
    ("dataset", "a"): {"images": []},
    ("boxes", "c", "image"): [],
    ("boxes", "c", "box"): [[0, 2], [0, 3]],
    ("boxes", "c", "label"): 5,
    ("boxes", "c", "valid_mask"): None,
}
"""A key of ``SOUND`` -> a value that it cannot have, in such a way that no other key is faulty then."""
UNKNOWN_KEYS: dict[tuple[str, ...], str] = {
    ("label_set",): "label_sets",
    ("cases", "a", "abscent"): "absent",
    ("boxes", "c", "images"): "image",
    ("expert_fusion", "metod"): "method",
    ("annotation_protocol", "reach"): "reach_mm",
}


def with_value(content: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    section = changed
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    return changed


def faults_of(content: dict[str, Any]) -> dict[str, str]:
    """Return key -> what to do."""
    findings = Findings("dataset.json")
    read_schema(content, findings)
    return {fault.where.removeprefix("dataset.json: "): fault.fix for fault in findings.faults}


def test_every_key_has_a_mistake_and_none_is_a_fault_by_itself():
    not_needed = {"regions_class_order"}
    assert {path[0] for path in MISTAKES} == set(DatasetSchema.model_fields) - not_needed and not faults_of(SOUND)


@given(st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1), st.sets(st.sampled_from(sorted(UNKNOWN_KEYS))))
def test_every_mistake_is_found_whatever_else_is_wrong(mistakes: set[tuple[str, ...]], unknown: set[tuple[str, ...]]):
    content = SOUND
    for path in (*mistakes, *unknown):
        content = with_value(content, path, MISTAKES.get(path))
    assert set(faults_of(content)) == {".".join(path) for path in mistakes | unknown}


@given(st.sets(st.sampled_from(sorted(MISTAKES)), min_size=1))
def test_the_sound_part_is_that_of_the_file_without_the_mistakes(mistakes: set[tuple[str, ...]]):
    content = SOUND
    for path in mistakes:
        content = with_value(content, path, MISTAKES[path])
    schema = read_schema(content, Findings("dataset.json")).schema
    for key in {path[0] for path in MISTAKES} - {path[0] for path in mistakes}:
        assert getattr(schema, key) == getattr(DatasetSchema.model_validate(SOUND), key)


@pytest.mark.parametrize("path", MISTAKES, ids=".".join)
def test_who_writes_what_the_fault_says_has_no_fault(path: tuple[str, ...]):
    (fix,) = faults_of(with_value(SOUND, path, MISTAKES[path])).values()
    written, _ = json.JSONDecoder().raw_decode(fix.partition(": ")[2])
    key = fix.partition('"')[2].partition('"')[0]
    place = path[: path.index(key) + 1]
    assert not faults_of(with_value(SOUND, place, written))


@pytest.mark.parametrize("path", UNKNOWN_KEYS, ids=".".join)
def test_an_unknown_key_names_the_nearest_known_one(path: tuple[str, ...]):
    (fix,) = faults_of(with_value(SOUND, path, [])).values()
    assert f"Did you mean '{UNKNOWN_KEYS[path]}'?" in fix
