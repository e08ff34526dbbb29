"""File values become label sets and come back; what is not declared is an error, never a guess."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import (
    CaseStatement,
    Head,
    Labels,
    class_differences,
    foreground_codes,
    head_states,
    informative_codes,
    undrawn_code,
)


def make(values: dict, **keys) -> Labels:
    content = {"channel_names": {"0": "CT"}, "file_ending": ".png", "labels": {"background": 0, **values}}
    return Dataset.from_json(content | keys, name="toy", folder=None).labels


DENSE = make({"liver": 1, "tumour": 2})
SPARSE = make({"liver": 1, "tumour": 2, "ignore": 255})
REGIONS = make({"whole": [1, 2, 4], "core": [2, 4], "spot": 4, "ignore": 7}, regions_class_order=[1, 2, 4])
SHAPES = pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5)], ids=["2d", "3d"])


# encode


@SHAPES
def test_dense_labels_are_their_own_codes(shape):
    file_labels = np.random.default_rng(0).integers(0, 3, shape)
    codes, label_sets = DENSE.encode(file_labels)
    assert codes.dtype == np.uint8 and codes.shape == shape
    np.testing.assert_array_equal(codes, file_labels)
    np.testing.assert_array_equal(label_sets, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint64, np.float32, np.float64])
def test_the_type_of_the_file_does_not_matter(dtype):
    codes, _ = SPARSE.encode(np.array([[[0, 1, 2, 255]]], dtype=dtype))
    assert codes.tolist() == [[[0, 1, 2, 3]]] and SPARSE.unknown == 3


def test_a_mask_of_truth_values_is_encoded():
    codes, _ = DENSE.encode(np.array([[[False, True]]]))
    assert codes.tolist() == [[[0, 1]]]


def test_regions_are_encoded_by_class_whatever_their_values():
    codes, label_sets = REGIONS.encode(np.array([[[0, 1, 2, 4, 7]]]))
    assert codes.tolist() == [[[0, 1, 2, 3, 4]]] and label_sets.shape == (5, 4) and label_sets[4].all()


def test_what_is_said_of_a_case_changes_its_sets_only():
    labels = make(
        {"liver": 1, "tumour": 2, "ignore": 3},
        label_sets={"5": ["liver", "tumour"]},
        cases={"lazy": {"annotated": ["liver"]}, "healthy": {"absent": ["tumour"]}},
    )
    file_labels = np.array([[[0, 1, 2, 3, 5]]])

    def sets(case: str) -> list[list[int]]:
        codes, label_sets = labels.encode(file_labels, case)
        return [np.flatnonzero(label_sets[code]).tolist() for code in codes.ravel()]

    assert sets("other") == [[0], [1], [2], [0, 1, 2], [1, 2]]
    assert sets("lazy") == [[0, 2], [1], [2], [0, 1, 2], [1, 2]]
    assert sets("healthy") == [[0], [1], [2], [0, 1], [1]]


def sets_of(labels: Labels, file_labels: list[int], case: str, valid: list[bool] | None = None) -> list[list[int]]:
    """Return the classes that each voxel may be."""
    mask = None if valid is None else np.array([[valid]])
    codes, label_sets = labels.encode(np.array([[file_labels]]), case, valid=mask)
    return [np.flatnonzero(label_sets[code]).tolist() for code in codes.ravel()]


def test_seed_semantics_say_only_what_is_absent():
    said = {"annotated": ["liver"], "absent": ["spot"]}
    labels = make({"liver": 1, "tumour": 2, "spot": 3, "ignore": 4}, lazy_semantics="seed", cases={"lazy": said})
    assert sets_of(labels, [0, 1, 2, 3, 4], "lazy") == [[0, 1, 2], [1], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
    assert sets_of(labels, [0, 1, 2, 3, 4], "other") == [[0], [1], [2], [3], [0, 1, 2, 3]]


def test_seed_semantics_take_a_complete_background_for_nothing_but_itself():
    cases = {"k": {"annotated": ["background", "liver"]}, "all": {"annotated": ["background", "liver", "tumour"]}}
    labels = make({"liver": 1, "tumour": 2}, lazy_semantics="seed", cases=cases)
    assert sets_of(labels, [0, 1, 2], "k") == [[0], [1], [0, 1, 2]]
    assert "all" not in labels.statements
    assert make({"liver": 1, "tumour": 2}, cases=cases).is_dense  # marginal: what is drawn is drawn


def test_a_complete_foreground_leaves_a_data_set_dense_unless_zero_says_nothing():
    cases = {"k": {"annotated": ["liver", "tumour"]}}
    assert make({"liver": 1, "tumour": 2}, cases=cases).is_dense
    seed = make({"liver": 1, "tumour": 2}, cases=cases, lazy_semantics="seed")
    assert not seed.is_dense and sets_of(seed, [0, 1], "k") == [[0, 1, 2], [1]]


CLASSES = ("background", "a", "b", "c")


@given(st.sets(st.sampled_from(CLASSES)), st.sets(st.sampled_from(CLASSES[1:])), st.sampled_from(["marginal", "seed"]))
def test_lazy_labels_are_the_admissible_sets_of_the_two_masks(annotated: set, absent: set, semantics: str):
    """L: completely drawn, N: not there; y with L_y is {y}, else the undrawn ("seed": all) classes without N."""
    said = {"annotated": sorted(annotated), "absent": sorted(absent)}
    labels = make({"a": 1, "b": 2, "c": 3, "ignore": 4}, lazy_semantics=semantics, cases={"k": said})
    everything = set(range(4))
    L, N = ({CLASSES.index(name) for name in names} for names in (annotated, absent))
    sets = [set(row) for row in sets_of(labels, [0, 1, 2, 3, 4], "k")]
    assert sets[4] == everything - N
    for value in range(4):
        if value in L or (semantics == "marginal" and (value != 0 or 0 in L)):
            assert sets[value] == {value}
        else:
            expected = everything if semantics == "seed" else everything - L
            assert sets[value] == (expected if len(expected) == 1 else expected - N)


@given(st.sets(st.sampled_from(CLASSES[1:])), st.sampled_from(CLASSES[1:]), st.sampled_from(["marginal", "seed"]))
def test_whether_an_absent_class_counts_as_annotated_does_not_matter(annotated: set, absent: str, semantics: str):
    """Invariant I7, for a case in which the absent class is not drawn."""
    drawn = [value for value in (0, 1, 2, 3, 4) if value != CLASSES.index(absent)]
    sets = []
    for names in (annotated | {absent}, annotated - {absent}):
        said = {"annotated": sorted(names), "absent": [absent]}
        labels = make({"a": 1, "b": 2, "c": 3, "ignore": 4}, lazy_semantics=semantics, cases={"k": said})
        sets.append(sets_of(labels, drawn, "k"))
    assert sets[0] == sets[1]


@SHAPES
def test_nothing_outside_the_mask_matters(shape):
    labels = make({"liver": 1, "tumour": 2}, valid_mask_folder="masks", cases={"k": {"absent": ["tumour"]}})
    rng = np.random.default_rng(0)
    valid, file_labels = rng.random(shape) < 0.5, rng.integers(0, 2, shape)
    codes, label_sets = labels.encode(file_labels, "k", valid=valid)
    scrambled = np.where(valid, file_labels, 77)
    for case in ("k", "other"):
        codes, label_sets = labels.encode(file_labels, case, valid=valid)
        np.testing.assert_array_equal(codes, labels.encode(scrambled, case, valid=valid)[0])
        np.testing.assert_array_equal(codes[valid], file_labels[valid])
        assert (label_sets[codes[~valid]] == [True, True, case == "other"]).all()
    assert (codes[~valid] == labels.unknown).all() and file_labels.max() == 1


@pytest.mark.parametrize(
    ("file_labels", "listed"),
    [
        (np.array([0, 3, 3, 200], dtype=np.uint8), r"3 \(2 voxels\), 200 \(1 voxels\)"),
        (np.array([0, -1, 127], dtype=np.int8), r"-1 \(1 voxels\), 127 \(1 voxels\)"),
        (np.array([0, 1.5], dtype=np.float32), r"1\.5 \(1 voxels\)"),
        (np.array([0, np.nan], dtype=np.float32), r"nan \(1 voxels\)"),
        (np.array([0, 1 << 40]), r"1099511627776 \(1 voxels\)"),
    ],
    ids=["uint8", "int8", "float", "nan", "huge"],
)
def test_undeclared_values_are_counted(file_labels, listed):
    with pytest.raises(DatasetError, match=rf"'k': .*{listed}, expected only \[0, 1, 2\]"):
        DENSE.encode(file_labels.reshape(1, 1, -1), "k")


def test_a_negative_value_is_undeclared_though_the_largest_value_does_not_fit_its_type():
    with pytest.raises(DatasetError, match=r"-1 \(1 voxels\)"):
        SPARSE.encode(np.array([[[-1, 127, 0]]], dtype=np.int8))


def test_large_maps_are_encoded_piece_by_piece(monkeypatch):
    file_labels = np.random.default_rng(0).integers(0, 3, (3, 5, 7))
    file_labels[0, 0, :2] = file_labels[2, 4, 6] = 9
    monkeypatch.setattr("autoseg.core.chunks.VOXELS", 4)
    with pytest.raises(DatasetError, match=r"undeclared values 9 \(3 voxels\)"):
        DENSE.encode(file_labels)
    file_labels[file_labels == 9] = 0
    np.testing.assert_array_equal(DENSE.encode(file_labels.transpose(2, 0, 1))[0], file_labels.transpose(2, 0, 1))


def test_an_empty_map_stays_empty():
    codes, label_sets = SPARSE.encode(np.empty((0, 4, 5)))
    assert codes.shape == (0, 4, 5) and label_sets.shape == (4, 3)


def test_more_than_256_codes_need_two_bytes():
    many = make({f"c{value}": value for value in range(1, 300)})
    codes, _ = many.encode(np.array([[[299]]]))
    assert codes.dtype == np.uint16 and codes.item() == 299


# properties


def test_only_a_data_set_with_a_class_for_every_voxel_is_dense():
    assert DENSE.is_dense and DENSE.outside == 0
    for sparse in (SPARSE, REGIONS, make({"a": 1, "b": 2}, label_sets={"5": ["a", "b"]})):
        assert not sparse.is_dense and sparse.outside == sparse.unknown == sparse.n_classes
    assert not make({"a": 1}, cases={"k": {"absent": ["a"]}}).is_dense
    masked = make({"a": 1}, valid_mask_folder="masks")
    assert not masked.is_dense and masked.has_masks and masked.outside == masked.unknown


def test_heads_and_regions():
    assert not DENSE.has_regions and DENSE.n_heads == 3 and DENSE.foreground_heads == (1, 2)
    np.testing.assert_array_equal(DENSE.regions, np.eye(3, dtype=bool))
    assert REGIONS.has_regions and REGIONS.n_heads == 3 and REGIONS.foreground_heads == (0, 1, 2)
    np.testing.assert_array_equal(REGIONS.regions, [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    assert REGIONS.file_values() == (0, 1, 2, 4, 7)
    assert Head("whole", (1, 2), (1, 2)).key == "(1, 2)" and Head("spot", (3,), (4,)).key == "4"


def test_labels_survive_the_way_to_a_worker():
    labels = make({"a": 1, "ignore": 9}, cases={"k": {"absent": ["a"]}})
    labels.regions  # noqa: B018  (cached: must not get in the way)
    assert pickle.loads(pickle.dumps(labels)) == labels  # noqa: S301
    assert labels.statements["k"] == CaseStatement(absent=frozenset({1}))


# decode


@SHAPES
def test_the_largest_logit_wins_and_the_lower_class_on_ties(shape):
    logits = np.zeros((3, *shape), dtype=np.float32)
    logits[2, 0, 0, 1] = logits[1, 0, 0, 2] = logits[2, 0, 0, 2] = 1.0
    decoded = DENSE.decode(logits)
    assert decoded.dtype == np.uint8 and decoded.shape == shape
    assert decoded[0, 0].tolist()[:3] == [0, 2, 1]


def test_regions_are_painted_one_over_the_other():
    logits = np.array([[-1, 1, 1, 1, -1, 0], [-1, -1, 1, 1, -1, 0], [-1, -1, -1, 1, 1, 0]], dtype=np.float32)
    assert REGIONS.decode(logits).tolist() == [0, 1, 2, 4, 4, 0]


def test_decode_uses_two_bytes_when_a_file_value_needs_them():
    assert make({"a": [1, 300], "b": 300}, regions_class_order=[1, 300]).decode(np.ones((2, 1))).dtype == np.uint16


@given(st.integers(0, 2**32 - 1))
def test_decoding_certain_logits_gives_the_file_back_and_never_ignore(seed: int):
    rng = np.random.default_rng(seed)
    for labels in (DENSE, SPARSE, REGIONS):
        file_labels = rng.choice(labels.class_values, (2, 3, 2))
        codes, label_sets = labels.encode(file_labels)
        positive, _ = head_states(label_sets, labels.regions)
        logits = np.moveaxis(np.where(positive[codes], 5.0, -5.0), -1, 0)
        np.testing.assert_array_equal(labels.decode(logits), file_labels)
        assert labels.ignore not in labels.decode(rng.normal(size=(labels.n_heads, 2, 3, 2)))


# label sets


SETS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 0]], dtype=bool)


def test_a_set_is_informative_unless_empty_or_full():
    assert informative_codes(SETS).tolist() == [True, True, True, False, True, True, False]


def test_foreground_is_a_set_without_background():
    assert foreground_codes(SETS).tolist() == [False, True, True, False, True, False, False]


def test_heads_are_positive_negative_or_undecided():
    regions = np.array([[0, 1, 1], [0, 0, 1]], dtype=bool)
    positive, negative = head_states(SETS, regions)
    assert positive.tolist() == [[0, 0], [1, 0], [1, 1], [0, 0], [1, 0], [0, 0], [0, 0]]
    assert negative.tolist() == [[1, 1], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]


def test_a_full_set_decides_no_proper_region():
    positive, negative = head_states(np.ones((1, 3), dtype=bool), np.eye(3, dtype=bool))
    assert not positive.any() and not negative.any()


# which code nobody drew


MASK_AND_SETS = [
    ({}, {}, False, 3),  # every voxel is annotated: nothing is undrawn
    ({"label_sets": {"5": ["background", "liver"]}}, {}, False, 3),  # as wide as can be, and drawn
    ({"label_sets": {"5": ["background", "liver", "tumour"]}}, {}, False, 3),
    ({"ignore": 9}, {}, False, 3),
    ({"ignore": 9}, {"absent": ["tumour"]}, False, 4),
    ({}, {"absent": ["tumour"]}, True, 4),
    ({}, {"absent": ["tumour"]}, False, 3),
    ({"label_sets": {"5": ["background", "liver"]}}, {"absent": ["tumour"]}, False, 3),
    ({"label_sets": {"5": ["liver", "tumour"]}, "ignore": 9}, {"absent": ["tumour"]}, False, 4),
    ({"ignore": 9}, {"absent": ["liver", "tumour"]}, False, 3),  # one class is left: that says as much as drawing does
    ({"ignore": 9}, {"annotated": ["liver"]}, False, 3),  # 0 is drawn: "not liver"
    ({}, {"annotated": []}, False, 3),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "statement", "has_mask", "expected"), MASK_AND_SETS)
def test_the_code_of_unannotated_voxels_is_known_where_labels_are_encoded(keys, statement, has_mask, expected):
    keys = dict(keys)
    ignore = {"ignore": keys.pop("ignore")} if "ignore" in keys else {}
    labels = make({"liver": 1, "tumour": 2, **ignore}, **keys, **({"cases": {"a": statement}} if statement else {}))
    code = undrawn_code(labels, "a", has_mask=has_mask)
    assert code == expected
    empty = np.array([[[9 if ignore else 0]]], dtype=np.uint8)
    codes, label_sets = labels.encode(empty, "a", valid=np.zeros(empty.shape, bool) if has_mask else None)
    absent = [labels.class_names.index(name) for name in statement.get("absent", [])]
    if (ignore or has_mask) and len(absent) < 2:
        assert codes.item() == code and np.flatnonzero(~label_sets[code]).tolist() == absent


def test_classes_differ_by_values_names_heads_or_painting_and_by_nothing_else():
    assert class_differences(DENSE, SPARSE) == ()
    assert class_differences(DENSE, make({"tumour": 1, "liver": 2})) == ("class_names", "heads")
    other_order = make({"whole": [1, 2, 4], "core": [2, 4], "spot": 4}, regions_class_order=[1, 4, 2])
    assert class_differences(REGIONS, other_order) == ("paint_values",)
