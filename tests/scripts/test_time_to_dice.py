from __future__ import annotations

import json

import pytest
from comparison_table import Run
from time_to_dice import dice, markdown, reached, read_preparation, read_runs

from autoseg.core.errors import ConfigError


def run_of(system, iterations, foreground, *, seconds=50.0, seed=1, limit="iterations", processor=None):
    return Run(
        system=system, limit=limit, seed=seed, iterations=iterations, training_seconds=seconds, prediction_seconds=1.0,
        n_parameters=10, precision="float32", dense={"foreground": foreground}, annotated=None,
        processor_seconds=processor,
    )  # fmt: skip


def test_the_shortest_run_that_scores_as_high_counts():
    theirs = run_of("nnunet", 400, 0.5, seconds=390)
    ours = [run_of("autoseg", 25, 0.4, seconds=5), run_of("autoseg", 50, 0.5, seconds=9), run_of("autoseg", 99, 0.8)]
    (row,) = reached([*reversed(ours), theirs], (1.0, 10.0))
    assert row.ours == ours[1]
    assert row.seconds == (10.0, 400.0)
    assert "**40.0**" in markdown([row])


def test_seeds_are_compared_each_with_its_own():
    runs = [run_of("autoseg", 50, 0.9, seed=2), run_of("nnunet", 400, 0.5, seed=1), run_of("nnunet", 400, 0.5, seed=2)]
    assert [row.ours is None for row in reached(runs, (1.0, 1.0))] == [True, False]


def test_a_dice_that_no_run_reaches_has_no_ratio():
    (row,) = reached([run_of("autoseg", 50, 0.4), run_of("nnunet", 400, 0.5)], (1.0, 1.0))
    assert row.seconds == (None, 51.0)
    assert "| not reached | - | - | - | - |" in markdown([row])


def test_the_ratio_of_processor_time_needs_both():
    ours, theirs = run_of("autoseg", 50, 0.5, processor=20.0), run_of("nnunet", 400, 0.5, processor=90.0)
    assert markdown(reached([ours, theirs], (1.0, 1.0))).endswith("| 4.5 |")
    unknown = run_of("autoseg", 50, 0.5)
    assert markdown(reached([unknown, theirs], (1.0, 1.0))).endswith("| - |")


def test_runs_of_equal_time_and_without_dense_dice_are_left_out(tmp_path):
    runs = [run_of("autoseg", 90, 0.5), run_of("autoseg", 50, 0.4), run_of("nnunet", 70, 0.3, limit="time")]
    without = Run(**{**runs[0].as_json(), "dense": None})
    for number, run in enumerate([*runs, without]):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(run.as_json()))
    assert read_runs(tmp_path) == [runs[1], runs[0]]
    assert dice(without) == 0


def test_a_folder_without_runs_or_preparation_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="found no finished run"):
        read_runs(tmp_path)
    with pytest.raises(ConfigError, match=r"prepared\.json: found no such file"):
        read_preparation(tmp_path)
