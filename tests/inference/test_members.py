from __future__ import annotations

import pytest

from autoseg.core.workspace import FoldName
from autoseg.inference.members import member_kind


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("0", FoldName("0")),
        ("all", FoldName("all")),
        ("all_seed1", FoldName("all", 1)),
        ("12_seed30", FoldName("12", 30)),
        ("0_seed0", FoldName("0_seed0")),  # the first seed has no number: this is nobody's name but its own
        ("all_seed", FoldName("all_seed")),
        ("all_seed01", FoldName("all_seed01")),
    ],
)
def test_a_name_says_fold_and_seed_and_is_made_of_them(name, parts):
    assert FoldName.parse(name) == parts
    assert str(parts) == name


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
