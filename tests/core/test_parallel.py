import os
import signal
import time

import pytest

from autoseg.core.errors import FileFormatError, WorkerError
from autoseg.core.parallel import available_cores, map_unordered

DEADLY = 3


def _square(number):
    if number < 0:
        raise FileFormatError(f"case {number}: found a negative number")
    return number * number


def _die_on_three(number):
    if number == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return (os.getpid(), number)


def _nothing(number):
    return None


def _raise_bug(number):
    raise ZeroDivisionError(f"bug at {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_yields_its_result_or_its_error(workers):
    results = dict(map_unordered(_square, [2, -1, 3, 4], workers=workers))
    assert {index: results[index] for index in (0, 2, 3)} == {0: 4, 2: 9, 3: 16}
    assert isinstance(results[1], FileFormatError)
    assert "case -1" in str(results[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_none_is_a_result_and_no_items_give_none(workers):
    assert sorted(map_unordered(_nothing, [1, 2], workers=workers)) == [(0, None), (1, None)]
    assert list(map_unordered(_nothing, [], workers=workers)) == []


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


def test_other_exceptions_are_raised():
    with pytest.raises(ZeroDivisionError, match="bug at"):
        list(map_unordered(_raise_bug, [1, 2], workers=2))


def test_there_is_at_least_one_core():
    assert available_cores() >= 1
