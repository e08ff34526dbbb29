"""A log shows a sign of life every 20 seconds, however long one step, epoch or case takes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from autoseg.cli import plain_lines as module
from autoseg.cli.plain_lines import POLL_S, PlainLines, duration_text, plain_lines

LONGEST_S = 20


class Log:
    """Lines with their times, on a clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[tuple[float, str]] = []
        self.progress = PlainLines("training", lambda line: self.lines.append((self.now, line)), lambda: self.now)

    def work(self, seconds: float) -> None:
        """Let time pass as it does for the thread, which looks at the clock now and then."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + POLL_S, end)
            self.progress.remind()

    def longest_silence(self) -> float:
        times = [0.0, *(time for time, _ in self.lines), self.now]
        return max(later - earlier for earlier, later in pairwise(times))


@pytest.mark.parametrize("step", [0.01, 0.9, 7, 13, 19, 45, 600], ids=str)
@pytest.mark.parametrize("total", [12, 300])
def test_never_are_two_lines_20_seconds_apart(step, total):
    log = Log()
    for done in range(1, total + 1):
        log.work(step)
        log.progress.report(done, total, "loss 1.0")
    log.work(100)  # what comes after the last step
    assert log.longest_silence() <= LONGEST_S


def test_quick_work_is_about_ten_lines():
    log = Log()
    for done in range(1, 301):
        log.work(0.01)
        log.progress.report(done, 300, "")
    assert [line for _, line in log.lines] == [f"training: {done}/300" for done in range(30, 301, 30)]


def test_news_of_the_item_under_way_is_written_every_ten_seconds():
    log = Log()
    for block in range(1, 31):
        log.work(1)
        log.progress.report(0, 3, f"a: image, {block} of 90 blocks")
    assert [line for _, line in log.lines] == [f"training: 0/3 a: image, {block} of 90 blocks" for block in (1, 10, 20)]


def test_a_reminder_says_what_was_last_known_and_for_how_long():
    log = Log()
    log.work(12)
    assert log.lines == [(10, "training: starting  [no news for 10 s]")]
    log.progress.report(3, 40, "case_7")
    log.work(9)
    assert log.lines[1:] == [(20, "training: 3/40 case_7  [no news for 8 s]")]


def test_the_remaining_time_is_that_of_the_pace_since_the_first_report():
    log = Log()
    for done in (600, 700):  # a run that was resumed at 600
        log.work(14)
        log.progress.report(done, 1000, "")
    assert log.lines[-1] == (28, "training: 700/1000  [42 s left]")


def test_a_thread_speaks_where_the_work_itself_is_silent(monkeypatch, capsys):
    for name in ("SILENCE_S", "POLL_S"):
        monkeypatch.setattr(module, name, 0.01)
    with plain_lines("planning") as report:
        report(1, 100, "case_0")
        while "planning: 1/100 case_0\n" not in capsys.readouterr().err:
            pass
    capsys.readouterr()
    assert capsys.readouterr().err == ""  # and ends with it


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (42, "42 s"), (89.4, "89 s"), (90, "2 min"), (179, "3 min"), (5399, "1 h 30 min"), (4e5, "5 days")],
)
def test_times_are_written_as_people_say_them(seconds, expected):
    assert duration_text(seconds) == expected
