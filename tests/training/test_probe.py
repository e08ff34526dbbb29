"""The probe runs the run itself, for a few steps, and leaves no trace."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from autoseg.dataset.dataset import Dataset
from autoseg.training.prepare import prepare_fold
from autoseg.training.probe import seconds_per_iteration
from autoseg.training.run_config import RunOptions


@pytest.mark.slow
def test_a_step_of_the_probe_takes_part_of_its_time_and_nothing_is_kept(toy_folder, toy_workspace, tmp_path):
    torch.set_num_threads(1)
    options = RunOptions("0", iterations=500, device="cpu", workers=0)
    request = replace(
        prepare_fold(toy_workspace, Dataset.load(toy_folder), options), folder=tmp_path / "run" / "fold_0"
    )
    began = time.monotonic()
    found = seconds_per_iteration(request)
    assert 0 < 6 * found < time.monotonic() - began
    assert not any(tmp_path.iterdir())
