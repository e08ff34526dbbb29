from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from kill_and_resume import Kill, differences, kill_and_resume, same, table

from autoseg.cli import common
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.report.history import EpochRecord, write_history
from autoseg.training.run_checkpoints import FINAL


@pytest.mark.slow
def test_a_run_that_is_killed_a_few_times_ends_with_the_weights_of_one_left_alone(capsys):
    flags = ["--kills", "3", "--in-saves", "1", "--iterations", "60", "-j", "0", "--json"]
    with pytest.raises(SystemExit) as left:
        common.run(kill_and_resume, argv=flags)
    out, errors = capsys.readouterr()
    assert left.value.code == 0, errors
    result = json.loads(out)
    assert result["different"] == [] and result["kills"]
    assert any(kill["unfinished_file"] for kill in result["kills"] if kill["moment"] == "save")


def test_equal_means_bit_by_bit_and_of_the_same_kind():
    tensor = torch.tensor([1.0, 2.0])
    state = {"state": {0: {"momentum": tensor}}, "groups": [{"lr": 0.1, "names": ("a", None)}]}
    assert same(state, {"state": {0: {"momentum": tensor.clone()}}, "groups": [{"lr": 0.1, "names": ("a", None)}]})
    assert not same(tensor, torch.tensor([1.0, 2.0 + 2.4e-7]))
    assert not same(tensor, tensor.double())
    assert not same([1], [1, 2]) and not same({"a": 1}, {"b": 1}) and not same(1, 1.0)


def test_what_differs_between_two_runs_is_named(tmp_path, checkpoint_maker):
    base = checkpoint_maker("0")
    for name, moved in (("whole", 0.0), ("same", 0.0), ("other", 1e-7)):
        weights = {key: value + moved for key, value in base.weights.items()}
        save_checkpoint(tmp_path / name / FINAL, replace(base, weights=weights, state={"optimizer": {"moved": moved}}))
        record = EpochRecord(
            epoch=1, iteration=5, train_loss=moved, validation_loss=None, dice=None, dice_per_head={},
            scored_on="dense", seen_validation_cases=0, dice_smooth=None, learning_rate=0.1, seconds=1.0,
        )  # fmt: skip
        write_history(tmp_path / name / "history.jsonl", [record])
    assert differences(tmp_path / "whole", tmp_path / "same") == []
    assert differences(tmp_path / "whole", tmp_path / "other") == ["weights", "optimiser", "history"]


def test_the_table_has_a_row_for_each_kill():
    kills = [Kill("any", 1.25, "", "none yet", 0), Kill("save", 3.5, "checkpoint_latest.pt", "whole", 40)]
    assert table(kills).splitlines()[2:] == [
        "| 1 | any | 1.25 | - | none yet | 0 |",
        "| 2 | save | 3.50 | checkpoint_latest.pt | whole | 40 |",
    ]
