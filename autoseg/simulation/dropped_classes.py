"""Random choice of the classes that a simulated annotator omits in each case, equally often for all classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from autoseg.core.arrays import BoolArray
from autoseg.core.errors import ConfigError


def choose_left_out(
    present: Mapping[str, frozenset[int]], foreground: Sequence[int], n: int, *, seed: int
) -> dict[str, frozenset[int]]:
    """Return case -> file values of the ``n`` foreground classes that its annotator omits.

    The choice is balanced first among the cases that contain the same classes, then over all cases; ties are random.
    Every class stays annotated in at least one case that contains it, if that is possible for all classes together.

    Parameters
    ----------
    present
        Case -> file values of the foreground classes that it contains.
    foreground
        File values of all foreground classes.
    n
        Number of omitted classes per case. They include classes that the case does not contain.
    seed
        Seed of the random choice.

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
    overall = np.zeros(len(foreground), dtype=np.int64)
    order = rng.permutation(len(names))
    keeps = _keepers(np.array([holds[names[index]] for index in order]), len(foreground) - n)
    left_out: dict[str, frozenset[int]] = {}
    for index, is_kept in zip(order, keeps, strict=True):
        name = names[int(index)]
        among_alike = alike.setdefault(present[name], np.zeros(len(foreground), dtype=np.int64))
        chosen = np.lexsort((rng.permutation(len(foreground)), overall, among_alike, is_kept))[:n]
        among_alike[chosen] += 1
        overall[chosen] += 1
        left_out[name] = frozenset(foreground[int(position)] for position in chosen)
    return dict(sorted(left_out.items()))


def _keepers(holds: BoolArray, n_drawn: int) -> BoolArray:
    """Return (cases, classes) bool: classes that must stay annotated in each case, at most ``n_drawn`` per case.

    ``holds`` (cases, classes) bool: classes that each case contains. As many classes as possible are assigned to one
    case each, by a bipartite matching of classes with places in cases.
    """
    keeps = np.zeros_like(holds)
    places = sparse.csr_matrix(np.repeat(holds, n_drawn, axis=0).T)  # (classes, cases * n_drawn)
    place_of = maximum_bipartite_matching(places, perm_type="column")
    for index, place in enumerate(place_of.tolist()):
        if place >= 0:
            keeps[place // n_drawn, index] = True
    return keeps
