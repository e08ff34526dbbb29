"""Events of the processes that build batches."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

from autoseg.sampling.workers import process_context


def ask_for_ever(event, begun):
    begun.set()
    while True:
        event.is_set()


@pytest.mark.slow
def test_an_event_can_be_used_whenever_a_process_that_asks_it_is_killed():
    context = process_context(__name__)
    for number in range(4):
        event, begun = context.Event(), context.Event()
        process = context.Process(target=ask_for_ever, args=(event, begun), daemon=True)
        process.start()
        while not begun.is_set():
            time.sleep(0.01)
        time.sleep(0.003 * number)
        process.kill()
        process.join()
        setter = threading.Thread(target=event.set, daemon=True)
        setter.start()
        setter.join(5)
        assert not setter.is_alive()
        assert event.is_set()


def test_events_of_other_processes_stay_those_of_python():
    method = process_context(__name__).get_start_method()
    assert type(multiprocessing.get_context(method).Event()).__module__ == "multiprocessing.synchronize"
