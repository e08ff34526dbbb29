"""Planning again keeps the plan and what was edited in it; the commands that messages name work as they stand."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import write_toy_dataset

from autoseg.cli import common
from autoseg.cli.plan_and_preprocess import plan_and_preprocess
from autoseg.cli.train import train
from autoseg.core.errors import CacheError
from autoseg.core.geometry import Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions

COMMANDS = {"autoseg_plan_and_preprocess": plan_and_preprocess, "autoseg_train": train}
LISTS = {"-c": "2d|3d_fullres|3d_lowres", "--set": r"[A-Za-z_][\w.]*=.*"}
SHORT = ["-j", "0", "--device", "cpu", "-q"]
SETTINGS = ["--set", "iterations_per_epoch=2", "validation_iterations=1", "batch_size=2", "optimizer=sgd"]


@pytest.fixture
def type_in(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command line in this process and gives exit code and stderr."""

    def call(*words: object) -> tuple[int, str]:
        line = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", line)
        name, *arguments = line
        with pytest.raises(SystemExit) as left:
            common.run(COMMANDS[name], lists=LISTS, argv=arguments)
        return int(left.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def planned(tmp_path, type_in) -> tuple[Path, Path]:
    """Data set and workspace (its name has a space), planned small and in 2-D only."""
    raw, root = write_toy_dataset(tmp_path / "raw data" / "Dataset900_Toy", n_cases=4), tmp_path / "work space"
    code, said = type_in(
        "autoseg_plan_and_preprocess", raw, "--planner", "small", "-c", "2d", "--root", root, "-j", 1, "-q"
    )
    assert code == 0, said
    return raw, root


def plans(root: Path) -> Path:
    return root / "preprocessed" / "Dataset900_Toy" / "plans.json"


def configuration(root: Path) -> dict[str, Any]:
    return json.loads(plans(root).read_text())["configurations"]["2d"]


def edit(root: Path, **values: object) -> None:
    content = json.loads(plans(root).read_text())
    content["configurations"]["2d"] |= values
    plans(root).write_text(json.dumps(content))


def correct_a_label(raw: Path) -> None:
    path = raw / "labelsTr" / "toy_000.nii.gz"
    labels = read_labels(path)[0].astype(np.uint8)
    labels[0, 0, 0] = 1
    write_labels(path, labels, Geometry(spacing=(2.0, 1.0, 1.0)))


def advised(message: str, mark: str) -> list[str]:
    return shlex.split(message.strip().rpartition(mark)[2])


@pytest.mark.slow
def test_the_advice_of_a_stale_cache_works_and_changes_nothing_else(planned, type_in):
    raw, root = planned
    before = plans(root).read_bytes()
    arguments = ["autoseg_train", raw, "0", "-c", "2d", "--root", root, *SHORT, "--iterations", "4", *SETTINGS]
    assert type_in(*arguments)[0] == 0
    correct_a_label(raw)
    code, said = type_in("autoseg_train", raw, "0", "--root", root, *SHORT, "--resume")
    assert code == 2
    assert "toy_000 (label file changed)" in said
    assert type_in(*advised(said, "Run "), "-q", "-j", "1")[0] == 0
    assert plans(root).read_bytes() == before
    assert not (plans(root).parent / "3d_fullres").exists()
    assert type_in("autoseg_train", raw, "0", "--root", root, *SHORT, "--resume")[0] == 0


def test_planning_again_without_a_word_keeps_planner_memory_and_configurations(planned, type_in):
    raw, root = planned
    assert type_in("autoseg_plan_and_preprocess", raw, "--gpu-memory-gb", 1, "--root", root, "-j", 1, "-q")[0] == 0
    before = plans(root).read_bytes()
    code, said = type_in("autoseg_plan_and_preprocess", raw, "--root", root, "-j", 1)
    assert code == 0
    assert plans(root).read_bytes() == before
    assert "configurations as before: 2d (others: -c 3d_fullres)" in said
    assert "2d: 0 cases preprocessed, 4 were up to date" in said


def test_an_edit_is_kept_and_only_what_it_demands_is_done_again(planned, type_in):
    raw, root = planned
    made = configuration(root)
    edit(root, batch_size=made["batch_size"] + 1)
    again = ["autoseg_plan_and_preprocess", raw, "--root", root, "-j", 1]
    code, said = type_in(*again)
    assert code == 0
    assert f"batch_size: {made['batch_size']} -> {made['batch_size'] + 1}" in said
    assert "0 cases preprocessed" in said
    edit(root, spacing=[2.0, 2.0])
    code, said = type_in(*again)
    assert (code, "2d: 4 cases preprocessed" in said) == (0, True)
    found = configuration(root)
    assert (found["batch_size"], found["spacing"]) == (made["batch_size"] + 1, [2.0, 2.0])
    halved = [max(1, round(edge / 2)) for edge in made["median_shape"]]
    assert found["median_shape"] == halved
    code, said = type_in(*advised(said.splitlines()[1], "To plan anew: "), "-q", "-j", "1")
    assert (code, configuration(root)) == (0, made)


def test_an_edit_is_not_lost_to_another_planner(planned, type_in):
    raw, root = planned
    edit(root, batch_size=3)
    arguments = ["autoseg_plan_and_preprocess", raw, "--planner", "default", "--root", root, "-j", 1, "-q"]
    code, said = type_in(*arguments)
    assert (code, "batch_size" in said, configuration(root)["batch_size"]) == (2, True, 3)
    assert type_in(*arguments, "--replan")[0] == 0
    assert json.loads(plans(root).read_text())["planner"] == "default"


def test_a_plan_that_an_edit_broke_is_not_overwritten(planned, type_in):
    raw, root = planned
    plans(root).write_text("{")
    code, said = type_in("autoseg_plan_and_preprocess", raw, "--root", root, "-j", 1, "-q")
    assert (code, plans(root).read_text()) == (2, "{")
    assert type_in(*advised(said, "plan anew: "), "-q", "-j", 1)[0] == 0
    assert json.loads(plans(root).read_text())["planner"] == "small"


def test_a_case_that_came_later_is_named_and_the_advice_takes_it_in(planned, type_in):
    raw, root = planned
    for place, end in (("imagesTr", "_0000"), ("labelsTr", "")):
        path = raw / place / f"late{end}.nii.gz"
        path.write_bytes((raw / place / f"toy_001{end}.nii.gz").read_bytes())
    code, said = type_in("autoseg_train", raw, "0", "-c", "2d", "--root", root, *SHORT)
    assert (code, "1 case that planning left out: late" in said) == (2, True)
    assert type_in(*advised(said, "Run "), "-q", "-j", 1)[0] == 0
    splits = json.loads((plans(root).parent / "splits.json").read_text())
    assert {name for fold in splits for name in fold["val"]} == {f"toy_00{number}" for number in range(4)} | {"late"}


def test_a_case_in_no_given_fold_is_named_until_it_is_left_out_on_purpose(planned, type_in):
    raw, root = planned
    folds = [{"train": ["toy_000", "toy_001"], "val": ["toy_002"]}]
    (raw / "splits_final.json").write_text(json.dumps(folds))
    again = ["autoseg_plan_and_preprocess", raw, "--root", root, "-j", 1, "-q"]
    for command in (again, [*again, "--check-only"], ["autoseg_train", raw, "0", "-c", "2d", "--root", root, *SHORT]):
        code, said = type_in(*command)
        assert (code, "no fold with 1 annotated case: toy_003" in said) == (2, True)
    folds[0]["left_out"] = ["toy_003"]
    (raw / "splits_final.json").write_text(json.dumps(folds))
    assert type_in(*again)[0] == 0
    request = prepare_fold(Workspace(root), Dataset.load(raw), RunOptions("all", "2d"))
    assert request.train_cases == ("toy_000", "toy_001", "toy_002")


def test_the_check_names_what_training_would_refuse_in_given_folds(planned, type_in):
    raw, root = planned
    folds = [
        {"train": ["toy_000", "toy_001"], "val": ["toy_002", "ghost"]},
        {"train": ["toy_003", "toy_002"], "val": []},
        {"train": ["toy_003", "toy_002"], "val": ["toy_003"]},
    ]
    (raw / "splits_final.json").write_text(json.dumps(folds))
    again = ["autoseg_plan_and_preprocess", raw, "--root", root, "-j", 1, "-q"]
    for command in (again, [*again, "--check-only"]):
        code, said = type_in(*command)
        assert code == 2 and "fold 0: found unknown cases ['ghost']" in said
        assert "fold 1: found no usable case in 'val'" in said
    (raw / "splits_final.json").write_text(json.dumps([*folds[2:], {"train": ["toy_000"], "val": ["toy_001"]}]))
    for command in (again, [*again, "--check-only"]):
        code, said = type_in(*command)
        assert code == 0 and "fold 0: ['toy_003'] are in both train and val" in said


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_one_line_whose_command_goes_on(planned, type_in):
    raw, root = planned
    start = ["autoseg_train", raw, "1", "-c", "2d", "--name", "mine", "--root", root, *SHORT, "--seed", "7"]
    broken = ["gradient_clip=1e30", "max_bad_steps=0"]
    code, said = type_in(*start, "--iterations", "8", *SETTINGS, *broken, "learning_rate=1e30")
    assert code == 1
    assert len(said.splitlines()) == 1
    assert "Nothing was saved before. Start again: autoseg_train" in said
    folder = root / "results" / "Dataset900_Toy" / "mine__2d" / "fold_1"

    dataset = Dataset.load(raw)
    settings = (*SETTINGS[1:], *broken)
    options = RunOptions("1", "2d", name="mine", device="cpu", iterations=8, seed=7, settings=settings, workers=0)
    steps = iter(range(3))
    train_fold(prepare_fold(Workspace(root), dataset, options), should_stop=lambda: next(steps, None) is None)
    code, said = type_in("autoseg_train", raw, "1", "--resume", "--root", root, *SHORT, "--set", "learning_rate=1e30")
    assert (code, len(said.splitlines()), "Traceback" in said) == (1, 1, False)
    assert f"Saved: {folder / 'checkpoint_latest.pt'}, iteration 4" in said
    assert type_in(*advised(said, "from there: "), *SHORT)[0] == 0
    final = load_checkpoint(folder / "checkpoint_final.pt")
    assert (final.training["seed"], final.training["iterations"], final.training["precision"]) == (7, 8, "float32")
    (change,) = json.loads((folder / "training.json").read_text())["changes"]
    assert change == {"iteration": 4, "precision": ["auto", "float32"], "optimizer.learning_rate": [None, 0.01]}
    assert final.state["changes"] == [change]


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_settings_and_no_others(planned, type_in):
    raw, root = planned
    arguments = ["autoseg_train", raw, "0", "--root", root, *SHORT]
    assert type_in(*arguments, "-c", "2d", "--iterations", "4", "--seed", "3", *SETTINGS)[0] == 0
    assert type_in(*arguments, "--resume")[0] == 0
    for flags in (["--seed", "4"], ["--iterations", "5"], ["--set", "batch_size=1"]):
        code, said = type_in(*arguments, "--resume", *flags)
        assert (code, "Leave the flags out" in said) == (2, True)
    assert type_in(*arguments, "-c", "2d", "--iterations", "4", "--name", "other", *SETTINGS)[0] == 0
    code, said = type_in(*arguments, "--resume")
    assert (code, "--name default -c 2d, --name other -c 2d" in said) == (2, True)


def test_a_stale_cache_names_its_cases(planned):
    raw, root = planned
    correct_a_label(raw)
    with pytest.raises(CacheError, match=r"found 1 stale case: toy_000 \(label file changed\)"):
        prepare_fold(Workspace(root), Dataset.load(raw), RunOptions("0", "2d"))


@pytest.mark.slow
def test_without_a_configuration_what_was_preprocessed_is_trained(planned, type_in):
    raw, root = planned  # 2-D only, though the plan has 3d_fullres, too
    code, said = type_in("autoseg_train", raw, 0, "--root", root, *SHORT, "--iterations", 2, *SETTINGS)
    assert code == 0, said
    assert [path.name for path in (root / "results" / "Dataset900_Toy").iterdir()] == ["default__2d"]


def topology(root: Path) -> dict[str, Any]:
    return configuration(root)["topology"]


@pytest.mark.slow
def test_a_network_by_options_is_planned_kept_and_trained(planned, type_in, tmp_path, monkeypatch):
    raw, root = planned
    again = ["autoseg_plan_and_preprocess", raw, "--root", root, "-j", 1]
    (tmp_path / "run.toml").write_text('[network]\nactivation = "silu"\nnormalization = "batch"\n')
    wanted = [
        "--config",
        tmp_path / "run.toml",
        "--set",
        "network.levels=2",
        "network.pooling=max",
        "network.dropout=0.2",
    ]
    code, said = type_in(*again, *wanted)
    assert code == 0, said
    made = topology(root)
    assert (made["activation"], made["normalization"], made["pooling"]) == ("silu", "batch", "max")
    assert (len(made["features"]), made["dropout"]) == (2, [0.2, 0.2])
    record = json.loads((plans(root).parent / "plans_made.json").read_text())
    assert record["network_origins"]["network.activation"] == str(tmp_path / "run.toml")
    assert record["network_origins"]["network.levels"] == "--set"
    user = tmp_path / "user.toml"
    user.write_text("[network]\nfeatures = 4\n")
    monkeypatch.setenv("AUTOSEG_CONFIG", str(user))
    for flags in ([], ["--replan", "--set", "network.features=8"]):
        assert type_in(*again, "-q", *flags)[0] == 0
        assert {key: topology(root)[key] for key in ("activation", "dropout", "pooling")} == {
            key: made[key] for key in ("activation", "dropout", "pooling")
        }
    assert topology(root)["features"] == [8, 8]
    monkeypatch.delenv("AUTOSEG_CONFIG")
    run = ["autoseg_train", raw, "0", "-c", "2d", "--root", root, *SHORT, "--iterations"]
    assert type_in(*run, "4", *SETTINGS)[0] == 0
    straight = plans(root).parents[2] / "results" / "Dataset900_Toy"
    whole = load_checkpoint(straight / "default__2d" / "fold_0" / "checkpoint_final.pt").weights
    assert "encoder.0.0.norm.running_mean" in whole


def test_training_refuses_options_of_the_network_and_its_advice_works(planned, type_in):
    raw, root = planned
    run = ["autoseg_train", raw, "0", "-c", "2d", "--root", root, *SHORT, "--set", "network.activation=elu"]
    code, said = type_in(*run)
    assert (code, "the network is decided when the plan is made" in said) == (2, True)
    assert type_in(*advised(said, "then train: "), "-q", "-j", 1)[0] == 0
    assert topology(root)["activation"] == "elu"


def test_another_network_does_not_take_edits_away(planned, type_in):
    raw, root = planned
    edit(root, batch_size=3)
    arguments = ["autoseg_plan_and_preprocess", raw, "--set", "network.levels=2", "--root", root, "-j", 1, "-q"]
    code, said = type_in(*arguments)
    assert (code, "network.levels differs from the former value" in said) == (2, True)
    assert type_in(*arguments, "--replan")[0] == 0
    assert len(topology(root)["features"]) == 2
    assert (
        type_in("autoseg_plan_and_preprocess", raw, "--set", "network.levels=none", "--root", root, "-j", 1, "-q")[0]
        == 0
    )
    assert len(topology(root)["features"]) > 2
