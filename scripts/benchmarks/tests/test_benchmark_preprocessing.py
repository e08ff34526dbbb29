"""Our side of the rows on preprocessing runs, and its checks see what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import benchmark
import numpy as np
import pytest
from benchmark_rows import measuring, preprocessing, resampling
from benchmark_rows.rounds import run_variant
from benchmark_rows.row import Variant

TINY = {"shape": [12, 20, 18], "organs": 2, "spacing": [2.0, 1.0, 1.0], "target": [1.5, 1.2, 1.2]}
EXPECTED = {"expected": [16, 17, 15], "is_cached": True}


def test_a_case_goes_from_its_files_to_the_cache_and_a_difference_is_seen(tmp_path):
    row = replace(preprocessing.CASE, rounds=1)
    outcome = run_variant("case", row, Variant("tiny", TINY), tmp_path, None)
    assert outcome.check == "not compared"
    assert outcome.ours_s > 0
    ours = np.load(tmp_path / "ours.npz")
    assert ours["image"].shape == (1, 16, 17, 15)
    np.savez(tmp_path / "theirs.npz", image=ours["image"], codes=ours["codes"][None].astype(int) - (ours["codes"] == 0))
    assert preprocessing.check_case(tmp_path, TINY).holds, "nnU-Net writes -1 outside of the body"
    np.savez(tmp_path / "theirs.npz", image=ours["image"] + 1e-3, codes=ours["codes"][None])
    assert not preprocessing.check_case(tmp_path, TINY).holds


@pytest.mark.parametrize("settings", [TINY | EXPECTED, TINY | {"expected": TINY["shape"]}], ids=["cached", "measured"])
def test_memory_is_held_against_its_bound(tmp_path, settings):
    row = replace(measuring.MEMORY, rounds=1)
    variant = Variant("tiny", settings | {"ending": ".nii"}, bound_gb=1)
    outcome = run_variant("memory", row, variant, tmp_path, None)
    assert outcome.holds, outcome.check
    assert outcome.reached
    assert 0.05 < outcome.ours_peak_gb < 1


def test_percentiles_are_compared(tmp_path):
    settings = {"cases": 2, "shape": [10, 24, 40], "organs": 2}
    run_variant("fingerprint", replace(measuring.FINGERPRINT, rounds=1), Variant("tiny", settings), tmp_path, None)
    found = json.loads((tmp_path / "ours.json").read_text())
    (tmp_path / "theirs.json").write_text(json.dumps(found))
    assert measuring.check_fingerprint(tmp_path, settings).holds
    found["foreground_intensity_properties_per_channel"]["0"]["percentile_99_5"] *= 1.002
    (tmp_path / "theirs.json").write_text(json.dumps(found))
    assert not measuring.check_fingerprint(tmp_path, settings).holds


def test_a_changed_label_file_redoes_one_case(tmp_path):
    row = replace(preprocessing.AGAIN, rounds=1)
    outcome = run_variant("again", row, Variant("tiny", {"cases": 3}), tmp_path, None)
    assert outcome.holds, outcome.check
    assert outcome.check == "redone after a change: 2d 1, 3d_fullres 1"


def test_variants_on_real_files_need_the_folder_with_them(tmp_path):
    every, name = len(resampling.CODES.variants), resampling.EXAMPLE["file"]
    assert len(benchmark.usable_variants(resampling.CODES, None)) == every - 1
    assert len(benchmark.usable_variants(resampling.CODES, tmp_path)) == every - 1
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
    usable = benchmark.usable_variants(resampling.CODES, tmp_path)
    assert len(usable) == every
    assert [item.settings["file"] for item in usable if "file" in item.settings] == [str(tmp_path / name)]
