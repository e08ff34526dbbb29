from __future__ import annotations

import json

import pytest

from autoseg.assist.suggest import members_of
from autoseg.core.errors import ModelError
from autoseg.inference.out_of_fold import CaseModels, fold_cases, out_of_fold_models, seen_cases
from autoseg.nn.checkpoint import save_checkpoint

CASES = ("a", "b", "c", "d")


def tell(folder, fold, val, train=None):
    content = {"train_cases": [name for name in CASES if name not in val] if train is None else train, "val_cases": val}
    (folder / f"fold_{fold}" / "training.json").write_text(json.dumps(content))


@pytest.fixture
def folds(model_folder):
    tell(model_folder, 0, ["a", "b"])
    tell(model_folder, 1, ["c", "d"])
    return model_folder


def test_each_case_gets_the_fold_that_held_it_out(folds):
    assert out_of_fold_models(folds, CASES) == {"a": "0", "b": "0", "c": "1", "d": "1"}
    assert fold_cases(folds)["1"].val == {"c", "d"}


def test_a_case_that_no_fold_was_given_is_unseen_by_all(folds):
    assert out_of_fold_models(folds, ["unannotated", "d"]) == {"unannotated": "0", "d": "1"}


def test_being_validated_on_is_not_enough_when_the_case_was_trained_on_too(folds):
    tell(folds, 0, ["a", "b"], train=["a", "c", "d"])
    with pytest.raises(ModelError, match=r"no finished fold left out .*: a "):
        out_of_fold_models(folds, CASES)


def test_a_fold_that_started_from_weights_that_saw_the_case_is_not_unseen(folds):
    """Fold 0 leaves a and b out, but its weights had been trained on a before; nobody else left a out."""
    path = folds / "fold_0" / "training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seen_cases": ["a"]}))
    assert out_of_fold_models(folds, ["b", "c", "d"]) == {"b": "0", "c": "1", "d": "1"}
    with pytest.raises(ModelError, match=r": a .*Fold 0 .*--pretrained.* 0 .*--overwrite"):
        out_of_fold_models(folds, CASES, left_out_by={"a": "0", "b": "0", "c": "1", "d": "1"})
    chosen = out_of_fold_models(folds, CASES, allow_seen=True)
    assert chosen == {"a": "0", "b": "0", "c": "1", "d": "1"}  # marked, and still the fold that saw least of it
    assert seen_cases(folds, {case: (fold,) for case, fold in chosen.items()}) == {"a"}
    assert seen_cases(folds, {"c": ("0", "1"), "d": ("all",), "b": ("0",)}) == {"c", "d"}


def test_a_pretrained_fold_of_an_earlier_version_that_does_not_say_what_it_saw_is_warned_about(folds, caplog):
    path = folds / "fold_0" / "training.json"
    content = json.loads(path.read_text()) | {"pretrained": "x.pt"}
    path.write_text(json.dumps(content))
    assert out_of_fold_models(folds, ["a"]) == {"a": "0"}
    assert "a pretraining from x.pt" in caplog.text and "It is unknown whether" in caplog.text
    caplog.clear()
    path.write_text(json.dumps(content | {"seen_cases": []}))
    assert out_of_fold_models(folds, ["a"]) == {"a": "0"} and not caplog.text


def test_a_missing_fold_is_named_with_its_cases_and_the_command(folds):
    (folds / "fold_1" / "checkpoint_final.pt").unlink()
    splits = {"a": "0", "b": "0", "c": "1", "d": "1"}
    with pytest.raises(ModelError, match=r": c, d .*autoseg_train \S+ 1 .*--seen"):
        out_of_fold_models(folds, CASES, left_out_by=splits)
    with pytest.raises(ModelError, match=r"autoseg_train \S+ FOLD -c 3d_fullres"):
        out_of_fold_models(folds, CASES)
    assert out_of_fold_models(folds, CASES, allow_seen=True) == {"a": "0", "b": "0", "c": "0", "d": "0"}


def test_the_fold_that_sees_everything_is_taken_only_when_asked_for(folds, checkpoint_maker):
    save_checkpoint(folds / "fold_all" / "checkpoint_final.pt", checkpoint_maker("all"))
    tell(folds, "all", list(CASES), train=list(CASES))
    assert "all" not in out_of_fold_models(folds, CASES).values()
    (folds / "fold_1" / "checkpoint_final.pt").unlink()
    assert out_of_fold_models(folds, CASES, allow_seen=True) == {"a": "0", "b": "0", "c": "all", "d": "all"}
    (folds / "fold_0" / "checkpoint_final.pt").unlink()
    with pytest.raises(ModelError, match="finished: only 'all'"):
        out_of_fold_models(folds, CASES)


def test_seeds_of_a_fold_left_out_the_same_cases(folds, checkpoint_maker):
    for fold, val in (("0_seed1", ["a", "b"]), ("1_seed1", ["c", "d"]), ("all", []), ("all_seed1", [])):
        save_checkpoint(folds / f"fold_{fold}" / "checkpoint_final.pt", checkpoint_maker(fold))
        tell(folds, fold, val)
    assert [*fold_cases(folds)] == ["0", "0_seed1", "1", "1_seed1"]
    assert out_of_fold_models(folds, CASES) == {"a": "0", "b": "0", "c": "1", "d": "1"}
    assert members_of(folds, ["a", "d"]) == {"a": ("0", "0_seed1"), "d": ("1", "1_seed1")}
    assert seen_cases(folds, {"a": ("0", "0_seed1"), "b": ("1_seed1",), "c": ("all_seed1",)}) == {"b", "c"}
    (folds / "fold_0" / "checkpoint_final.pt").unlink()
    assert out_of_fold_models(folds, CASES) == {"a": "0_seed1", "b": "0_seed1", "c": "1", "d": "1"}


def test_members_are_loaded_without_the_other_seeds_of_their_fold(folds, checkpoint_maker):
    save_checkpoint(folds / "fold_0_seed1" / "checkpoint_final.pt", checkpoint_maker("0_seed1"))
    models = CaseModels(folds, {"a": ("0",), "b": ("0", "0_seed1"), "c": ("0_seed1",)}, "cpu")
    assert [item.model.folds for item in models.predictors()] == [("0",), ("0", "0_seed1"), ("0_seed1",)]


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"train_cases": "a", "val_cases": ["b"]}'])
def test_a_fold_that_does_not_say_what_it_saw_is_refused(folds, content):
    (folds / "fold_0" / "training.json").write_text(content)
    with pytest.raises(ModelError, match=r"training\.json: found .*expected"):
        out_of_fold_models(folds, CASES)


def test_the_weights_of_a_fold_are_loaded_once(folds):
    models = CaseModels(folds, {"c": ("1",), "a": ("0",), "new": ("0", "1"), "d": ("1",)}, "cpu", mirror=False)
    assert models.order == ("a", "new", "c", "d")
    given = list(models.predictors())
    assert [predictor.model.folds for predictor in given] == [("0",), ("0", "1"), ("1",), ("1",)]
    assert given[2] is given[3]
    assert not given[0].mirror


def test_a_case_without_fold_goes_to_one_that_saw_none_of_its_group(folds):
    groups = {"a": "patient 1", "b": None, "c": "patient 2", "d": None, "later": "patient 2"}
    assert out_of_fold_models(folds, ["later"], groups=groups) == {"later": "1"}  # fold 0 trained on c
    assert out_of_fold_models(folds, ["later"], groups=groups | {"a": "patient 2"}) == {"later": "0"}  # no better one
