"""Mean of numbers of which some are not known."""

from __future__ import annotations

import math
from collections.abc import Iterable


def mean_known(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
