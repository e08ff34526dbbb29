from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
from filelock import FileLock

from autoseg.core.errors import ConfigError
from autoseg.training.run_lock import LOCK, is_running, locked

HOLD = """
import sys, time
from pathlib import Path
from autoseg.training.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_training_is_refused_until_the_first_is_gone_however_it_went(tmp_path):
    assert not is_running(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, encoding="utf-8"
    ) as first:
        assert first.stdout.readline() == "held\n"
        assert is_running(tmp_path)
        with pytest.raises(ConfigError, match=rf"process {first.pid} on "), locked(tmp_path):
            pass
        first.kill()
    assert not is_running(tmp_path)
    with locked(tmp_path):
        pass


def test_a_look_at_the_lock_while_a_training_starts_does_not_refuse_it(tmp_path):
    is_held = threading.Event()

    def look():
        with FileLock(tmp_path / LOCK):
            is_held.set()
            time.sleep(0.2)

    thread = threading.Thread(target=look)
    thread.start()
    is_held.wait()
    with locked(tmp_path):
        pass
    thread.join()
