from __future__ import annotations

import os
import time

import pytest
from busy_machine import busy, prepare


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="ids of processes are asked for")
def test_busy_programs_run_beside_the_block_and_no_longer():
    with busy(2) as programs:
        time.sleep(0.1)
        assert len(programs) == 2 and all(map(is_alive, programs))
    assert not any(map(is_alive, programs))
    with busy(0) as programs:
        assert programs == []


@pytest.mark.slow
def test_the_training_that_is_measured_is_the_quickstarts(tmp_path):
    request = prepare(tmp_path)
    assert request.configuration.name == "3d_fullres" and request.plan.planner == "small"
    assert request.config.monitoring.batch_picture == 0 and request.workers == 0
