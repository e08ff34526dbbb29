from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from autoseg.core.pipelined import background_thread, map_in_background


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as made:
        yield made


def test_it_maps_in_order(pool):
    assert list(map_in_background(pool, lambda item: item**2, range(9))) == [item**2 for item in range(9)]
    assert list(map_in_background(pool, lambda item: item, [])) == []


def test_the_next_item_is_made_while_the_last_is_worked_on(pool):
    """The function waits until a later item is made, which would never happen one after the other."""
    made = [threading.Event() for _ in range(4)]

    def items():
        for index, event in enumerate(made):
            event.set()
            yield index

    def work(index):
        return made[min(index + 1, 3)].wait(10)

    assert list(map_in_background(pool, work, items())) == [True] * 4


def test_at_most_two_items_are_under_way(pool):
    done = []

    def items():
        for index in range(6):
            assert index - len(done) <= 2
            yield index

    assert list(map_in_background(pool, done.append, items())) == [None] * 6


@pytest.mark.parametrize("place", ["item", "function"])
def test_errors_are_raised_and_no_call_continues(pool, place):
    running = []

    def items():
        yield from range(3)
        if place == "item":
            raise KeyError("made")

    def work(item):
        running.append(item)
        time.sleep(0.02)
        running.remove(item)
        if place == "function" and item == 1:
            raise KeyError("worked")
        return item

    with pytest.raises(KeyError, match="made" if place == "item" else "worked"):
        list(map_in_background(pool, work, items()))
    assert not running
    assert pool.submit(len, running).result() == 0


def test_ending_the_iteration_early_waits_for_items_in_process(pool):
    finished = []

    def work(item):
        time.sleep(0.02)
        finished.append(item)

    for _ in map_in_background(pool, work, range(100)):
        break
    n_finished = len(finished)
    assert n_finished <= 3
    time.sleep(0.05)
    assert len(finished) == n_finished


def test_a_generator_that_is_abandoned_waits_for_no_thread_to_end(monkeypatch):
    """Python would wait for ever if its garbage collector closed one while a thread begins or ends."""
    threads = []

    def squares():
        with background_thread() as pool:
            yield from map_in_background(
                pool, lambda item: threads.append(threading.current_thread()) or item**2, range(9)
            )

    abandoned = squares()
    assert next(abandoned) == 0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", lambda *_: pytest.fail("waits for a thread"))
        abandoned.close()
    threads[0].join(10)
    assert not threads[0].is_alive()
