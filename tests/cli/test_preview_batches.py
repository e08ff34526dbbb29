from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def preview(*arguments, root):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "AUTOSEG_ROOT": str(root)}
    line = [sys.executable, "-m", "autoseg.cli.preview_batches", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, env=environment, timeout=120)


@pytest.mark.slow
def test_a_picture_and_a_listing_of_training_patches(toy_folder, toy_workspace, tmp_path):
    picture = tmp_path / "deep" / "patches.png"
    given = ("-n", 3, "--set", "batch_size=2", "forced_fraction=1", "-o", picture, "--json")
    done = preview(toy_folder, *given, root=toy_workspace.root)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert [patch["iteration"] for patch in listed["patches"]] == [0, 0, 1]
    assert {patch["forced"] for patch in listed["patches"]} <= {"bright", "brighter"}
    assert all(0 < patch["annotated_share"] < 1 for patch in listed["patches"])
    assert np.asarray(Image.open(picture)).std() > 20


@pytest.mark.slow
def test_mistakes_are_the_users(toy_folder, toy_workspace, tmp_path):
    unplanned = preview(toy_folder, root=tmp_path)
    assert unplanned.returncode == 2 and "autoseg_plan_and_preprocess" in unplanned.stderr
    late = preview(toy_folder, "--iteration", 10**9, root=toy_workspace.root)
    assert late.returncode == 2 and "--iteration" in late.stderr
    assert not (toy_workspace.root / "results").exists()
