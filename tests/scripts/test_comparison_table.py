from __future__ import annotations

import json

import pytest
from comparison_table import Lead, Run, Spread, markdown, summarise


def run_of(system, seed, dice, *, limit="iterations", iterations=100, seconds=50.0, annotated=None, cases=None):
    return Run(
        system=system, limit=limit, seed=seed, iterations=iterations, training_seconds=seconds, prediction_seconds=1.0,
        n_parameters=10, precision="float32", dense={"foreground": dice, "organ": dice},
        annotated=None if annotated is None else {"foreground": annotated, "organ": annotated},
        dense_per_case=None if cases is None else {f"case_{i}": {"organ": value} for i, value in enumerate(cases)},
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


def test_a_result_of_an_earlier_version_is_still_a_run():
    earlier = {key: value for key, value in run_of("a", 1, 0.5).as_json().items() if key != "dense_per_case"}
    assert Run(**earlier).dense_per_case is None
    assert summarise([Run(**earlier), run_of("b", 1, 0.4, cases=[0.5, 0.3])])[1].lead is None


def test_a_row_states_the_lead_of_the_first_over_it_paired_by_case():
    ours = [0.9, 0.5, 0.7, 0.3, 0.8, 0.6]
    leads = {1: 0.1, 2: 0.12}
    others = [run_of("b", seed, 0.5, cases=[dice - lead for dice in ours]) for seed, lead in leads.items()]
    first, second = summarise([*(run_of("a", seed, 0.6, cases=ours) for seed in leads), *others])
    assert first.lead is None
    assert second.lead == Lead(pytest.approx(0.11), (pytest.approx(0.11), pytest.approx(0.11)), 6, (1, 2))
    assert second.lead.is_clear
    assert json.loads(json.dumps(second.as_json()))["lead"]["n_cases"] == 6


def test_a_lead_that_cases_contradict_is_not_clear():
    ours, theirs = [0.9, 0.5, 0.7, 0.3, 0.8, 0.6], [0.5, 0.9, 0.2, 0.7, 0.6, 0.6]
    rows = summarise([run_of("a", 1, 0.6, cases=ours), run_of("b", 1, 0.6, cases=theirs)])
    low, high = rows[1].lead.interval
    assert low < 0 < high
    header, _, first, second = markdown(rows, {"a": "A", "b": "B"}).splitlines()
    assert header.endswith("first row minus this one (95 %, over cases) |")
    assert first.endswith("| - |")
    assert second.endswith(", not clear |")


def test_few_cases_never_make_a_lead_clear():
    rows = summarise([run_of("a", 1, 0.6, cases=[0.9] * 5), run_of("b", 1, 0.6, cases=[0.2] * 5)])
    assert rows[1].lead.interval == (pytest.approx(0.7), pytest.approx(0.7))
    assert not rows[1].lead.is_clear


@pytest.mark.parametrize("other", [
    run_of("b", 2, 0.5, cases=[0.5, 0.5]), run_of("b", 1, 0.5, cases=[0.5]), run_of("b", 1, 0.5, cases=[None, None]),
], ids=["another seed", "another case", "nothing scored"])  # fmt: skip
def test_runs_that_cannot_be_paired_have_no_lead(other):
    assert summarise([run_of("a", 1, 0.5, cases=[0.5, 0.6]), other])[1].lead is None
