from __future__ import annotations

import json

import pytest
from comparison_table import Run, Spread, markdown, summarise


def run_of(system, seed, dice, *, limit="iterations", iterations=100, seconds=50.0, annotated=None):
    return Run(
        system=system, limit=limit, seed=seed, iterations=iterations, training_seconds=seconds, prediction_seconds=1.0,
        n_parameters=10, precision="float32", dense={"foreground": dice, "organ": dice},
        annotated=None if annotated is None else {"foreground": annotated, "organ": annotated},
    )  # fmt: skip


def test_a_row_holds_mean_and_range_over_the_seeds():
    (row,) = summarise([run_of("ours", 1, 0.5, seconds=40), run_of("ours", 2, 0.9, seconds=60, annotated=1.0)])
    assert row.seeds == (1, 2)
    assert row.dense == Spread(pytest.approx(0.7), 0.5, 0.9)
    assert row.training_seconds == Spread(50, 40, 60)
    assert row.seconds_per_iteration == 0.5
    assert row.annotated is None  # only one of the runs has it


def test_systems_and_limits_have_rows_of_their_own_in_order_of_appearance():
    runs = [
        run_of("b", 1, 0.1), run_of("a", 1, 0.2), run_of("b", 1, 0.3, limit="time"), run_of("a", 2, 0.4),
    ]  # fmt: skip
    assert [(row.system, row.limit, row.seeds) for row in summarise(runs)] == [
        ("b", "iterations", (1,)), ("a", "iterations", (1, 2)), ("b", "time", (1,)),
    ]  # fmt: skip


def test_a_run_without_dense_dice_leaves_the_row_without():
    (row,) = summarise([run_of("a", 1, 0.5), run_of("a", 2, None)])
    assert row.dense is None


def test_the_table_shows_ranges_only_where_there_are_some():
    runs = [run_of("a", 1, 0.5, annotated=0.25), run_of("a", 2, 0.75, annotated=0.25)]
    header, rule, line = markdown(summarise(runs), {"a": "system A"}).splitlines()
    assert header.count("|") == rule.count("|") == line.count("|")
    assert line == "| system A | equal iterations | 2 | 100 | 50 | 0.500 | 0.625 (0.500 to 0.750) | 0.250 |"


def test_runs_and_rows_survive_json():
    run = run_of("a", 1, 0.5)
    assert Run(**json.loads(json.dumps(run.as_json()))) == run
    (row,) = summarise([run])
    assert json.loads(json.dumps(row.as_json()))["dense"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
