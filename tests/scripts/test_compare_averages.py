from __future__ import annotations

import pytest
import torch
from compare_averages import LAST, compare, markdown, trained_weights
from toy import write_toy_dataset

from autoseg.core.errors import ConfigError


def test_one_training_gives_all_rows_and_is_not_done_again(tmp_path, capsys, monkeypatch):
    folder = write_toy_dataset(tmp_path / "toy", n_cases=5, shape=(8, 24, 24))
    options = {
        "seeds": [1], "decays": [0.5], "references": folder / "labelsTr_dense", "work": tmp_path / "work",
        "mirrors": False, "settings": ["batch_size=1"],
    }  # fmt: skip
    compare(folder, 2, **options)
    table = capsys.readouterr().out
    assert "| last step |" in table
    assert "| mean, decay 0.5 |" in table
    monkeypatch.setattr("compare_averages.train", lambda *_: pytest.fail("trained again"))
    compare(folder, 2, **options)
    assert table.splitlines()[-1] == capsys.readouterr().out.splitlines()[-1]
    with pytest.raises(ConfigError, match=r"without mean, decay 0\.25"):
        compare(folder, 2, **options | {"decays": [0.25]})


def test_weights_of_a_file_are_taken_as_they_are(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"weights": {LAST: {"a": torch.ones(1)}}, "training_seconds": 2.0, "averaging_seconds": 1.0}, path)
    assert trained_weights(None, None, (), path)["weights"][LAST]["a"] == 1


def test_the_table_shows_the_mean_over_seeds_minus_that_of_the_last_step():
    results = [
        {"seed": seed, "training_seconds": 100.0, "averaging_seconds": 0.5,
         "dice": {LAST: {"foreground": 0.5}, "mean": {"foreground": better}}}
        for seed, better in [(1, 0.6), (2, 0.5)]
    ]  # fmt: skip
    lines = markdown(results).splitlines()
    assert lines[0] == "| weights | seed 1 | seed 2 | mean | minus last step |"
    assert lines[3] == "| mean | 0.6000 | 0.5000 | 0.5500 | +0.0500 |"
    assert lines[-1] == "One average takes 0.50 % of the time of training."
