"""Memory of a column: what is reckoned holds in a process, and does not grow with the planes of the volume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from volume_examples import make_predictor, noise, write_volume

from autoseg.core.boxes import Box
from autoseg.inference.blockwise import VolumePredictor
from autoseg.inference.volume_memory import MemoryNeed, memory_budget, resident_memory


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory of the process from Linux")
def test_a_process_stays_within_its_memory(tmp_path):
    """In memory, this volume takes 0.3 GB as float32 and as much in each of several copies and sums."""
    make_predictor(tmp_path / "model")
    script, limit = Path(__file__).with_name("memory_of_volume.py"), 1.4
    command = [sys.executable, script, tmp_path / "model", tmp_path, "192", "640", "640", str(limit)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    before, peak = map(int, done.stdout.split())
    assert before < peak < limit * 1e9
    assert "1 column of up to" not in done.stderr


def test_a_column_takes_more_the_wider_it_is_and_not_the_deeper(tmp_path):
    predictor = make_predictor(tmp_path / "model")
    shape = (64, 40, 40)
    volume = VolumePredictor.open(predictor, write_volume(tmp_path / "v.zarr", noise(shape)))
    need = MemoryNeed(volume.prepared[0], n_outputs=2, n_stacked=1, written_bytes=1, shard_depth=64, fixed=0)
    whole = need.bytes_of(Box.whole(shape))
    assert need.bytes_of(Box((0, 0, 0), (32, 40, 40))) == whole
    assert need.bytes_of(Box((0, 0, 0), (64, 20, 40))) < whole
    assert MemoryNeed(volume.prepared[0], 2, 1, 9, 64, 0).bytes_of(Box.whole(shape)) == whole + 2 * 8 * 64 * 40 * 40
    assert MemoryNeed(volume.prepared[0], 2, 1, 1, 64, 7).bytes_of(Box.whole(shape)) == whole + 7


def test_the_memory_that_is_given_counts_what_the_process_has():
    assert memory_budget(100.0) == pytest.approx(100e9 - resident_memory(), rel=1e-3)
    assert memory_budget(None) > 0
