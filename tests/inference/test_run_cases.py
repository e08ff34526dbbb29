from __future__ import annotations

import gc
import logging
import threading
import weakref
from itertools import repeat

import pytest

from autoseg.core.errors import DatasetError, Fault
from autoseg.inference.run_cases import run_cases

CASES = ("a", "b", "c", "d")
WAIT_S = 10


class Recorder:
    """Three steps that write down in which order they are called, and fail where they are told to."""

    def __init__(self, **failures):
        self.events, self.failures, self.progress, self.failed = [], failures, [], []

    def _event(self, step, case):
        self.events.append(f"{step} {case}")
        if f"{step}_{case}" in self.failures:
            raise self.failures[f"{step}_{case}"]

    def read(self, case):
        self._event("read", case)
        return f"{case}!"

    def compute(self, case, model, given):
        assert given == f"{case}!"
        self._event("compute", case)
        return f"{model} {given}"

    def write(self, case, output):
        self._event("write", case)

    def run(self, folder, models=None, **options):
        return run_cases(
            CASES, models or repeat("m"), self.read, self.compute, self.write, folder=folder,
            on_failure=self.failed.append, progress=lambda *news: self.progress.append(news), **options,
        )  # fmt: skip


def test_without_overlap_each_case_is_written_before_the_next_is_read(tmp_path):
    steps = Recorder()
    assert steps.run(tmp_path, read_ahead=False, write_behind=lambda output: False) == {}
    assert steps.events == [f"{step} {case}" for case in CASES for step in ("read", "compute", "write")]
    assert steps.progress == [(1, 4, "a"), (2, 4, "b"), (3, 4, "c"), (4, 4, "d")]


def test_every_output_is_that_of_its_own_case_and_model(tmp_path):
    outputs = {}
    run_cases(
        CASES, iter("1234"), str.upper, lambda case, model, given: model + given, outputs.__setitem__, folder=tmp_path
    )
    assert outputs == {"a": "1A", "b": "2B", "c": "3C", "d": "4D"}
    assert run_cases((), (), str.upper, lambda *given: given, outputs.__setitem__, folder=tmp_path) == {}


def test_the_next_case_is_read_and_the_last_is_written_while_one_is_computed(tmp_path):
    """Every step waits for one that comes later only if they overlap."""
    reading, writing = {case: threading.Event() for case in CASES}, {case: threading.Event() for case in CASES}

    def compute(case, model, given):
        index = CASES.index(case)
        following, last = CASES[index + 1 : index + 2], CASES[max(index - 1, 0) : index]
        assert all(reading[other].wait(WAIT_S) for other in following)
        assert all(writing[other].wait(WAIT_S) for other in last)
        return case

    failed = run_cases(
        CASES, repeat("m"), lambda case: reading[case].set(), compute, lambda case, output: writing[case].set(),
        folder=tmp_path,
    )  # fmt: skip
    assert failed == {}


def test_no_more_than_one_case_is_read_ahead_and_one_written_behind(tmp_path):
    read, written, surplus = [], [], []

    def compute(case, model, given):
        index = CASES.index(case)
        surplus.append((len(read) - index - 1 > 1, index - len(written) > 1))
        return case

    run_cases(CASES, repeat("m"), read.append, compute, lambda case, output: written.append(case), folder=tmp_path)
    assert surplus == [(False, False)] * 4
    assert read == written == list(CASES)


def test_an_output_that_is_too_large_is_written_before_the_next_case_is_computed(tmp_path):
    steps = Recorder()
    steps.run(tmp_path, write_behind=lambda output: output == "m a!")
    order = [event for event in steps.events if not event.startswith("read")]
    assert order[-4:] == ["compute c", "write c", "compute d", "write d"]
    assert order.index("write b") < order.index("compute c")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("step", ["read", "compute", "write"])
@pytest.mark.parametrize("case", ["a", "c", "d"])
def test_a_case_that_fails_does_not_stop_the_others(tmp_path, caplog, overlap, step, case):
    steps = Recorder(**{f"{step}_{case}": ValueError("broken")})
    with caplog.at_level(logging.ERROR):
        failed = steps.run(tmp_path, read_ahead=overlap, write_behind=lambda output: overlap)
    assert failed == {case: "ValueError: broken"}
    assert steps.failed == [case]
    assert sorted(name for _, _, name in steps.progress) == list(CASES)
    assert [done for done, _, _ in steps.progress] == [1, 2, 3, 4]
    assert f"case {case} failed: broken" in caplog.text
    assert "Traceback" in caplog.text
    assert {event for event in steps.events if event.startswith("write")} >= {f"write {o}" for o in CASES if o != case}


def test_a_fault_of_the_users_is_said_without_traceback(tmp_path, caplog):
    fault = Fault("a.nii.gz", "nothing", "an image", "Write one.")
    failed = Recorder(read_a=DatasetError([fault])).run(tmp_path)
    assert failed == {"a": str(fault)}
    assert "Traceback" not in caplog.text


def test_a_full_disk_is_named_with_the_folder(tmp_path):
    failed = Recorder(write_b=OSError(28, "No space left on device")).run(tmp_path)
    assert failed["b"].startswith(f"{tmp_path}: cannot be written")


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_an_interrupt_ends_the_run_and_its_threads(tmp_path, step):
    before = threading.active_count()
    steps = Recorder(**{f"{step}_b": KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        steps.run(tmp_path)
    assert threading.active_count() == before
    assert "write a" in steps.events
    assert "compute d" not in steps.events


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path):
    def models():
        yield "m"
        raise DatasetError([Fault("model", "nothing", "weights", "Train.")])

    steps = Recorder()
    with pytest.raises(DatasetError, match="model: found nothing"):
        steps.run(tmp_path, models())
    assert "write a" in steps.events
    assert "compute b" not in steps.events


def test_a_model_is_let_go_before_the_next_is_loaded(tmp_path):
    class Model:
        pass

    alive = []

    def models():
        for _ in CASES:
            model = Model()
            alive.append(weakref.ref(model))
            yield model
            del model
            gc.collect()
            assert alive[-1]() is None

    assert Recorder().run(tmp_path, models(), write_behind=lambda output: False) == {}
    assert len(alive) == len(CASES)
