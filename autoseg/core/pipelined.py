"""Process the items of a generator in a background thread, in order, while the generator makes the next item."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def background_thread() -> Iterator[Executor]:
    """Yield an executor of one thread, which ends by itself afterwards, for a generator with :func:`map_in_background`.

    A generator that is abandoned is closed by the garbage collector, at any moment in any thread, also while that one
    starts or ends a thread. To wait for the end of another there, as ``with ThreadPoolExecutor`` does, waits for ever.
    """
    pool = ThreadPoolExecutor(1)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)


def map_in_background(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function(item)`` for every item, in order, computed in ``pool`` while this thread makes the next item.

    At most two items are in process. An exception of ``function`` is raised here, at most two items later. When the
    iteration ends, for whatever reason, no call is still running in the pool.
    """
    under_way: deque[Future[Result]] = deque()
    try:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > 1:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for future in under_way:
            future.cancel()
        wait(under_way)
