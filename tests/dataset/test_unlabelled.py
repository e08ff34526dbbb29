"""Voxels that nobody looked at may carry any file value; what messages say to write gives the right meaning."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.labels import Labels, free_value

SHAPES = pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)], ids=["2d", "3d"])
CELLS = {"background": 1, "a": 2, "b": 3}


def content(labels: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"channel_names": {"0": "EM"}, "file_ending": ".png", "labels": labels} | keys


def labels_of(value: dict[str, Any]) -> Labels:
    return Dataset.from_json(value, name="toy", folder=None).labels


def advice(value: dict[str, Any]) -> str:
    """Return what the only fault says to do."""
    with pytest.raises(DatasetError) as raised:
        labels_of(value)
    (fault,) = raised.value.faults
    return fault.fix


def followed(value: dict[str, Any]) -> Labels:
    """Return what the labels mean after the user wrote literally what the only fault says."""
    written = re.search(r'(?:write|Write) ("\w+": .*)$', advice(value))
    assert written is not None
    text = written[1]
    keys = next(
        json.loads("{" + text[:end] + "}") for end in range(len(text), 0, -1) if _is_json("{" + text[:end] + "}")
    )
    return labels_of({**value, **keys})


def _is_json(text: str) -> bool:
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


@SHAPES
@pytest.mark.parametrize(
    ("labels", "unlabelled", "value", "dtype"),
    [
        (CELLS, 0, 0, np.uint8),
        ({"a": 1, "b": 2, "background": 5}, 0, 0, np.uint16),
        ({"background": 0, "a": 1, "b": 2}, -1, -1, np.int8),
        ({"background": 0, "a": 1, "b": 2}, -1, -1, np.float32),
        ({"background": 0, "a": 1, "b": 2}, 255, 255, np.uint8),
        (CELLS, 255, 255, np.uint8),
        (CELLS, "nan", NAN_VALUE, np.int16),
        (CELLS, "NaN", NAN_VALUE, np.int32),
    ],
)
def test_it_is_unknown_and_background_is_class_0(shape, labels, unlabelled, value, dtype):
    """The codes are those of the same drawing with background 0 and ignore above."""
    meaning = labels_of(content(labels, unlabelled=unlabelled))
    classes = np.random.default_rng(0).integers(0, 4, shape)
    file_labels = np.array([labels["background"], labels["a"], labels["b"], value])[classes].astype(dtype)
    codes, label_sets = meaning.encode(file_labels)
    np.testing.assert_array_equal(codes, classes)
    usual = labels_of(content({"background": 0, "a": 1, "b": 2, "ignore": 3}))
    np.testing.assert_array_equal(label_sets, usual.encode(classes)[1])
    assert not meaning.is_dense and meaning.outside == meaning.unknown == 3
    assert meaning.class_names == ("background", "a", "b") and meaning.class_values[0] == labels["background"]
    logits = np.moveaxis(np.eye(3, dtype=np.float32)[classes % 3], -1, 0)
    expected = np.array([labels["background"], labels["a"], labels["b"]])[classes % 3]
    np.testing.assert_array_equal(meaning.decode(logits), expected)


@SHAPES
def test_a_set_of_all_classes_is_exactly_ignore(shape):
    drawn = np.random.default_rng(1).integers(0, 4, shape)
    ignored = labels_of(content({"background": 0, "a": 1, "b": 2, "ignore": 3}))
    as_set = labels_of(content({"background": 0, "a": 1, "b": 2}, label_sets={"3": ["background", "a", "b"]}))
    for case in ("", "k"):
        for mine, theirs in zip(as_set.encode(drawn, case), ignored.encode(drawn, case), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert as_set.is_dense is ignored.is_dense is False


def test_several_values_may_say_nothing():
    meaning = labels_of(
        content({"background": 0, "a": 1, "ignore": 9}, unlabelled=-1, label_sets={"nan": ["background", "a"]})
    )
    codes, _ = meaning.encode(np.array([[[0, 1, 9, -1, NAN_VALUE]]]))
    assert codes.tolist() == [[[0, 1, 2, 2, 2]]]
    assert free_value(labels_of(content(CELLS, unlabelled=4))) == 5


@SHAPES
def test_nothing_outside_the_mask_matters_whatever_background_is(shape):
    meaning = labels_of(content({"background": 300, "a": 1}, unlabelled=0, valid_mask_folder="masks"))
    valid = np.random.default_rng(0).random(shape) < 0.5
    codes, _ = meaning.encode(np.where(valid, 1, 77).astype(np.uint8), valid=valid)
    assert (codes[valid] == 1).all() and (codes[~valid] == meaning.unknown).all()


def test_background_in_a_case_of_some_classes_means_none_of_them():
    meaning = labels_of(content(CELLS, unlabelled=0, cases={"k": {"annotated": ["a"]}}))
    codes, label_sets = meaning.encode(np.array([[[0, 1, 2]]]), "k")
    assert label_sets[codes[0, 0]].tolist() == [[True, True, True], [True, False, True], [False, True, False]]


def test_without_unlabelled_voxels_null_says_so():
    assert labels_of(content(CELLS, unlabelled=None)).is_dense


def test_a_label_set_is_a_declared_value():
    meaning = labels_of(content({"background": 0, "a": 2, "b": 3}, label_sets={"1": ["a", "b"]}))
    assert meaning.set_values == {1: frozenset({1, 2})} and meaning.class_values == (0, 2, 3)
    with pytest.raises(DatasetError, match=r"gap \(no 1\)"):
        labels_of(content({"background": 0, "a": 2}))


FOLLOWED: list[tuple[str, dict[str, Any], tuple[int, ...], tuple[int, ...]]] = [
    ("ignore is 0", content({"ignore": 0, "background": 1, "cell": 2}), (1, 2), (0,)),
    ("ignore is -1", content({"background": 0, "cell": 1, "ignore": -1}), (0, 1), (-1,)),
    ("ignore is NaN", content({"background": 0, "cell": 1, "ignore": "nan"}), (0, 1), (NAN_VALUE,)),
    ("ignore in the middle", content({"background": 0, "ignore": 1, "cell": 2}), (0, 2), (1,)),
    ("a class is -1", content({"background": 0, "cell": 1, "nobody": -1}), (0, 1), (-1,)),
    ("two values to ignore", content({"background": 0, "cell": 1, "ignore": [254, 255]}), (0, 1), (254, 255)),
    ("two unlabelled values", content({"background": 1, "cell": 2}, unlabelled=[0, 255]), (1, 2), (0, 255)),
    ("ignore and Ignore", content({"background": 0, "cell": 1, "ignore": 9, "Ignore": 8}), (0, 1), (9, 8)),
    ("a label named unlabelled", content({"unlabelled": 0, "background": 1, "cell": 2}), (1, 2), (0,)),
    (
        "a third value",
        content({"background": 0, "cell": 1, "ignore": -1}, unlabelled=7, label_sets={"8": ["background", "cell"]}),
        (0, 1),
        (7, 8, -1),
    ),
]


@pytest.mark.parametrize(
    ("value", "classes", "unknown"), [item[1:] for item in FOLLOWED], ids=[item[0] for item in FOLLOWED]
)
def test_who_follows_a_message_gets_what_was_meant(value, classes, unknown):
    meaning = followed(value)
    assert meaning.class_values == classes
    codes, _ = meaning.encode(np.array([[[*classes, *unknown]]]))
    assert codes.ravel().tolist() == [*range(len(classes)), *[len(classes)] * len(unknown)]


def test_a_background_of_another_value_asks_what_0_is():
    fix = advice(content({"background": 1, "cell": 2}))
    assert '"unlabelled": 0' in fix and '"unlabelled": null' in fix


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (content({"background": 0, "a": 1}, unlabelled=0), "0, also that of 'background'"),
        (content({"background": 0, "a": 1}, unlabelled=1), "1, also that of 'a'"),
        (content({"background": 0, "a": 1, "ignore": 2}, unlabelled=2), "2, also that of 'ignore'"),
        (content({"background": 1, "w": [2, 3], "c": 3}, unlabelled=3, regions_class_order=[2, 3]), "that of 'w'"),
        (content({"background": 0, "a": 1}, unlabelled=2**32 - 1), "4294967295"),
        (content({"background": 0, "a": 1}, unlabelled=True), "True"),
        (content({"background": 0, "a": 1}, unlabelled=0.5), "0.5"),
        (content({"background": 0, "a": 1}, unlabelled={}), "{}"),
        (content({"background": 0, "a": 1}, unlabeled=-1), "an unknown key"),
    ],
)
def test_what_cannot_be_unlabelled_is_a_fault(value, found):
    with pytest.raises(DatasetError, match=f"unlabell?ed: found .*{re.escape(found)}"):
        labels_of(value)


def test_names_of_no_class_and_a_second_background_are_warned_of(tmp_path):
    for folder, file in (("imagesTr", "k_0000.png"), ("labelsTr", "k.png")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    for labels, written in (
        ({"background": 0, "cell": 1, "unlabelled": 2}, '"labels": {"background": 0, "cell": 1}, "unlabelled": 2'),
        ({"background": 0, "bg": 1, "cell": 2}, '"labels": {"background": 1, "cell": 2}, "unlabelled": 0'),
    ):
        (tmp_path / "dataset.json").write_text(json.dumps(content(labels)))
        (warning,) = Dataset.load(tmp_path).warnings
        assert warning.endswith(f"write {written}")
