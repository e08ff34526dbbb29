"""The length of a training that must not take long follows from the time that a step takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from autoseg.cli import pace as module
from autoseg.cli.pace import Pace, choose_iterations, choose_pace, length_text, measure_pace


@pytest.mark.parametrize(
    ("step", "expected"), [(1e-9, 300), (0.6, 300), (0.61, 290), (0.9, 200), (1.0, 180), (1.2, 150), (60.0, 150)]
)
def test_as_many_iterations_as_fit_three_minutes_from_150_to_300(step, expected):
    assert choose_iterations(step) == expected
    assert expected == 150 or expected * step <= 180


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({2: 0.6}, Pace(0.6)),  # nothing to choose from: torch's own number
        ({2: 0.6, 1: 1.0}, Pace(0.6)),  # an idle machine
        ({2: 0.6, 1: 0.58}, Pace(0.6)),  # no clear difference
        ({2: 1.8, 1: 1.0}, Pace(1.0, 1)),  # beside a busy process
        ({8: 0.5, 4: 0.3}, Pace(0.3, 4)),
    ],
)
def test_fewer_threads_are_taken_only_where_they_are_clearly_faster(steps, expected):
    assert choose_pace(steps) == expected


def test_the_text_says_how_long_and_why_so_long():
    assert "about 4 min on this machine: 150 iterations, the fewest that make a good model" in length_text(
        150, Pace(1.4)
    )
    assert "about 60 s on this machine: 300 iterations, more would gain little" in length_text(300, Pace(0.2))
    assert "about 3 min on this machine: 240 iterations, what fits 3 min" in length_text(240, Pace(0.75))
    assert "thread" not in length_text(240, Pace(0.75))
    assert length_text(240, Pace(0.75, 1)).endswith("shares the processor, so 1 thread is faster than more.")
    assert length_text(240, Pace(0.75, 4)).endswith("so 4 threads are faster than more.")


@pytest.mark.parametrize(("threads", "is_cpu", "timed"), [(2, True, [None, 1]), (1, True, [None]), (8, False, [None])])
def test_half_of_the_threads_are_tried_where_there_are_several_and_they_matter(
    monkeypatch, tmp_path, threads, is_cpu, timed
):
    asked = []

    def time_steps(root, dataset, configuration, device, given):
        asked.append(given)
        return given or threads, 1.0 if given is None else 0.5, is_cpu

    monkeypatch.setattr(module, "_time_steps", time_steps)
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda n, context: ThreadPoolExecutor(n))
    found = measure_pace(tmp_path, "D", "2d", "cpu")
    assert asked == timed
    assert found == (Pace(0.5, 1) if len(timed) == 2 else Pace(1.0))
