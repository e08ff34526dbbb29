"""Which classes an imagined annotator leaves out of which case, so that every class is left out equally often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoseg.core.errors import ConfigError


def choose_left_out(
    present: Mapping[str, frozenset[int]], foreground: Sequence[int], n: int, *, seed: int
) -> dict[str, frozenset[int]]:
    """Choose ``n`` foreground classes for each case that its annotator leaves out.

    Balanced among the cases that hold the same classes first, then over all cases; ties are drawn. A class is not
    left out of the last case that holds it if it was left out of all the others.

    Parameters
    ----------
    present
        Case -> foreground classes that it holds, as file values.
    foreground
        File values of all foreground classes.
    n
        Also of classes that the case does not hold: its annotator would not have drawn them either.

    Raises
    ------
    ConfigError
        If ``n`` leaves no foreground class.
    """
    if not 0 <= n < len(foreground):
        expected = f"0 to {len(foreground) - 1} of the {len(foreground)} foreground classes"
        raise ConfigError(f"--drop-classes: found {n}, expected {expected}. Choose a smaller number.")
    rng = np.random.default_rng(seed)
    names = sorted(present)
    holds = {name: np.isin(foreground, sorted(present[name])) for name in names}  # (K - 1,) bool
    alike: dict[frozenset[int], NDArray[np.int64]] = {}
    overall, kept = (np.zeros(len(foreground), dtype=np.int64) for _ in range(2))
    to_come = np.sum([holds[name] for name in names], axis=0)
    left_out: dict[str, frozenset[int]] = {}
    for index in rng.permutation(len(names)):
        name = names[int(index)]
        among_alike = alike.setdefault(present[name], np.zeros(len(foreground), dtype=np.int64))
        is_last_chance = holds[name] & (kept == 0) & (to_come == 1)
        chosen = np.lexsort((rng.permutation(len(foreground)), overall, among_alike, is_last_chance))[:n]
        among_alike[chosen] += 1
        overall[chosen] += 1
        to_come -= holds[name]
        kept += holds[name]
        kept[chosen] -= holds[name][chosen]
        left_out[name] = frozenset(foreground[int(position)] for position in chosen)
    return dict(sorted(left_out.items()))
