import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from autoseg.core.errors import Fault, FileFormatError, WorkerError
from autoseg.core.parallel import available_cores, is_running, map_ordered, map_unordered

DEADLY = 3


def _square(number):
    if number < 0:
        raise FileFormatError(Fault(f"case {number}", "a negative number", "0 or more", "Take another."))
    return number * number


def _die_on_three(number):
    if number == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return (os.getpid(), number)


def _nothing(number):
    return None


def _power(exponent, number):
    if number == DEADLY:
        raise MemoryError("Unable to allocate 7 EiB")
    return number**exponent


def _raise_bug(number):
    raise ZeroDivisionError(f"bug at {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_yields_its_result_or_its_error(workers):
    results = dict(map_unordered(_square, [2, -1, 3, 4], workers=workers))
    assert {index: results[index] for index in (0, 2, 3)} == {0: 4, 2: 9, 3: 16}
    assert isinstance(results[1], FileFormatError)
    assert results[1].fault.where == "case -1" and str(results[1]) == str(results[1].fault)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items_whichever_is_done_first(workers):
    calls = []
    results = map_ordered(_square, [2, -1, 3], "abc", workers=workers, progress=lambda *call: calls.append(call))
    assert (results[0], results[2]) == (4, 9)
    assert isinstance(results[1], FileFormatError)
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(name for _, _, name in calls) == ["a", "b", "c"]
    assert map_ordered(_square, [], [], workers=workers) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_none_is_a_result_and_no_items_give_none(workers):
    assert sorted(map_unordered(_nothing, [1, 2], workers=workers)) == [(0, None), (1, None)]
    assert list(map_unordered(_nothing, [], workers=workers)) == []


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_own_item_and_does_not_serialise_the_others():
    results = dict(map_unordered(_die_on_three, list(range(20)), workers=2))
    assert sorted(results) == list(range(20))
    error = results.pop(DEADLY)
    assert isinstance(error, WorkerError)
    assert "item 3: found its worker process dead" in str(error)
    assert [value[1] for _, value in sorted(results.items())] == [n for n in range(20) if n != DEADLY]
    alone = [pid for pid, _ in results.values()]
    assert max(alone.count(pid) for pid in set(alone)) > 1, "the rest shares a pool"
    assert len(set(alone)) <= 6, "no process per item"


@pytest.mark.parametrize("workers", [1, 2])
def test_an_item_for_which_memory_ran_out_is_named_and_the_others_go_on(workers):
    results = dict(map_unordered(partial(_power, 2), [1, DEADLY, 5], workers=workers))
    assert str(results.pop(1)) == (
        "item 3: found too little memory (Unable to allocate 7 EiB), expected enough. Use fewer workers."
    )
    assert results == {0: 1, 2: 25}


def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time\n"
        "from pathlib import Path\n"
        "from autoseg.core.parallel import map_unordered\n"
        "def note(number):\n"
        f"    Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(map_unordered(note, [1, 2], workers=2))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    try:
        workers = _wait_until(
            lambda: actual if len(actual := [int(p.stem) for p in tmp_path.glob("*.pid")]) == 2 else []
        )
    finally:
        parent.kill()
        parent.wait()
    assert len(workers) == 2
    assert _wait_until(lambda: not any(_is_alive(worker) for worker in workers))


def _is_alive(process):
    """Whether a process runs; one that has ended may be listed until whoever inherited it asks for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ended between opening and reading
        return False if Path("/proc").is_dir() else is_running(process)


def _wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (actual := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return actual


def test_other_exceptions_are_raised():
    with pytest.raises(ZeroDivisionError, match="bug at"):
        list(map_unordered(_raise_bug, [1, 2], workers=2))


def test_there_is_at_least_one_core():
    assert available_cores() >= 1
