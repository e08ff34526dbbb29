"""The measurement of training trains, on whatever device is there."""

from __future__ import annotations

import pytest
import torch
from training_cases import planned, write_cases
from training_steps import batches, build, split, throughput


@pytest.mark.slow
def test_steps_are_timed_as_a_whole_and_part_by_part(tmp_path):
    device, configuration = torch.device("cpu"), planned("2d", "quick")
    sources = write_cases(tmp_path, "2d", "quick")
    parts, _ = build(configuration, device, compiles=False)
    row = throughput(parts, batches(sources, configuration, device, 0, 0, 3), 1, 2)
    assert row["iterations_per_s"] > 0 and 0 <= row["data_wait_share"] <= 1
    assert row["first_loss"] > 0 and row["last_loss"] > 0
    times = split(parts, batches(sources, configuration, device, 0, 0, 2), 2)
    assert set(times) == {"data wait", "forward", "loss", "backward", "optimiser"}
