"""Folds: nnU-Net's rule, groups, and the files that hold them."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.core.errors import ConfigError, DatasetError
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Head, Labels
from autoseg.planning.splits import Split, load_or_make_splits, make_splits, read_splits, select_fold

LABELS = Labels((0, 1), ("background", "organ"), (Head("background", (0,), (0,), True), Head("organ", (1,), (1,))))


def _dataset(folder, names, groups=None):
    cases = tuple(CaseFiles(name, (), group=(groups or {}).get(name)) for name in names)
    return Dataset("Toy", folder, ("CT",), LABELS, ".nii.gz", cases)


def _names(n):
    return [f"c{index:02d}" for index in range(n)]


def test_folds_are_those_of_scikit_learn_with_nnunets_seed():
    """Validation cases as ``sklearn.model_selection.KFold(5, shuffle=True, random_state=12345)`` gives them."""
    expected = [
        ("c00", "c07", "c09"),
        ("c03", "c06", "c10"),
        ("c08", "c11", "c12"),
        ("c01", "c04"),
        ("c02", "c05"),
    ]
    assert [split.val for split in make_splits(_names(13)[::-1])] == expected


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 12))
def test_every_case_is_validated_once_and_groups_stay_together(n, n_groups):
    names = _names(n)
    groups = {name: f"g{index % n_groups}" for index, name in enumerate(names) if index % 3}
    splits = make_splits(names, groups)
    if len(splits) == 1:
        return
    assert sorted(name for split in splits for name in split.val) == names
    for split in splits:
        assert sorted(split.train + split.val) == names
        assert not {groups[name] for name in split.train if name in groups} & {
            groups[name] for name in split.val if name in groups
        }


@pytest.mark.parametrize("n", [2, 3, 4])
def test_few_cases_give_as_many_folds(n):
    assert [len(split.val) for split in make_splits(_names(n))] == [1] * n


def test_a_single_case_trains_and_validates_on_itself_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        assert make_splits(["only"]) == [Split(("only",), ("only",))]
    assert "only one case or group" in caplog.text


def test_a_group_with_the_name_of_a_case_is_another_group():
    assert len(make_splits(["a", "b", "c"], {"b": "a", "c": "a"})) == 2


def test_no_case_is_refused():
    with pytest.raises(ConfigError, match="splits: no training case"):
        make_splits([])


def test_folds_are_kept_in_a_file(tmp_path):
    dataset = _dataset(tmp_path / "raw", _names(7))
    first = load_or_make_splits(dataset, tmp_path, _names(7))
    written = json.loads((tmp_path / "splits.json").read_text())
    assert [tuple(fold["val"]) for fold in written] == [split.val for split in first]
    edited = [{"train": fold["val"], "val": fold["train"]} for fold in written]
    (tmp_path / "splits.json").write_text(json.dumps(edited))
    assert load_or_make_splits(dataset, tmp_path, _names(7))[0].train == first[0].val


def test_folds_are_made_anew_when_cases_change(tmp_path, caplog):
    load_or_make_splits(_dataset(tmp_path, _names(7)), tmp_path, _names(7))
    with caplog.at_level(logging.WARNING):
        splits = load_or_make_splits(_dataset(tmp_path, _names(9)), tmp_path, _names(9))
    assert splits == make_splits(_names(9))
    assert "0 cases are gone and 2 are new" in caplog.text
    assert read_splits(tmp_path / "splits.json") == splits


def test_folds_are_made_anew_when_they_divide_a_group(tmp_path, caplog):
    names = _names(6)
    load_or_make_splits(_dataset(tmp_path, names), tmp_path, names)
    grouped = _dataset(tmp_path, names, dict.fromkeys(names[:3], "patient"))
    with caplog.at_level(logging.WARNING):
        splits = load_or_make_splits(grouped, tmp_path, names)
    assert "a group is divided" in caplog.text
    assert any(set(names[:3]) <= set(split.val) for split in splits)


@pytest.mark.parametrize("where", ["preprocessed", "raw"])
def test_nnunets_file_is_honoured(where, tmp_path):
    for folder in ("preprocessed", "raw"):
        (tmp_path / folder).mkdir()
    folds = [{"train": ["c01"], "val": ["c00"]}]
    (tmp_path / where / "splits_final.json").write_text(json.dumps(folds))
    splits = load_or_make_splits(_dataset(tmp_path / "raw", _names(3)), tmp_path / "preprocessed", _names(3))
    assert splits == [Split(("c01",), ("c00",))]


def test_all_faults_of_nnunets_file_are_reported(tmp_path):
    folds = [{"train": ["c00", "ghost"], "val": ["c01"]}, {"train": [], "val": ["c02"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    with pytest.raises(DatasetError, match="unknown cases") as error:
        load_or_make_splits(_dataset(tmp_path, _names(3)), tmp_path, _names(3))
    assert len(error.value.faults) == 2
    assert "fold 1: found no usable case in 'train'" in str(error.value)


def test_overlap_and_uninformative_cases_of_nnunets_file_are_warned_of(tmp_path, caplog):
    folds = [{"train": ["c00", "c01", "c02"], "val": ["c01"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    with caplog.at_level(logging.WARNING):
        splits = load_or_make_splits(_dataset(tmp_path, _names(3)), tmp_path, ["c00", "c01"])
    assert splits == [Split(("c00", "c01"), ("c01",))]
    assert "no voxel is annotated" in caplog.text
    assert "both train and val" in caplog.text


@pytest.mark.parametrize("text", ["[", "{}", "[]", '[{"train": ["a"]}]', '[{"train": [1], "val": ["a"]}]'])
def test_malformed_file_is_refused(text, tmp_path):
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(ConfigError, match=r"splits\.json: "):
        read_splits(tmp_path / "splits.json")


def test_select_fold():
    splits = make_splits(_names(5))
    assert select_fold(splits, 2) is splits[2]
    everything = select_fold(splits, "all")
    assert everything == Split(tuple(_names(5)), tuple(_names(5)))
    assert select_fold(splits, "all", ["x", "a"]).train == ("a", "x")


@pytest.mark.parametrize("fold", [-1, 5])
def test_fold_that_does_not_exist_is_refused(fold):
    with pytest.raises(ConfigError, match=r"\[0, 1, 2, 3, 4\] or 'all'"):
        select_fold(make_splits(_names(5)), fold)
