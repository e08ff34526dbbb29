"""A cluster of real processes does what one process does, also if a worker dies while it works."""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest
from dask_processes import cluster_of, scheduler, workers

from autoseg.core import cluster as cluster_module
from autoseg.core import cluster_site
from autoseg.core.cluster import DaskCluster, open_cluster
from autoseg.core.cluster_address import Address, parse_address
from autoseg.core.cluster_site import Site
from autoseg.core.errors import ConfigError, Fault, FileFormatError, WorkerError
from autoseg.core.parallel import map_ordered, map_unordered


def _square(number):
    if number < 0:
        raise FileFormatError(Fault(f"case {number}", "a negative number", "0 or more", "Take another."))
    return None if number == 0 else number * number


def _raise_bug(number):
    raise ZeroDivisionError(f"bug at {number}")


def _process(number, pause_s=0.05):
    time.sleep(pause_s)
    return os.getpid()


def _die_until(marks, limit, number):
    """Kill this worker at number 3, at most ``limit`` times."""
    time.sleep(0.02)
    if number == 3:
        count = len(list(marks.iterdir()))
        if count < limit:
            (marks / str(count)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return number


class Watched(list):
    """Items that count how many were taken."""

    taken = 0

    def __getitem__(self, index):
        self.taken += 1
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def scheduler_file(tmp_path_factory):
    with cluster_of(tmp_path_factory.mktemp("cluster"), ("--resources", "GPU=1"), ()) as path:
        yield path


@pytest.fixture(scope="module")
def cluster(scheduler_file):
    with open_cluster(str(scheduler_file), [Path("/")]) as opened:
        while len(opened.await_workers()) < 2:
            time.sleep(0.05)
        yield opened


def test_items_yield_what_they_yield_in_one_process(cluster):
    items = [2, 0, -1, 3, 4]
    here, there = (dict(map_unordered(_square, items, workers=where)) for where in (1, cluster))
    assert isinstance(there[2], FileFormatError)
    assert str(there.pop(2)) == str(here.pop(2))
    assert there == here == {0: 4, 1: None, 3: 9, 4: 16}
    calls = []
    assert map_ordered(_square, [3, 1], "ab", workers=cluster, progress=lambda *call: calls.append(call)) == [9, 1]
    assert sorted(name for *_, name in calls) == ["a", "b"]
    assert list(map_unordered(_square, [], workers=cluster)) == []


def test_other_exceptions_are_raised(cluster):
    with pytest.raises(ZeroDivisionError, match=r"bug at \d"):
        list(map_unordered(_raise_bug, [1, 2], workers=cluster))


def test_each_worker_has_two_items_at_most_and_those_left_over_are_dropped(cluster):
    items = Watched(range(1000))
    results = map_unordered(_square, items, workers=cluster)
    for number in range(1, 8):
        next(results)
        assert items.taken <= number + 4
    results.close()
    assert dict(map_unordered(_square, [5], workers=cluster)) == {0: 25}


def test_a_worker_gets_a_second_item_only_where_items_are_short(cluster, monkeypatch):
    monkeypatch.setattr(cluster_module, "QUICK_S", 0.0)
    items = Watched(range(1000))
    results = map_unordered(_square, items, workers=cluster)
    for number in range(1, 8):
        next(results)
        assert items.taken <= number + 2
    results.close()


def test_items_hold_the_resource_if_a_worker_offers_it(cluster, scheduler_file):
    assert len(set(map_ordered(_process, range(6), "abcdef", workers=cluster))) == 2
    with open_cluster(str(scheduler_file), [], resource="GPU") as opened:
        assert len(set(map_ordered(_process, range(4), "abcd", workers=opened))) == 1
    with open_cluster(str(scheduler_file), [], resource="TPU") as opened:
        assert len(set(map_ordered(_process, range(6), "abcdef", workers=opened))) == 2


def test_a_worker_that_dies_costs_its_own_item_only_and_that_is_repeated(cluster, tmp_path, caplog):
    results = map_ordered(partial(_die_until, tmp_path, 1), range(12), "abcdefghijkl", workers=cluster)
    assert results == list(range(12))
    assert len(list(tmp_path.iterdir())) == 1
    assert [record for record in caplog.messages if "lost worker" in record and "with 3" in record]


@pytest.mark.slow
def test_an_item_is_given_up_after_three_lost_workers(cluster, tmp_path):
    results = dict(map_unordered(partial(_die_until, tmp_path, 99), range(6), workers=cluster))
    assert str(results.pop(3)).startswith("item 3: found 3 workers lost while they had it, expected a result.")
    assert results == {number: number for number in (0, 1, 2, 4, 5)}
    assert len(list(tmp_path.iterdir())) == 3


def test_workers_need_the_files_and_the_software_of_this_process(cluster, scheduler_file, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    needs = Site(None, (str(tmp_path), str(gone)), cluster_site.versions())
    with pytest.raises(ConfigError, match=rf"worker tcp://\S+ \(no {gone}\).*expected the software and files"):
        DaskCluster(cluster.client, "local:2", needs).await_workers()
    own = dict(cluster_site.versions())
    monkeypatch.setattr(cluster_site, "versions", lambda: tuple((own | {"autoseg": "9.9"}).items()))
    with (
        pytest.raises(ConfigError, match=r"autoseg 0.1.0 \(source \w+\) instead of 9.9"),
        open_cluster(str(scheduler_file), []),
    ):
        pass


def test_relative_paths_mean_the_same_on_workers(cluster, scheduler_file, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with open_cluster(str(scheduler_file), [Path("data")]) as opened:
        assert map_ordered(Path.absolute, [Path("data")], "a", workers=opened) == [tmp_path / "data"]


@pytest.mark.slow
def test_the_loss_of_the_scheduler_ends_the_work_with_a_message(tmp_path):
    with scheduler(tmp_path) as path, workers(path, "--no-nanny"), open_cluster(str(path), []) as opened:
        results = map_unordered(_process, list(range(99)), workers=opened)
        next(results)
        os.kill(opened.client.run_on_scheduler(os.getpid), signal.SIGKILL)
        with pytest.raises(WorkerError, match="found its scheduler lost"):
            list(results)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("tcp://10.0.0.1:8786", Address("tcp://10.0.0.1:8786", "tcp://10.0.0.1:8786")),
        ("tls://node-1.cluster:9000", Address("tls://node-1.cluster:9000", "tls://node-1.cluster:9000")),
        ("local:2", Address("local:2", n_local=2)),
    ],
)
def test_addresses_are_schedulers_or_numbers_of_processes(given, expected):
    assert parse_address(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("local", "Write local:2"),
        ("local:0", "Write local:2"),
        ("local:-1", "Write local:2"),
        ("10.0.0.1:8786", r"Write tcp://10\.0\.0\.1:8786"),
        ("http://10.0.0.1:8787", "that of its page"),
        ("tcp://10.0.0.1", r"Write for example tcp://10\.0\.0\.1:8786"),
        ("tcp://node:0", "no host and port"),
        ("tcp://:8786", "no host and port"),
        ("missing.json", "dask scheduler --scheduler-file missing.json"),
        ("", "neither an address nor a file"),
        ("empty.json", "no address of a scheduler"),
        ("list.json", "no address of a scheduler"),
        ("other.json", r"found '5', expected tcp"),
    ],
)
def test_wrong_addresses_are_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"empty.json": "", "list.json": "[1]", "other.json": '{"address": 5}'}.items():
        Path(name).write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        parse_address(given)
    assert str(raised.value).startswith(f"--cluster {given}: ")


@pytest.mark.parametrize("answers", [False, True], ids=["nobody", "a program that is no scheduler"])
def test_an_address_without_a_scheduler_is_refused_in_time(answers, monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not answers:
            server.close()
        begin = time.monotonic()
        with (
            pytest.raises(ConfigError, match=r"found no scheduler .*dask scheduler --port 8786"),
            open_cluster(f"tcp://127.0.0.1:{port}", []),
        ):
            pass
        assert time.monotonic() - begin < 5
