"""As many workers as memory holds, whatever says how much there is."""

from __future__ import annotations

import pytest

from autoseg.core.resources import choose_workers, free_memory

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "need", "expected"),
    [
        (16 * GIB, 3 * GIB, 5),  # 15 GiB beside the reserve
        (16 * GIB, GIB // 2, 8),  # cores
        (2 * GIB, GIB, 1),
        (None, 100 * GIB, 8),  # nothing is known
        (16 * GIB, 0, 8),
    ],
)
def test_workers_fill_the_memory_beside_the_reserve_and_no_more_than_the_cores(free, need, expected):
    assert choose_workers(None, need, cores=8, free=free) == (expected, None)


def test_one_worker_remains_with_a_warning_if_not_even_one_fits():
    workers, warning = choose_workers(None, 6 * GIB, cores=8, free=4 * GIB)
    assert workers == 1
    assert "6.4 GB" in warning and "4.3 GB are free" in warning


def test_the_number_chosen_by_the_user_is_taken_with_a_warning_how_many_fit():
    assert choose_workers(3, GIB, cores=2, free=16 * GIB) == (3, None)
    workers, warning = choose_workers(8, 4 * GIB, cores=8, free=16 * GIB)
    assert workers == 8
    assert warning == "8 processes need about 4.3 GB each for the largest case, but 17.2 GB are free: 3 processes fit"
    assert choose_workers(0, 15 * GIB, cores=8, free=16 * GIB) == (0, None), "0 is this process"
    assert "may be killed" in choose_workers(0, 16 * GIB, cores=8, free=16 * GIB)[1]


def _write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_free_memory_is_the_available_memory_of_the_machine(tmp_path):
    _write(tmp_path, {"proc/meminfo": "MemTotal: 100 kB\nMemFree: 3 kB\nMemAvailable:   70 kB\n"})
    assert free_memory(tmp_path) == 70 * 1024


def test_the_tightest_control_group_counts_and_cache_that_can_be_dropped_is_free(tmp_path):
    _write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1000000 kB\n",
            "proc/self/cgroup": "0::/outer/inner\n",
            "sys/fs/cgroup/outer/memory.max": "5000\n",
            "sys/fs/cgroup/outer/memory.current": "4000\n",
            "sys/fs/cgroup/outer/memory.stat": "anon 1000\ninactive_file 2500\n",
            "sys/fs/cgroup/outer/inner/memory.max": "max\n",
            "sys/fs/cgroup/outer/inner/memory.current": "10\n",
        },
    )
    assert free_memory(tmp_path) == 3500


def test_groups_of_the_first_version_and_of_a_container_count_too(tmp_path):
    _write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable: 1000000 kB\n",
            "proc/self/cgroup": "5:cpu:/somewhere\n4:memory:/seen/from/outside\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "900",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 300\n",
        },
    )
    assert free_memory(tmp_path) == 200


def test_free_memory_of_this_machine_is_positive():
    free = free_memory()
    assert free is None or free > 0
