"""The row on operations for electron microscopy: both sides run on the same patches, and the check counts changes."""

from __future__ import annotations

from dataclasses import replace

from benchmark_rows import em
from benchmark_rows.rounds import run_variant
from benchmark_rows.row import Variant

SMALL = {"patch": [5, 24, 24], "patches": 8, "channels": 1, "shapes": [[20, 48, 48]], "is_sparse": False}


def test_an_operation_is_timed_beside_the_reading(tmp_path):
    variant = Variant("slips", {**SMALL, "operation": "misalignment"})
    outcome = run_variant("em", replace(em.EM, rounds=1), variant, tmp_path, None)
    assert outcome.holds, outcome.check
    assert outcome.ours_s > 0 and outcome.theirs_s is not None and outcome.theirs_s > 0
