"""How many worker processes the free memory holds, so that none is killed for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

RESERVE = 1 << 30
"""Bytes that are left free for the rest of the system."""
GB = 1e9


def choose_workers(
    given: int | None, need: int, *, cores: int, free: int | None, reserve: int = RESERVE
) -> tuple[int, str | None]:
    """Return the number of processes, and what to say of it; None if there is nothing to say.

    Parameters
    ----------
    given
        What the user wants, which is taken as it is. None: one process per core, as many as the memory holds, at
        least one.
    need
        Bytes that one process needs for the largest item.
    cores
        Cores that may be used.
    free
        Bytes of memory that may be taken; None where that is not known, which then limits nothing.
    reserve
        Bytes of them that are left alone.
    """
    fitting = None if free is None else max(free - reserve, 0) // max(need, 1)
    workers = given if given is not None else cores if fitting is None else max(1, min(cores, fitting))
    if fitting is None or free is None or max(workers, 1) <= fitting:
        return workers, None
    one, there = f"about {need / GB:.1f} GB", f"{free / GB:.1f} GB are free"
    if fitting < 1:
        return workers, f"the largest case needs {one}, and {there}: the process may be killed. Free some memory"
    held = f"{fitting} processes fit" if fitting > 1 else "1 process fits"
    return workers, f"{workers} processes, each of which needs {one} for the largest case, and {there}: {held}"


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process and its children may still take before the system swaps or kills them.

    The least of what the machine has available and what the limits of this process's control groups leave; half of
    the machine's memory where only its size is known (macOS), None where nothing is. ``root`` is the folder in which
    /proc and /sys are looked for.
    """
    found = [*_available(root / "proc/meminfo"), *_group_rooms(root)]
    return min(found) if found else _half_of_all()


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
    """Yield what each limit on this process's control groups, and on those above them, leaves: versions 1 and 2."""
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
    """Yield the limit of a group minus what is used and cannot be dropped; nothing if there is no limit."""
    names = ("memory.max", "memory.current") if is_second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    with suppress(OSError, ValueError):
        limit, used = (int((group / name).read_text()) for name in names)
        key = "inactive_file" if is_second else "total_inactive_file"
        statistics = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        droppable = next((int(value) for name, value in statistics if name == key), 0)
        yield max(limit - max(used - droppable, 0), 0)
