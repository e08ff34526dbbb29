"""Number of worker processes that fit into the free memory, so that none is killed for lack of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

RESERVE = 1 << 30
"""Bytes to leave free for the rest of the system."""
GB = 1e9
"""Bytes."""


def choose_workers(
    given: int | None, need: int, *, cores: int, free: int | None, reserve: int = RESERVE
) -> tuple[int, str | None]:
    """Return the number of processes, and a warning if the memory may not suffice; otherwise None.

    Parameters
    ----------
    given
        Number chosen by the user, which is always taken. None: one process per core, but at most as many as fit into
        the memory, and at least one.
    need
        Bytes that one process needs for the largest item.
    cores
        Number of usable cores.
    free
        Free bytes of memory. None if unknown; memory then sets no limit.
    reserve
        Bytes of ``free`` that must stay free.
    """
    fitting = None if free is None else max(free - reserve, 0) // max(need, 1)
    workers = given if given is not None else cores if fitting is None else max(1, min(cores, fitting))
    if fitting is None or free is None or max(workers, 1) <= fitting:
        return workers, None
    one, there = f"about {need / GB:.1f} GB", f"{free / GB:.1f} GB are free"
    if fitting < 1:
        return workers, f"the largest case needs {one}, but {there}: the process may be killed. Free some memory"
    held = f"{fitting} processes fit" if fitting > 1 else "1 process fits"
    return workers, f"{workers} processes need {one} each for the largest case, but {there}: {held}"


def free_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process and its children can still take before the system swaps or kills them.

    This is the smallest of the machine's available memory and the free memory of the control groups of this process.
    If only the size of the memory is known (macOS), it is half of it. None if nothing is known. ``root`` is the folder
    that contains /proc and /sys.
    """
    limits = [*_available(root / "proc/meminfo"), *_group_rooms(root)]
    return min(limits) if limits else _half_of_all()


def _available(path: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024


def _half_of_all() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return None


def _group_rooms(root: Path) -> Iterator[int]:
    """Yield the free bytes of the control groups (version 1 or 2) of this process, and of the groups above them."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            is_second = controllers == ""
            if not is_second and "memory" not in controllers.split(","):
                continue
            mount = root / "sys/fs/cgroup" / ("" if is_second else "memory")
            for group in (PurePosixPath(name), *PurePosixPath(name).parents):
                yield from _room(mount / group.relative_to("/"), is_second=is_second)


def _room(group: Path, *, is_second: bool) -> Iterator[int]:
    """Yield the limit of a group minus its used bytes that cannot be dropped. Nothing if there is no limit."""
    names = ("memory.max", "memory.current") if is_second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    with suppress(OSError, ValueError):
        limit, used = (int((group / name).read_text()) for name in names)
        key = "inactive_file" if is_second else "total_inactive_file"
        statistics = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        droppable = next((int(value) for name, value in statistics if name == key), 0)
        yield max(limit - max(used - droppable, 0), 0)
