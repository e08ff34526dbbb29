"""The command through its entry point: what ELEKTRONN's users have becomes a data set that is planned as any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_header


def run(module, *arguments):
    line = [sys.executable, "-m", f"autoseg.cli.{module}", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, env=environment, timeout=120)


def write_cubes(folder, n=3):
    rng = np.random.default_rng(0)
    for index in range(n):
        labels = (rng.random((12, 10, 8)) < 0.3).astype(np.int16)
        labels[:4] = -1
        with h5py.File(folder / f"raw_{index}.h5", "w") as file:
            file["raw"] = rng.integers(0, 255, (14, 12, 8), dtype=np.uint8)
        with h5py.File(folder / f"lab_{index}.h5", "w") as file:
            file["labels"] = labels
            if index == n - 1:
                file["info"] = [[1, 0, 0], [0, 0, 1]]
    images = [f"{folder}/raw_{index}.h5:raw" for index in range(n)]
    return images, [f"{folder}/lab_{index}.h5:labels" for index in range(n)]


@pytest.mark.slow
def test_cubes_become_a_data_set_that_can_be_planned(tmp_path):
    images, labels = write_cubes(tmp_path)
    new = tmp_path / "Dataset001_Barrier"
    result = run(
        "convert_elektronn", "-o", new, "--images", *images, "--labels", *labels, "--names", "background", "barrier",
        "vesicles", "--priorities", 1, 1, 0.2, "--spacing", 0.01, 0.01, 0.03,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "3 cases of the classes background, barrier, vesicles" in result.stderr
    dataset = Dataset.load(new)
    assert dataset.case_names == ("raw_0", "raw_1", "raw_2")
    assert dataset.json["cases"]["raw_2"] == {"annotated": ["background"], "absent": ["vesicles"], "priority": 0.2}
    shape, geometry = read_header(dataset.case("raw_0").images[0])
    assert shape == (1, 8, 12, 14)
    np.testing.assert_allclose(geometry.spacing, (0.03, 0.01, 0.01), rtol=1e-6)
    checked = run("plan_and_preprocess", new, "--check-only", "--json", "-j", 1)
    assert checked.returncode == 0, checked.stderr
    assert set(json.loads(checked.stdout)["cases"]) == {"raw_0", "raw_1", "raw_2"}


@pytest.mark.slow
def test_a_users_mistake_is_named_and_nothing_is_written(tmp_path):
    images, labels = write_cubes(tmp_path)
    new = tmp_path / "new"
    uneven = run("convert_elektronn", "-o", new, "--images", *images, "--labels", *labels[:2])
    assert uneven.returncode == 2
    assert "--labels: found 2 values, expected 3" in uneven.stderr
    wrong = run("convert_elektronn", "-o", new, "--images", *images, "--labels", *(f"{name}x" for name in labels))
    assert wrong.returncode == 2
    assert wrong.stderr.count("expected a data set 'labelsx'") == 3
    assert "Traceback" not in wrong.stderr + uneven.stderr
    assert not new.exists()
