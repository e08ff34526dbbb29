"""The processes (ranks) of one training, as its parts know them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _as_it_is(value: Any) -> Any:
    """Return ``value``: what one process has is already that of all processes."""
    return value


@dataclass(frozen=True, slots=True)
class Ranks:
    """Place of this process among those of a training, and the means to agree.

    Every rank must make the same calls in the same order.

    The random numbers of a sample follow from (seed, iteration, sample), so ranks that build their shares of a batch
    build together the batch of one process.
    """

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""
    sum: Callable[[Any], Any] = _as_it_is
    """Tensor (any shape, equal on all ranks) -> its sum over ranks, differentiable, on the same device."""
    any: Callable[[bool], bool] = _as_it_is
    """Flag -> whether it is true on any rank. Waits for all ranks, so it also keeps them together."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def share(self, n: int) -> range:
        """Return the items of ``range(n)`` that belong to this rank, contiguous; () for some ranks if n < ``size``."""
        return range(n * self.rank // self.size, n * (self.rank + 1) // self.size)


ONE_PROCESS = Ranks()
