"""Every fault that a dataset.json can have is found, and named so that it can be mended."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.dataset_json import check_number_of_cases, read_channels, read_dataset_json
from autoseg.dataset.label_section import read_labels
from autoseg.dataset.labels import Labels
from autoseg.dataset.schema_faults import read_schema

CHANNELS = {"0": "CT"}
DENSE = {"background": 0, "liver": 1, "tumour": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def content(labels: Any = DENSE, **further: Any) -> dict[str, Any]:
    return {"channel_names": CHANNELS, "labels": labels, "file_ending": ".nii.gz", "numTraining": 1, **further}


def faults_of(value: dict[str, Any]) -> tuple[Fault, ...]:
    with pytest.raises(DatasetError) as raised:
        Dataset.from_json(value, name="toy", folder=None)
    return raised.value.faults


def labels_of(value: dict[str, Any]):
    return Dataset.from_json(value, name="toy", folder=None).labels


def parsed(value: dict[str, Any], findings: Findings) -> Labels | None:
    return read_labels(read_schema(value, findings), findings)


# what is accepted


def test_dense_labels_are_classes_in_the_order_of_their_values():
    labels = labels_of(content({"tumour": 2, "background": 0, "liver": 1}))
    assert labels.class_names == ("background", "liver", "tumour")
    assert [head.name for head in labels.heads] == ["background", "liver", "tumour"]
    assert [head.is_background for head in labels.heads] == [True, False, False]
    assert labels.ignore is None and not labels.has_regions and labels.is_dense


@pytest.mark.parametrize("ignore", [3, 4, 255, 65535])
def test_ignore_may_be_any_value_above_the_other_labels(ignore: int):
    labels = labels_of(content({**DENSE, "ignore": ignore}))
    assert labels.ignore == ignore and labels.n_classes == 3 and not labels.is_dense


def test_regions_are_heads_in_order_of_declaration_over_the_classes_that_occur_in_them():
    labels = labels_of(
        content({"background": 0, "whole": [1, 2, 4], "edge": 4, "core": [2]}, regions_class_order=[1, 4, 2])
    )
    assert labels.class_values == (0, 1, 2, 4)
    assert labels.class_names == ("background", "value 1", "core", "edge")
    assert [(head.name, head.values, head.classes) for head in labels.heads] == [
        ("whole", (1, 2, 4), (1, 2, 3)),
        ("edge", (4,), (3,)),
        ("core", (2,), (2,)),
    ]
    assert labels.paint_values == (1, 4, 2)
    assert [head.key for head in labels.heads] == ["(1, 2, 4)", "4", "2"]


def test_a_list_of_one_integer_is_a_plain_label_when_there_is_no_region():
    labels = labels_of(content({"background": 0, "liver": [1], "tumour": 2}))
    assert not labels.has_regions and labels.class_names == ("background", "liver", "tumour")


def test_regions_class_order_without_regions_and_keys_of_others_are_passed_over():
    further = {
        "regions_class_order": None,
        "licence": "CC0",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "numTest": 3,
    }
    assert labels_of(content(**further)).n_classes == 3


def test_channels_are_ordered_by_their_numbers():
    names = {str(number): f"c{number}" for number in (10, 2, 1, 0, 3, 4, 5, 6, 7, 8, 9)}
    dataset = Dataset.from_json(content() | {"channel_names": names}, name="toy", folder=None)
    assert dataset.channels == tuple(f"c{number}" for number in range(11))


def test_modality_is_the_older_name_of_channel_names():
    value = content()
    value["modality"] = value.pop("channel_names")
    assert Dataset.from_json(value, name="toy", folder=None).channels == ("CT",)


# single faults: (labels, further keys) -> where, and a part of what was found

LABEL_FAULTS: list[tuple[str, Any, dict[str, Any], str, str]] = [
    ("background missing", {"liver": 1}, {}, "labels", "no 'background'"),
    ("background not 0", {"background": 1, "liver": 2}, {}, "labels.background", "1"),
    ("background a list", {"background": [0], "liver": 1}, {}, "labels.background", "[0]"),
    ("background false", {"background": False, "liver": 1}, {}, "labels.background", "False"),
    ("Background in other letters", {"Background": 0, "liver": 1}, {}, "labels.Background", "'Background'"),
    ("Ignore in other letters", {**DENSE, "Ignore": 3}, {}, "labels.Ignore", "'Ignore'"),
    ("IGNORE in other letters", {**DENSE, "IGNORE": 255}, {}, "labels.IGNORE", "'IGNORE'"),
    ("ignore not highest", {"background": 0, "ignore": 1, "liver": 2}, {}, "labels.ignore", "1"),
    ("ignore negative", {**DENSE, "ignore": -1}, {}, "labels.ignore", "-1"),
    ("ignore too large", {**DENSE, "ignore": 70000}, {}, "labels.ignore", "70000"),
    ("ignore a bool", {"background": 0, "liver": 1, "ignore": True}, {}, "labels.ignore", "true or false"),
    ("ignore a float", {**DENSE, "ignore": 3.0}, {}, "labels.ignore", "3.0 (a float)"),
    ("ignore text", {**DENSE, "ignore": "3"}, {}, "labels.ignore", "'3' (text)"),
    ("ignore a list", {**DENSE, "ignore": [3]}, {}, "labels.ignore", "[3] (a list)"),
    ("ignore null", {**DENSE, "ignore": None}, {}, "labels.ignore", "None (null)"),
    ("ignore shared", {**DENSE, "ignore": 2}, {}, "labels.tumour", "2, also that of 'ignore'"),
    ("duplicate", {**DENSE, "kidney": 2}, {}, "labels.kidney", "2, also that of 'tumour'"),
    ("gap", {"background": 0, "liver": 1, "tumour": 3}, {}, "labels", "a gap (no 2)"),
    ("negative", {**DENSE, "kidney": -3}, {}, "labels.kidney", "-3"),
    ("too large", {"background": 0, "liver": 65536}, {}, "labels.liver", "65536"),
    ("float", {"background": 0, "liver": 1.0}, {}, "labels.liver", "1.0 (a float)"),
    ("text", {"background": 0, "liver": "1"}, {}, "labels.liver", "'1' (text)"),
    ("bool", {"background": 0, "liver": True}, {}, "labels.liver", "True (true or false)"),
    ("object", {"background": 0, "liver": {}}, {}, "labels.liver", "{} (an object)"),
    ("zero twice", {"background": 0, "liver": 0, "tumour": 1}, {}, "labels.liver", "0, also that of 'background'"),
    ("only background", {"background": 0}, {}, "labels", "no foreground class"),
    ("empty", {}, {}, "labels", "no 'background' among none"),
    ("a list", ["background", "liver"], {}, "labels", "['background', 'liver']"),
    ("inverted", {"0": "background", "1": "liver"}, {}, "labels", "{'0': 'background', '1': 'liver'}"),
    ("empty region", {"background": 0, "a": [], "b": 1}, {}, "labels.a", "[]"),
    (
        "region with 0",
        REGIONS | {"all": [0, 1]},
        {"regions_class_order": [1, 2, 1]},
        "labels.all",
        "0, also that of 'background'",
    ),
    ("region with text", REGIONS | {"a": [1, "2"]}, {"regions_class_order": [1, 2, 1]}, "labels.a", "'2' (text)"),
    (
        "ignore in a region",
        {"background": 0, "whole": [1, 3], "core": 1, "ignore": 3},
        {"regions_class_order": [1, 1]},
        "labels.whole",
        "3, also that of 'ignore'",
    ),
    (
        "equal regions",
        REGIONS | {"a": [2, 1]},
        {"regions_class_order": [1, 2, 1]},
        "labels.a",
        "[1, 2], also that of 'whole'",
    ),
    ("no order", REGIONS, {}, "regions_class_order", "no such key"),
    ("order not a list", REGIONS, {"regions_class_order": "1, 2"}, "regions_class_order", "'1, 2'"),
    ("order of floats", REGIONS, {"regions_class_order": [1.0, 2.0]}, "regions_class_order", "[1.0, 2.0]"),
    ("order too short", REGIONS, {"regions_class_order": [1]}, "regions_class_order", "1 values [1]"),
    ("order too long", REGIONS, {"regions_class_order": [1, 2, 2]}, "regions_class_order", "3 values [1, 2, 2]"),
    ("order no label", REGIONS, {"regions_class_order": [1, 7]}, "regions_class_order", "7, no value of a class"),
    (
        "order with background",
        REGIONS,
        {"regions_class_order": [0, 2]},
        "regions_class_order",
        "0, no value of a class",
    ),
    (
        "order with ignore",
        REGIONS | {"ignore": 3},
        {"regions_class_order": [1, 3]},
        "regions_class_order",
        "3, no value of a class",
    ),
]


@pytest.mark.parametrize(
    ("labels", "further", "key", "found"), [item[1:] for item in LABEL_FAULTS], ids=[item[0] for item in LABEL_FAULTS]
)
def test_a_fault_of_labels_is_found(labels: Any, further: dict[str, Any], key: str, found: str):
    faults = faults_of(content(labels, **further))
    matching = [fault for fault in faults if fault.where == f"dataset.json of toy: {key}" and found in fault.found]
    assert len(matching) == 1, [str(fault) for fault in faults]
    assert matching[0].expected and matching[0].fix and "\n" not in str(matching[0])


LONE = [
    "Ignore in other letters",
    "ignore a bool",
    "gap",
    "duplicate",
    "float",
    "no order",
    "inverted",
    "Background in other letters",
]


@pytest.mark.parametrize("name", LONE)
def test_one_mistake_gives_one_fault(name: str):
    _, labels, further, _, _ = next(item for item in LABEL_FAULTS if item[0] == name)
    assert len(faults_of(content(labels, **further))) == 1


TOP_FAULTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("labels missing", {"labels": ...}, "labels", "no such key"),
    ("channels missing", {"channel_names": ...}, "channel_names", "no such key"),
    ("channels a list", {"channel_names": ["CT", "PET"]}, "channel_names", "['CT', 'PET']"),
    ("channels empty", {"channel_names": {}}, "channel_names", "{}"),
    ("channels with a gap", {"channel_names": {"0": "T1", "2": "T2"}}, "channel_names", "the channel numbers 0, 2"),
    ("channels from 1", {"channel_names": {"1": "T1"}}, "channel_names", "the channel numbers 1"),
    ("channels by name", {"channel_names": {"CT": "0"}}, "channel_names.CT", "the key 'CT'"),
    ("channel name a number", {"channel_names": {"0": 5}}, "channel_names.0", "5"),
    ("ending missing", {"file_ending": ...}, "file_ending", "no such key"),
    ("ending without dot", {"file_ending": "nii.gz"}, "file_ending", "'nii.gz'"),
    ("ending a list", {"file_ending": [".png"]}, "file_ending", "['.png']"),
    ("protocol", {"annotation_protocol": ["slice"]}, "annotation_protocol", "['slice']"),
    ("mask folder", {"valid_mask_folder": 5}, "valid_mask_folder", "5"),
    ("mask folder empty", {"valid_mask_folder": " "}, "valid_mask_folder", "' '"),
    ("semantics", {"lazy_semantics": "Seed"}, "lazy_semantics", "'Seed'"),
    ("semantics list", {"lazy_semantics": ["seed"]}, "lazy_semantics", "['seed']"),
    ("misspelt protocol", {"annotation_protocoll": {}}, "annotation_protocoll", "an unknown key"),
    ("misspelt key", {"label_set": {}}, "label_set", "an unknown key"),
    ("misspelt order", {"regions_class_orders": [1]}, "regions_class_orders", "an unknown key"),
]


@pytest.mark.parametrize(
    ("change", "key", "found"), [item[1:] for item in TOP_FAULTS], ids=[item[0] for item in TOP_FAULTS]
)
def test_a_fault_beside_labels_is_found(change: dict[str, Any], key: str, found: str):
    value = {name: item for name, item in (content() | change).items() if item is not ...}
    (fault,) = faults_of(value)
    assert fault.where == f"dataset.json of toy: {key}" and found in fault.found


def test_all_faults_are_reported_in_one_go():
    labels = {"background": 1, "a": 1.5, "b": -2, "c": 3, "d": 3, "Ignore": 9, "ignore": "4"}
    value = {"channel_names": {"0": "x", "3": "y"}, "labels": labels}
    keys = [fault.where.removeprefix("dataset.json of toy: ") for fault in faults_of(value)]
    assert sorted(keys) == [
        "channel_names", "file_ending", "labels.Ignore", "labels.a", "labels.b", "labels.background", "labels.d",
        "labels.ignore",
    ]  # fmt: skip


def test_the_proposals_can_be_copied():
    (inverted,) = faults_of(content({"0": "background", "1": "liver"}))
    assert inverted.fix == 'Write "labels": {"background": 0, "liver": 1}.'
    (order,) = faults_of(content({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "spot": 3}))
    assert '"regions_class_order": [1, 2, 3]' in order.fix
    (ignore,) = faults_of(content({**DENSE, "ignore": True}))
    assert '"ignore": 3' in ignore.fix


def test_a_painted_value_outside_its_region_is_a_warning():
    findings = Findings("dataset.json")
    labels = parsed(content(REGIONS, regions_class_order=[1, 1]), findings)
    assert labels is not None and labels.paint_values == (1, 1)
    assert [text.split(": ", 2)[2] for text in findings.warnings] == [
        "1, painted for 'core', is not in that region [2]",
        "[1, 1] paints several regions with one value",
    ]


def test_a_name_close_to_ignore_is_a_warning():
    findings = Findings("dataset.json")
    assert parsed(content({**DENSE, "ignored": 3}), findings) is not None
    assert findings.warnings == [
        "dataset.json: labels.ignored: is trained as a class of its own. Did you mean 'ignore'?"
    ]


@pytest.mark.parametrize(("declared", "n_warnings"), [(3, 0), (4, 1), ("3", 1), (True, 1)])
def test_a_wrong_number_of_cases_is_a_warning(declared: Any, n_warnings: int):
    findings = Findings("dataset.json")
    check_number_of_cases({"numTraining": declared}, 3, findings)
    assert len(findings.warnings) == n_warnings and not findings.faults


NAMES = st.sampled_from(["background", "ignore", "Ignore", "liver", "0", "1", "²", "9" * 9, "", "annotated", "absent"])
SCALARS = st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | NAMES
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
KEYS = ["channel_names", "labels", "file_ending", "regions_class_order", "label_sets", "cases", "Cases", "numTraining"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_whatever_is_written_gives_faults_and_no_other_error(change: dict[str, Any]):
    for value in (content() | change, content(REGIONS, regions_class_order=[1, 2]) | change):
        with contextlib.suppress(DatasetError):
            Dataset.from_json(value, name="toy", folder=None)


# the file itself


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "an empty file"),
        (b' {"labels": {},}', r"no valid JSON: .* at line 1, column 16"),
        (b'{"labels": "\xff"}', "not UTF-8 at position 12"),
        (b"[1, 2]", r"found \[1, 2\], expected a JSON object"),
        (b'{"labels": {"liver": ' + b"1" * 5000 + b"}}", "expected a JSON object"),
        (b"[" * 100_000, "expected a JSON object"),
    ],
    ids=["empty", "comma", "latin1", "list", "digits", "brackets"],
)
def test_a_file_that_is_no_json_object_is_an_error(tmp_path, raw: bytes, match: str):
    path = tmp_path / "dataset.json"
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=match):
        read_dataset_json(path, Findings("dataset.json"))


def test_a_byte_order_mark_is_accepted(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content()).encode())
    assert read_dataset_json(path, Findings("dataset.json")) == content()


def test_a_repeated_key_is_a_fault_only_where_it_matters(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {"ignore": 3, "ignore": 4}, "note": 1, "note": 2, "labels": {"a": 1, "a": 2}}')
    findings = Findings("dataset.json")
    assert type(read_dataset_json(path, findings)["labels"]) is dict
    assert [fault.where for fault in findings.faults] == ["dataset.json: labels", "dataset.json: labels.a"]


def test_faulty_parts_have_stand_ins():
    findings = Findings("dataset.json")
    file = read_schema({"file_ending": 5}, findings)
    assert (file.schema.file_ending, file.faulty) == ("", {"file_ending"})
    assert read_channels(file, findings) == () and read_labels(file, findings) is None


# wording


def test_listed_names_the_first_and_counts_the_rest():
    assert listed([]) == "none"
    assert listed("abc") == "a, b, c"
    assert listed(range(7), 3) == "0, 1, 2 and 4 more"


def test_shown_is_one_short_line():
    assert shown("a\nb") == r"'a\nb'"
    assert len(shown(list(range(1000)))) == 80


def test_did_you_mean_knows_only_near_words():
    assert did_you_mean("Livr", ["liver", "tumour"]) == " Did you mean 'liver'?"
    assert did_you_mean("spleen", ["liver", "tumour"]) == ""
