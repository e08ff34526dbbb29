"""The training time of a run, over all its sessions."""

from __future__ import annotations

import time

import torch

from autoseg.training.run_state import RunState
from autoseg.training.trainer import TURN


class Clock:
    """Training time of a run: what its progress says, and what has passed since.

    Parameters
    ----------
    state
        Of the run; whoever calls :meth:`take` adds the time to its progress.
    """

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.share = 0.0
        """Share of the time limit that had passed at the last step, 0 to 1; 0 without a limit."""
        self._taken = time.monotonic()

    @property
    def since(self) -> float:
        """Seconds that the progress does not know of yet."""
        return time.monotonic() - self._taken

    @property
    def seconds(self) -> float:
        """Training time up to now."""
        return self.state.progress.seconds + self.since

    @property
    def is_out(self) -> bool:
        """Whether the training time of all sessions is used up."""
        limit = self.state.config.max_runtime
        return limit is not None and self.seconds >= limit

    def take(self) -> float:
        """Return the seconds since the last call."""
        now = time.monotonic()
        passed, self._taken = now - self._taken, now
        return passed

    def agree_on_share(self, iteration: int) -> float:
        """Return the share of the time limit that has passed; several ranks agree on it every few steps."""
        limit, ranks = self.state.config.max_runtime, self.state.parts.ranks
        share = 0.0 if limit is None else min(1.0, self.seconds / limit)
        if ranks.size == 1 or limit is None:
            self.share = share
        elif iteration % TURN == 0:
            self.share = float(ranks.sum(torch.tensor([share], device=self.state.parts.device))) / ranks.size
        return self.share
