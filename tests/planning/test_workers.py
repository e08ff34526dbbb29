"""As many processes as cores and free memory allow, unless the user says how many."""

from __future__ import annotations

import logging

import pytest

from autoseg.core.resources import RESERVE
from autoseg.planning import workers
from autoseg.planning.workers import fitting_workers


@pytest.fixture
def three_gb_free(monkeypatch):
    """A machine of 8 cores and 3 GB beside the reserve."""
    monkeypatch.setattr(workers, "free_memory", lambda: 3_000_000_000 + RESERVE)
    monkeypatch.setattr(workers, "available_cores", lambda: 8)


def test_as_many_processes_as_memory_holds(three_gb_free, caplog):
    with caplog.at_level(logging.INFO):
        assert fitting_workers(None, 1_000_000_000, n_cases=20) == 3
        assert fitting_workers(None, 1_000_000_000, n_cases=2) == 2
        assert fitting_workers(None, 1_000_000, n_cases=20) == 8
    assert caplog.messages == ["3 processes on 8 cores: the largest case needs about 1.0 GB"]


def test_more_processes_than_memory_holds_are_the_users_wish_with_a_warning(three_gb_free, caplog):
    assert fitting_workers(6, 1_000_000_000, n_cases=20) == 6
    assert fitting_workers(6, 1_000_000_000, n_cases=3) == 3, "no more processes than cases"
    (warning,) = caplog.messages
    assert warning.startswith("6 processes need about 1.0 GB each")


class InOrder:
    """Cluster whose only worker is this process."""

    n_workers = n_per_machine = 1

    def map_unordered(self, function, items):
        yield from enumerate(map(function, items))


def test_a_cluster_stays_as_it_is_whatever_the_memory_of_this_machine(three_gb_free, caplog):
    cluster = InOrder()
    assert fitting_workers(cluster, 1_000_000_000_000, n_cases=20) is cluster
    assert not caplog.messages
