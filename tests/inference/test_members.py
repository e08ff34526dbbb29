from __future__ import annotations

import pytest

from autoseg.core.errors import ConfigError
from autoseg.core.workspace import FoldName, chosen_members, parse_fold, with_seeds
from autoseg.inference.members import member_kind


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("0", FoldName("0")),
        ("all", FoldName("all")),
        ("all_seed1", FoldName("all", 1)),
        ("12_seed30", FoldName("12", 30)),
        ("all_seed", FoldName("all_seed")),
    ],
)
def test_a_name_says_fold_and_seed_and_is_made_of_them(name, parts):
    assert FoldName.parse(name) == parts
    assert str(parts) == name


def test_a_fold_means_all_its_seeds_and_a_seed_itself_alone():
    names = ["0", "0_seed1", "1", "10", "all", "all_seed1", "all_seed12"]
    for typed, meant in {
        "0": ["0", "0_seed1"], "0_seed0": ["0"], "1": ["1"], "all": ["all", "all_seed1", "all_seed12"],
        "all_seed1": ["all_seed1"], "all_seed2": [], "2": [], "1_seed0": ["1"],
    }.items():  # fmt: skip
        assert chosen_members(typed, names) == meant
    assert [FoldName.parse(name).alone for name in ("0", "all_seed1")] == ["0_seed0", "all_seed1"]


def test_seeds_are_folds_of_their_own():
    assert with_seeds(["all"], 3) == ["all", "all_seed1", "all_seed2"]
    assert with_seeds(["00", "1"], 2) == ["0", "0_seed1", "1", "1_seed1"]
    assert with_seeds(["00", "whatever"], 1) == ["00", "whatever"]
    with pytest.raises(ConfigError, match=r"--seeds 2: found the fold all_seed1, .* write all\."):
        with_seeds(["0", "all_seed1"], 2)
    for wrong in ("al", "-1", "1.5", "all_seed", "seed1", "", "0_seed-1", "٣"):
        with pytest.raises(ConfigError, match="expected a number from 0 or 'all'"):
            parse_fold(wrong)
    assert [str(parse_fold(text)) for text in ("all_seed03", "0_seed0")] == ["all_seed3", "0"]


@pytest.mark.parametrize(
    ("models", "kind"),
    [
        ([["0"]], "one"),
        ([["all_seed3"]], "one"),
        ([[]], "one"),
        ([["0", "1", "2"]], "folds"),
        ([["0", "all"]], "folds"),
        ([["all", "all_seed1"]], "seeds"),
        ([["0", "0_seed1"]], "seeds"),
        ([["0", "0_seed1", "1", "1_seed1"]], "folds and seeds"),
        ([["0"], ["0"]], "models"),
        ([["all"], ["0"]], "models"),
        ([["0", "1"], ["0", "1"]], "models and folds"),
        ([["all", "all_seed1"], ["all"]], "models and seeds"),
        ([["all", "all_seed1"], ["0", "1"]], "models, folds and seeds"),
    ],
)
def test_the_kind_of_an_ensemble_is_how_its_members_differ(models, kind):
    assert member_kind(models) == kind
