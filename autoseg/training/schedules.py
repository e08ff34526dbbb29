"""Learning-rate schedules: the factor of the highest rate at every step of a run."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from autoseg.core.errors import ConfigError

Schedule = Callable[[float, float], float]
"""(share of the run done after warm-up, 0 to 1; steps done after warm-up) -> factor of the highest learning rate."""

LEARNING_RATE_TABLE = "optimizer.table"


def polynomial(done: float, steps: float) -> float:
    """Factor ``(1 - done) ** 0.9``. Source: nnU-Net ``training/lr_scheduler/polylr.py``, there once per epoch."""
    return math.pow(max(0.0, 1 - done), 0.9)


def cosine(done: float, steps: float) -> float:
    """Half a cosine from 1 to 0 (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def constant(done: float, steps: float) -> float:
    """Factor 1 at every step."""
    return 1.0


def exponential(per_thousand_steps: float) -> Schedule:
    """Return a schedule that multiplies the rate by ``per_thousand_steps`` (in (0, 1]) every 1000 steps, smoothly.

    Source: ELEKTRONN ``LR_decay``, there in one jump at each multiple of 1000, step 0 included.
    """

    def factor(done: float, steps: float) -> float:
        return math.pow(per_thousand_steps, steps / 1000)

    return factor


SCHEDULES: dict[str, Callable[[float], Schedule]] = {
    "poly": lambda _: polynomial,
    "cosine": lambda _: cosine,
    "constant": lambda _: constant,
    "exponential": exponential,
}
"""Name -> function of the decay per 1000 steps, which ``exponential`` alone uses."""


def rate_from_table(table: Sequence[tuple[int, float]], step: int) -> tuple[float, int] | None:
    """Return the rate that a table sets for ``step``, and the step at which it was set; None before the first entry.

    Parameters
    ----------
    table
        (step, learning rate), ascending steps. A rate holds from its step on, until the next entry.

    Notes
    -----
    Source: ELEKTRONN ``LR_schedule``. Differs in that entries are sorted when they are read, and that an entry is
    not missed by a run that goes on behind its step.
    """
    index = bisect_right([at for at, _ in table], step) - 1
    return None if index < 0 else (table[index][1], table[index][0])


def parse_table(text: str) -> tuple[tuple[int, float], ...]:
    """Read ``"0:0.01,5000:0.001"`` as (step, learning rate) pairs, sorted by step.

    Raises ``ConfigError`` for anything else, for steps that occur twice, and for rates that are not positive.
    """
    fault = ConfigError(
        f"--set {LEARNING_RATE_TABLE}={text}: expected STEP:RATE,STEP:RATE with whole steps from 0, each once, and "
        f"positive rates. Write for example {LEARNING_RATE_TABLE}=0:0.01,5000:0.001"
    )
    try:
        pairs = [(int(step), float(rate)) for step, rate in (entry.split(":") for entry in text.split(","))]
    except ValueError:
        raise fault from None
    steps = [step for step, _ in pairs]
    if min(steps) < 0 or len(set(steps)) < len(steps) or not all(0 < rate < math.inf for _, rate in pairs):
        raise fault
    return tuple(sorted(pairs))
