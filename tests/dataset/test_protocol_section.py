"""A promise of the annotators is taken as it was made, or named with what is wrong with it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import Findings
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.dataset.protocol_section import read_protocol
from autoseg.dataset.schema import ProtocolSection
from autoseg.dataset.schema_faults import read_schema

LABELS = {"background": 0, "liver": 1, "tumour": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}


def load(protocol: Any, labels: dict[str, Any] = LABELS, **keys: Any) -> Dataset:
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".png", "annotation_protocol": protocol}
    return Dataset.from_json(content | keys, name="toy", folder=None)


def faults_of(protocol: Any, labels: dict[str, Any] = LABELS, **keys: Any) -> tuple[Fault, ...]:
    with pytest.raises(DatasetError) as raised:
        load(protocol, labels, **keys)
    return raised.value.faults


def test_nothing_is_promised_by_default():
    content = {"channel_names": {"0": "CT"}, "labels": LABELS, "file_ending": ".png"}
    assert Dataset.from_json(content, name="toy", folder=None).protocol == AnnotationProtocol()
    assert load({}).protocol.is_empty
    assert load({"instances_touched": False, "background_encloses": False}).protocol.is_empty


def test_every_promise_is_read():
    protocol = load(
        {"classes_complete_in": "case", "reach_mm": 25, "instances_touched": True, "background_encloses": True}
    ).protocol
    assert protocol == AnnotationProtocol("case", 25.0, True, True) and not protocol.is_empty
    assert pickle.loads(pickle.dumps(protocol)) == protocol  # noqa: S301


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (0.5, 0.5),
        ("auto", "auto"),
        ({"tumour": 30, "liver": "auto"}, {2: 30.0, 1: "auto"}),
        ({"tumour": 30}, {2: 30.0}),
    ],
)
def test_a_reach_is_one_distance_or_one_per_class(given: Any, read: Any):
    assert load({"reach_mm": given}).protocol.reach_mm == read


def test_a_region_of_one_class_names_that_class():
    assert load({"reach_mm": {"core": 9}}, REGIONS, regions_class_order=[1, 2]).protocol.reach_mm == {2: 9.0}


FAULTS: list[tuple[str, Any, str, str]] = [
    ("no object", "slice", "", "found 'slice', expected an object with promises"),
    ("null", None, "", "found None, expected an object with promises"),
    ("unknown key", {"reach": 5}, ".reach", "found an unknown key, expected one of classes_complete_in, reach_mm"),
    ("where", {"classes_complete_in": "slices"}, ".classes_complete_in", "found 'slices', expected \"slice\""),
    ("where true", {"classes_complete_in": True}, ".classes_complete_in", "found True"),
    ("where null", {"classes_complete_in": None}, ".classes_complete_in", "found None"),
    ("where a list", {"classes_complete_in": ["slice"]}, ".classes_complete_in", "found ['slice']"),
    ("reach 0", {"reach_mm": 0}, ".reach_mm", "found 0, expected a number of mm above 0"),
    ("reach negative", {"reach_mm": -3.5}, ".reach_mm", "found -3.5"),
    ("reach true", {"reach_mm": True}, ".reach_mm", "found True"),
    ("reach null", {"reach_mm": None}, ".reach_mm", "found None"),
    ("reach nan", {"reach_mm": float("nan")}, ".reach_mm", "found nan"),
    ("reach infinite", {"reach_mm": float("inf")}, ".reach_mm", "found inf"),
    ("reach text", {"reach_mm": "25"}, ".reach_mm", "found '25', expected a number of mm above 0"),
    ("reach misspelt", {"reach_mm": "Auto"}, ".reach_mm", "Did you mean 'auto'?"),
    ("reach a list", {"reach_mm": [25, 30]}, ".reach_mm", "found [25, 30]"),
    ("reach empty", {"reach_mm": {}}, ".reach_mm", "found {}"),
    ("reach of a class", {"reach_mm": {"liver": "far"}}, ".reach_mm.liver", "found 'far', expected a number of mm"),
    ("class unknown", {"reach_mm": {"livr": 5}}, ".reach_mm.livr", "found the name 'livr', expected a class"),
    ("ignore", {"reach_mm": {"ignore": 5}}, ".reach_mm.ignore", "found the name 'ignore', expected a class"),
    ("background", {"reach_mm": {"background": 5}}, ".reach_mm.background", "background has no reach"),
    ("claim text", {"instances_touched": "yes"}, ".instances_touched", "found 'yes', expected true or false"),
    ("axis number", {"slice_axis": 0}, ".slice_axis", 'found 0, expected "z"'),
    ("axis list", {"slice_axis": ["z"]}, ".slice_axis", "found ['z']"),
    ("gap negative", {"background_encloses": {"gap_mm": -1}}, ".background_encloses", "0 or more"),
    ("gap nan", {"background_encloses": {"gap_mm": float("nan")}}, ".background_encloses", "0 or more"),
    ("gap infinite", {"background_encloses": {"gap_mm": float("inf")}}, ".background_encloses", "0 or more"),
    (
        "gap misspelt",
        {"background_encloses": {"gap": 2}},
        ".background_encloses",
        'Write "background_encloses": {"gap_mm"',
    ),
    ("gap text", {"background_encloses": {"gap_mm": "2"}}, ".background_encloses", "0 or more"),
    ("gap none", {"background_encloses": {}}, ".background_encloses", "0 or more"),
    ("claim number", {"background_encloses": 1}, ".background_encloses", "found 1, expected true, false"),
]


@pytest.mark.parametrize(("written", "gap_mm"), [(True, 0.0), ({"gap_mm": 0}, 0.0), ({"gap_mm": 2.5}, 2.5)])
def test_the_gap_that_lines_of_background_may_have(written: Any, gap_mm: float):
    protocol = load({"background_encloses": written}).protocol
    assert protocol == AnnotationProtocol(background_encloses=True, gap_mm=gap_mm)


def test_the_axis_of_the_slices_is_no_promise():
    assert [load({"slice_axis": name}).protocol.slice_axis for name in "zyx"] == [0, 1, 2]
    assert load({"slice_axis": "y"}).protocol.is_empty and load({}).protocol.slice_axis is None


@pytest.mark.parametrize(("protocol", "key", "text"), [item[1:] for item in FAULTS], ids=[item[0] for item in FAULTS])
def test_a_wrong_promise_gives_one_fault(protocol: Any, key: str, text: str):
    (fault,) = faults_of(protocol)
    assert fault.where == f"dataset.json of toy: annotation_protocol{key}"
    assert text in str(fault) and fault.expected and fault.fix


def test_the_nearest_name_is_proposed():
    assert "Did you mean 'slice'?" in faults_of({"classes_complete_in": "Slices"})[0].fix
    assert "Did you mean 'reach_mm'?" in faults_of({"reach_m": 5})[0].fix
    (fault,) = faults_of({"reach_mm": {"livr": 5}})
    assert "Choose among liver, tumour. Did you mean 'liver'?" in fault.fix


def test_a_region_of_several_classes_is_no_class():
    (fault,) = faults_of({"reach_mm": {"whole": 5}}, REGIONS, regions_class_order=[1, 2])
    assert "found the region 'whole' of 2 classes, expected the name of one class" in str(fault)


def test_all_faults_come_in_one_go_and_a_wrong_promise_is_left_out():
    protocol = {"reach_mm": {"livr": -1, "tumour": 3}, "classes_complete_in": 1, "instances_touched": 2, "x": 0}
    wheres = [fault.where.split("annotation_protocol.")[1] for fault in faults_of(protocol)]
    assert sorted(wheres) == ["classes_complete_in", "instances_touched", "reach_mm.livr", "reach_mm.livr", "x"]
    findings = Findings("dataset.json")
    section = read_schema({"annotation_protocol": protocol}, findings).schema.annotation_protocol
    assert read_protocol(section, load({}).labels, findings) == AnnotationProtocol(reach_mm={2: 3.0})


def test_a_promise_is_checked_beside_wrong_labels():
    faults = faults_of({"reach_mm": -1, "classes_complete_in": "slice"}, {"background": 0, "liver": 2})
    assert {fault.where.split(": ")[1] for fault in faults} == {"labels", "annotation_protocol.reach_mm"}


@pytest.mark.parametrize(
    "keys",
    [
        {"labels": LABELS},
        {"valid_mask_folder": "masks"},
        {"cases": {"a": {"absent": ["liver"]}}},
        {"label_sets": {"5": ["liver", "tumour"]}},
    ],
    ids=["ignore", "masks", "statement", "label set"],
)
def test_a_promise_that_changes_nothing_is_a_warning(keys: dict[str, Any]):
    dense = {"background": 0, "liver": 1, "tumour": 2}
    promise = ProtocolSection(classes_complete_in="slice")
    findings = Findings("dataset.json")
    read_protocol(promise, load({}, dense).labels, findings)
    assert len(findings.warnings) == 1 and not findings.faults
    assert findings.warnings[0].startswith("dataset.json: annotation_protocol: has no effect, because dataset.json")
    findings = Findings("dataset.json")
    read_protocol(promise, load({}, **({"labels": dense} | keys)).labels, findings)
    assert not findings.warnings
