"""Kinds of cases over the folds: nnU-Net's division unless a kind is missing where it need not be."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import write_toy_dataset

from autoseg.annotation.label_counts import CaseAnnotation
from autoseg.core.fingerprint import Fingerprint
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Head, Labels
from autoseg.inspection.integrity import IntegrityReport, check_dataset
from autoseg.planning import extract_fingerprint
from autoseg.planning.splits import Split, load_or_make_splits, make_splits, partial_profiles, read_splits
from autoseg.planning.strata import (
    LEVELS,
    CaseProfile,
    FoldGap,
    find_gaps,
    profiles_from_fingerprint,
    profiles_from_report,
    spread,
)


def profile(*heads: int, share: float = 0.01) -> CaseProfile:
    return CaseProfile(frozenset(heads), share)


def names(n: int) -> list[str]:
    return [f"c{index:02d}" for index in range(n)]


def holders(splits: list[Split], profiles: dict[str, CaseProfile], head: int) -> list[int]:
    """Validation cases with a head, per fold."""
    return [sum(head in profiles[name].heads for name in split.val) for split in splits]


def test_a_class_of_as_many_cases_as_folds_gets_one_case_in_each():
    plain = make_splits(names(20))
    profiles = {name: profile(0, 1) for name in names(20)}
    for name in (*plain[0].val, plain[1].val[0]):  # five cases, four of them in the first fold
        profiles[name] = profile(0, 1, 2)
    splits = make_splits(names(20), profiles=profiles)
    assert holders(plain, profiles, 2) == [4, 1, 0, 0, 0]
    assert holders(splits, profiles, 2) == [1, 1, 1, 1, 1]
    assert sum(set(a.val) != set(b.val) for a, b in zip(plain, splits, strict=True)) == 4
    assert len(set(plain[0].val) & set(splits[0].val)) == 1  # three swaps, no more
    assert len(set(plain[1].val) & set(splits[1].val)) == 4


def test_a_class_of_two_cases_is_never_validated_in_one_fold_alone_and_so_is_always_learnt():
    plain = make_splits(names(10))
    profiles = {name: profile(0, 1) for name in names(10)} | dict.fromkeys(plain[3].val, profile(0, 1, 2))
    splits = make_splits(names(10), profiles=profiles)
    assert sorted(holders(splits, profiles, 2)) == [0, 0, 0, 1, 1]
    assert all(any(2 in profiles[name].heads for name in split.train) for split in splits)


def test_densities_of_annotation_are_spread_too():
    plain = make_splits(names(20))
    profiles = {name: profile(0, 1, share=0.01) for name in names(20)}
    profiles |= {name: profile(0, 1, share=1.0) for name in (*plain[4].val, plain[2].val[1])}
    splits = make_splits(names(20), profiles=profiles)
    assert [sum(profiles[name].share == 1 for name in split.val) for split in splits] == [1] * 5


def test_nothing_moves_where_nothing_is_missing():
    plain = make_splits(names(23))
    profiles = {name: profile(0, share=0.3) for name in names(23)}
    profiles |= {split.val[0]: profile(0, 1, share=0.9) for split in plain}
    assert make_splits(names(23), profiles=profiles) == plain
    assert make_splits(names(23), profiles={"c00": profile(2)}) == plain  # nothing is known of the others


def test_groups_stay_together():
    groups = {name: f"patient{index // 2}" for index, name in enumerate(names(20))}
    plain = make_splits(names(20), groups)
    profiles = {name: profile(0) for name in names(20)}
    profiles |= {name: profile(0, 1) for split in plain[:2] for name in split.val}
    profiles |= {plain[2].val[0]: profile(0, 1)}
    splits = make_splits(names(20), groups, profiles)
    assert min(holders(splits, profiles, 1)) >= 1
    for split in splits:
        assert not {groups[name] for name in split.train} & {groups[name] for name in split.val}


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 30), st.integers(0, 10**6), st.integers(1, 4))
def test_every_unit_stays_in_one_fold_and_no_fold_lacks_more_than_by_nnunets_rule(n, seed, n_heads):
    rng = np.random.default_rng(seed)
    rates = rng.uniform(0.05, 0.9, n_heads)
    profiles = {
        name: profile(*np.flatnonzero(rng.random(n_heads) < rates).tolist(), share=float(rng.choice([0.01, 0.2, 1])))
        for name in names(n)
    }
    plain, splits = make_splits(names(n)), make_splits(names(n), profiles=profiles)
    assert sorted(name for split in splits for name in split.val) == names(n)
    assert [len(split.val) for split in splits] == [len(split.val) for split in plain]
    assert splits == make_splits(names(n)[::-1], profiles=profiles)

    def lacking(found: list[Split]) -> int:
        kinds = [{("head", head) for head in item.heads} | {("level", item.level)} for item in profiles.values()]
        return sum(
            not any(kind in kinds[int(name[1:])] for name in split.val)
            for split in found
            for kind in set().union(*kinds)
        )

    assert lacking(splits) <= lacking(plain)


def test_swaps_find_what_is_possible_in_most_random_data():
    """Against a planted division in which every fold holds every kind."""
    solved = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        units = []
        for _ in range(5):
            rows = [set(np.flatnonzero(rng.random(4) < 0.2).tolist()) for _ in range(4)]
            for head in range(4):
                rows[rng.integers(4)].add(head)
            units += [[profile(4, *row)] for row in rows]
        order = rng.permutation(20)
        folds = spread([part.tolist() for part in np.array_split(order, 5)], units)
        solved += all(
            frozenset[int]().union(*(units[unit][0].heads for unit in fold)) == {0, 1, 2, 3, 4} for fold in folds
        )
    assert solved >= 36


@pytest.mark.parametrize(
    ("heads", "share", "level"),
    [((), 1.0, 0), ((0,), 0.019, 1), ((1,), 0.02, 2), ((0, 1), 0.59, 2), ((0,), 0.6, 3), ((0,), 1.0, 3)],
)
def test_levels_of_density(heads, share, level):
    assert profile(*heads, share=share).level == level


def test_gaps_name_classes_of_either_part_and_densities_of_validation():
    profiles = {
        "a": profile(0, share=1.0), "b": profile(0, 1, share=1.0),
        "c": profile(0), "d": profile(0), "lazy": profile(share=1.0),
    }  # fmt: skip
    splits = [(("c", "d", "lazy"), ("a", "b")), (("a", "b"), ("c", "d", "lazy")), (("a",), ())]
    gaps = find_gaps(splits[:2], profiles, ("background", "rim"))
    assert [(gap.fold, gap.part, gap.heads, gap.densities) for gap in gaps] == [
        (0, "train", ("rim",), ()),
        (0, "val", (), (LEVELS[1],)),
        (1, "val", ("rim",), (LEVELS[3],)),
    ]
    assert str(gaps[1]) == (
        "fold 0: no validation case is sparsely annotated (under 2 % of its voxels), so scores do not cover such cases"
    )
    assert str(gaps[2]).startswith(
        "fold 1: rim cannot be validated: no validation case has an annotated voxel; fold 1:"
    )
    assert find_gaps([splits[2]], profiles, ("background",)) == ()


def test_gaps_follow_from_the_report_of_the_check():
    def found(rim: int) -> CaseAnnotation:
        return CaseAnnotation(100, 10, 10, {"background": 5, "rim": rim}, {"background": 10, "rim": 10})

    report = IntegrityReport((), (), {"a": found(3), "b": found(0)}, ("background", "rim"))
    profiles = profiles_from_report(report)
    assert profiles == {"a": profile(0, 1, share=0.1), "b": profile(0, share=0.1)}
    splits = [{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]
    gaps = find_gaps([(s["train"], s["val"]) for s in splits], profiles, report.heads)
    assert gaps == (FoldGap(0, "val", ("rim",)), FoldGap(1, "train", ("rim",)))
    assert str(gaps[1]) == "fold 1: rim cannot be learnt: no training case has an annotated voxel"


LABELS = Labels(
    (0, 1), ("background", "organ"), (Head("background", (0,), (0,), True), Head("organ", (1,), (1,))), ignore=9
)


def fingerprint(profiles: dict[str, CaseProfile]) -> Fingerprint:
    return Fingerprint(
        spacings=(), shapes_after_crop=(), foreground_intensity_properties_per_channel={},
        median_relative_size_after_cropping=1.0, cases=tuple(profiles),
        drawn_fraction={name: item.share for name, item in profiles.items()},
        annotated_classes={name: tuple(sorted(item.heads)) for name, item in profiles.items()},
    )  # fmt: skip


def test_dense_data_keep_nnunets_folds_and_partial_data_do_not(tmp_path):
    plain = make_splits(names(10))
    for ignore, share, is_spread in ((None, 1.0, False), (9, 0.5, True), (None, 0.5, True)):
        labels = Labels(LABELS.class_values, LABELS.class_names, LABELS.heads, ignore=ignore)
        dataset = Dataset("Toy", tmp_path, ("CT",), labels, ".png", tuple(CaseFiles(name, ()) for name in names(10)))
        profiles = {name: profile(0, 1, share=share) for name in names(10)}
        profiles |= dict.fromkeys(plain[0].val, profile(0, share=share))
        folder = tmp_path / f"{ignore}_{share}"
        folder.mkdir()
        splits = load_or_make_splits(dataset, folder, names(10), fingerprint(profiles))
        assert (splits != plain) == is_spread
        assert (partial_profiles(dataset, profiles) is None) != is_spread


def test_folds_in_a_file_are_never_changed(tmp_path):
    dataset = Dataset("Toy", tmp_path, ("CT",), LABELS, ".png", tuple(CaseFiles(name, ()) for name in names(10)))
    first = load_or_make_splits(dataset, tmp_path, names(10))
    profiles = {name: profile(0) for name in names(10)} | dict.fromkeys(first[0].val, profile(0, 1))
    before = (tmp_path / "splits.json").read_bytes()
    assert load_or_make_splits(dataset, tmp_path, names(10), fingerprint(profiles)) == first
    assert (tmp_path / "splits.json").read_bytes() == before
    (tmp_path / "splits.json").unlink()
    assert load_or_make_splits(dataset, tmp_path, names(10), fingerprint(profiles)) != first
    (tmp_path / "splits_final.json").write_text(json.dumps([{"train": ["c00"], "val": ["c01"]}]))
    assert load_or_make_splits(dataset, tmp_path, names(10), fingerprint(profiles)) == [Split(("c00",), ("c01",))]


@pytest.mark.parametrize("shape", [(1, 20, 18), (12, 20, 18)], ids=["2d", "3d"])
def test_fingerprint_and_check_find_the_same_in_files(tmp_path, shape):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=3, shape=shape)
    content = json.loads((folder / "dataset.json").read_text())
    content["cases"] = {"toy_001": {"annotated": ["background", "bright", "brighter"]}}
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(folder)
    measured, checked = profiles_from_fingerprint(extract_fingerprint(dataset)), check_dataset(dataset)
    assert measured == profiles_from_report(checked)
    assert {item.heads for item in measured.values()} == {frozenset({0, 1, 2})}
    assert {item.level for item in measured.values()} == {3 if shape[0] == 1 else 2}


def test_an_early_fingerprint_says_nothing(caplog, tmp_path):
    old = fingerprint({}).model_dump(mode="json")
    del old["annotated_classes"]
    assert profiles_from_fingerprint(Fingerprint.model_validate(old)) == {}
    dataset = Dataset("Toy", tmp_path, ("CT",), LABELS, ".png", tuple(CaseFiles(name, ()) for name in names(7)))
    with caplog.at_level(logging.WARNING):
        assert load_or_make_splits(dataset, tmp_path, names(7), fingerprint({})) == make_splits(names(7))
    assert read_splits(tmp_path / "splits.json") == make_splits(names(7))
    assert not caplog.records
