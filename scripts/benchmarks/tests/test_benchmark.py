from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import benchmark
import numpy as np
import pytest
from benchmark_rows import ROWS, resampling, rounds
from benchmark_rows.rounds import Outcome, run_variant
from benchmark_rows.row import Finding, Row, Variant

from autoseg.core.errors import AutosegError, ConfigError

SMALL = Variant("small", {"before": [9, 10, 8], "after": [7, 14, 11], "labels": 4}, floor=1e-6)


@pytest.mark.parametrize("row", [resampling.IMAGE, resampling.CODES], ids=["image", "codes"])
def test_both_sides_are_timed_and_agree(tmp_path, row):
    outcome = run_variant("resampling", replace(row, rounds=1), SMALL, tmp_path / "made", None)
    assert outcome.holds, outcome.check
    assert outcome.reached
    assert outcome.ours_s > 0
    assert outcome.theirs_s > 0
    assert outcome.ratio == pytest.approx(outcome.theirs_s / outcome.ours_s)


def test_a_wrong_result_is_seen(tmp_path):
    def spoil(folder: Path, settings) -> Finding:
        np.save(folder / "theirs.npy", np.load(folder / "theirs.npy") + 1)
        return resampling.check_codes(folder, settings)

    row = replace(resampling.CODES, rounds=1, check=spoil)
    assert not run_variant("codes", row, SMALL, tmp_path / "made", None).holds


def test_a_row_that_needs_the_peer_is_timed_alone_without_it(tmp_path):
    variant = Variant("small", {**SMALL.settings, "axis": 0}, floor=1000)
    outcome = run_variant("anisotropic", replace(resampling.ANISOTROPIC, rounds=1), variant, tmp_path / "made", None)
    assert (outcome.theirs_s, outcome.ratio, outcome.check) == (None, None, "not compared")


@pytest.mark.parametrize(
    ("wanted", "reached"), [({"max_seconds": 0.0}, False), ({"bound_gb": 1e-6}, False), ({"max_seconds": 60}, True)]
)
def test_what_is_wanted_is_held_against_what_was_measured(tmp_path, wanted, reached):
    variant = replace(SMALL, floor=None, **wanted)
    row = replace(resampling.CODES, rounds=1, theirs=None, check=lambda folder, settings: Finding("made", holds=True))
    assert run_variant("codes", row, variant, tmp_path / "made", None).reached is reached


@pytest.mark.parametrize(("seconds", "asked"), [(0.1, 4), (6.0, 1)], ids=["warmed up", "long: counts at once"])
def test_a_long_run_is_not_repeated(monkeypatch, tmp_path, seconds, asked):
    runs = []

    class Side(ExitStack):
        def __init__(self, *_) -> None:
            super().__init__()

        def ask(self, what):
            runs.append(what)
            return {"seconds": seconds, "added": 0, "peak": 0}

    monkeypatch.setattr(rounds, "Side", Side)
    check = lambda folder, settings: Finding("made", holds=True)  # noqa: E731
    row = replace(resampling.CODES, rounds=3, theirs=None, check=check)
    assert run_variant("codes", row, SMALL, tmp_path / "made", None).ours_s == seconds
    assert runs == ["run"] * asked + ["save"]


def test_a_side_that_fails_is_named_with_its_log(tmp_path):
    row = Row("none", (SMALL,), lambda folder, settings: None, "resampling_ours:image", resampling.check_image)
    with pytest.raises(AutosegError, match=r"(?s)resampling_ours:image ended without an answer.*FileNotFoundError"):
        run_variant("none", row, SMALL, tmp_path / "made", None)


def test_the_command_prints_what_it_measured(monkeypatch, capsys):
    row = replace(resampling.CODES, variants=(SMALL,), rounds=1)
    monkeypatch.setitem(ROWS, "resample_codes", row)
    for flags, read in (((), str), (("--json",), json.loads)):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", "resample_codes", *flags])
        with pytest.raises(SystemExit) as left:
            benchmark.main()
        assert left.value.code == 0
        printed = read(capsys.readouterr().out)
        assert "100.0000 % identical" in (printed if flags == () else printed["rows"][0]["check"])


@pytest.mark.parametrize(
    ("against", "message"),
    [(("other", "python"), "expected 'nnunetv2-python PATH'"), (("nnunetv2-python", "/nowhere"), "found no program")],
)
def test_a_peer_that_is_not_there_is_named(against, message):
    with pytest.raises(ConfigError, match=message):
        benchmark.peer_python(against)


@pytest.mark.parametrize("behind", [["--json"], ["--quiet", "resample_codes"]])
def test_what_follows_the_peer_is_not_taken_for_it(monkeypatch, behind):
    taken = []
    monkeypatch.setattr(benchmark, "peer_python", taken.append)
    monkeypatch.setitem(ROWS, "resample_codes", replace(resampling.CODES, variants=()))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "resample_codes", "--against", "nnunetv2-python", "P", *behind])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert taken == [("nnunetv2-python", "P")]


def test_the_table_says_what_was_missed_and_what_is_wrong():
    one = Outcome(
        "row",
        "a",
        2.0,
        3.0,
        1.5,
        Variant("a", floor=4, max_seconds=1).wanted,
        0.1,
        0.2,
        0.5,
        "differs",
        holds=False,
        reached=False,
    )
    line = benchmark.table([one])[-1]
    assert line == "| row: a | 2 | 3 | 1.5 | 4, 1 s (missed) | 0.10 | 0.2 | differs (WRONG) |"


@pytest.mark.parametrize("name", ROWS)
def test_every_row_names_functions_that_exist(name):
    folder = Path(benchmark.__file__).parent / "benchmark_rows"
    for side in (ROWS[name].ours, ROWS[name].theirs):
        if side is not None:
            module, function = side.split(":")
            assert f"def {function}(" in (folder / f"{module}.py").read_text()
