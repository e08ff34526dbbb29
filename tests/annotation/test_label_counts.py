"""Counts over arrays, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoseg.annotation.label_counts import (
    ChannelCondition,
    contradictions,
    count_values,
    drawn_unannotated,
    inspect_channels,
    summarise_annotation,
    undeclared_values,
)
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels

SHAPES = pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)], ids=["2d", "3d"])


def make(values: dict, **keys) -> Labels:
    content = {"channel_names": {"0": "CT"}, "file_ending": ".png", "labels": {"background": 0, **values}}
    return Dataset.from_json(content | keys, name="toy", folder=None).labels


@SHAPES
def test_channels_are_judged_one_by_one(shape):
    image = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    image[1] = 7
    image[2, 0, 0, :2] = np.nan
    image[2, 0, 1, :3] = [np.inf, -np.inf, np.inf]
    image[3] = np.nan
    sound, constant, spoilt, void = inspect_channels(image)
    assert sound == ChannelCondition(0, 0, is_constant=False, value=float(image[0].min()))
    assert constant == ChannelCondition(0, 0, is_constant=True, value=7.0)
    assert (spoilt.nan, spoilt.infinite, spoilt.is_constant) == (2, 3, False)
    assert void.nan == math.prod(shape) and void.is_constant and math.isnan(void.value)


def test_a_constant_channel_stays_constant_beside_nan():
    (condition,) = inspect_channels(np.array([[[[3, 3, np.nan]]]], dtype=np.float32))
    assert condition == ChannelCondition(1, 0, is_constant=True, value=3.0)


def test_a_channel_without_voxels_is_constant():
    (condition,) = inspect_channels(np.empty((1, 0, 4, 5), dtype=np.float32))
    assert condition.is_constant and condition.nan == 0


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.uint32, np.int8, np.int64, np.float32])
def test_values_are_counted_in_every_type(dtype):
    counts = count_values(np.array([[[1, 0, 1, 1]]], dtype=dtype))
    assert counts == {0: 1, 1: 3} and all(type(value) is int for value in counts)


def test_values_of_any_size_are_counted(monkeypatch):
    monkeypatch.setattr("autoseg.core.chunks.VOXELS", 3)
    assert count_values(np.array([-3, 70000, -3])) == {-3: 2, 70000: 1}
    assert count_values(np.array([70000, 1, 1], dtype=np.uint32)) == {1: 2, 70000: 1}
    assert count_values(np.array([200, 1, 1, 0, 200, 1, 200], dtype=np.uint8)) == {0: 1, 1: 3, 200: 3}
    assert count_values(np.empty((0, 3), dtype=np.uint8)) == {}


def test_undeclared_values_are_those_that_no_key_declares():
    labels = make({"a": 1, "b": 2, "ignore": 9}, label_sets={"5": ["a", "b"]})
    assert undeclared_values({0: 4, 1: 1, 3: 2, 5: 1, 9: 1, -1: 6}, labels) == {3: 2, -1: 6}


def test_a_class_drawn_where_it_is_declared_absent_is_a_contradiction():
    labels = make({"a": 1, "b": 2}, label_sets={"5": ["a", "b"]}, cases={"k": {"absent": ["a", "b"]}})
    assert contradictions({0: 4, 2: 3}, labels, "k") == {2: "'b'"}
    assert contradictions({0: 4, 5: 2}, labels, "k") == {5: "value 5"}
    assert contradictions({0: 4, 2: 3, 5: 2}, labels, "other") == {}


@pytest.mark.parametrize("semantics", ["marginal", "seed"])
def test_absent_contradicts_a_drawn_class_whatever_is_annotated(semantics):
    stated = {"annotated": ["a"], "absent": ["a", "b"]}
    labels = make({"a": 1, "b": 2}, lazy_semantics=semantics, cases={"k": stated})
    assert contradictions({0: 4}, labels, "k") == {}  # completely drawn and not there is one statement
    assert contradictions({0: 4, 1: 1, 2: 3}, labels, "k") == {1: "'a'", 2: "'b'"}


def test_absent_background_contradicts_a_zero_only_where_zero_means_background():
    cases = {"full": {"absent": ["background"]}, "lazy": {"annotated": ["a"], "absent": ["background"]}}
    labels = make({"a": 1, "b": 2}, cases=cases)
    assert contradictions({0: 4, 1: 1}, labels, "full") == {0: "'background'"}
    assert contradictions({0: 4, 1: 1}, labels, "lazy") == {}


def test_classes_drawn_though_annotated_leaves_them_out_are_counted():
    labels = make({"a": 1, "b": 2, "c": 3}, cases={"k": {"annotated": ["a"]}})
    assert drawn_unannotated({0: 9, 1: 5, 2: 4}, labels, "k") == {"b": 4}
    assert drawn_unannotated({0: 9, 1: 5, 2: 4}, labels, "other") == {}


def test_annotation_of_scribbles():
    annotation = summarise_annotation({0: 6, 1: 3, 2: 1, 4: 90}, make({"a": 1, "b": 2, "c": 3, "ignore": 4}))
    assert (annotation.voxels, annotation.informative, annotation.annotated_fraction) == (100, 10, 0.1)
    assert annotation.positive == {"background": 6, "a": 3, "b": 1, "c": 0}
    assert annotation.decided == dict.fromkeys(("background", "a", "b", "c"), 10)
    assert annotation.positive_fraction("a") == 0.03


def test_annotation_of_regions():
    labels = make({"whole": [1, 2], "core": 2, "ignore": 3}, regions_class_order=[1, 2], label_sets={"8": ["whole"]})
    annotation = summarise_annotation({0: 5, 1: 3, 2: 2, 3: 80, 8: 10}, labels)
    assert annotation.informative == 20
    assert annotation.positive == {"whole": 15, "core": 2}
    assert annotation.decided == {"whole": 20, "core": 10}  # "1 or 2" leaves the core open


def test_annotation_of_a_case_with_a_statement():
    labels = make({"a": 1, "b": 2, "ignore": 3}, cases={"lazy": {"annotated": ["a"]}, "healthy": {"absent": ["b"]}})
    lazy = summarise_annotation({0: 7, 1: 3}, labels, "lazy")
    assert (lazy.informative, lazy.positive["background"], lazy.decided["a"], lazy.decided["b"]) == (10, 0, 10, 3)
    healthy = summarise_annotation({3: 10}, labels, "healthy")
    assert (healthy.informative, healthy.decided["b"], healthy.decided["a"]) == (10, 10, 0)
    scribbled = {0: 1, 1: 2, 3: 7}
    healthy, other = (summarise_annotation(scribbled, labels, name) for name in ("healthy", "other"))
    assert (healthy.annotated_fraction, healthy.drawn_fraction, other.drawn_fraction) == (1.0, 0.3, 0.3)


def test_nothing_depends_on_undeclared_or_unknown_voxels():
    labels = make({"a": 1, "ignore": 2})
    annotation = summarise_annotation({2: 5, 77: 5}, labels)
    assert (annotation.voxels, annotation.informative, annotation.annotated_fraction) == (10, 0, 0.0)
    assert summarise_annotation({}, labels).annotated_fraction == 0.0
    assert summarise_annotation({}, labels).positive_fraction("a") == 0.0
