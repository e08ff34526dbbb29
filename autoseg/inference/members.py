"""Kind of the members of an ensemble, which every statement about their disagreement names.

Networks that differ in their seed alone are a deep ensemble; networks of different folds also differ in the cases that
they were trained on, so that their disagreement mirrors that of the cases too. Source of the distinction: arXiv
2605.18329, where seeds are calibrated better and detect failures better than folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from autoseg.core.workspace import FoldName

MemberKind = Literal[
    "one", "folds", "seeds", "folds and seeds", "models", "models and folds", "models and seeds",
    "models, folds and seeds",
]  # fmt: skip
"""How the networks of an ensemble differ: ``one`` network; trained on different folds; on the same cases with
different seeds; of different model folders; or a mixture of these."""

_KINDS: dict[tuple[bool, bool, bool], MemberKind] = {
    (False, False, False): "one",
    (False, True, False): "folds",
    (False, False, True): "seeds",
    (False, True, True): "folds and seeds",
    (True, False, False): "models",
    (True, True, False): "models and folds",
    (True, False, True): "models and seeds",
    (True, True, True): "models, folds and seeds",
}


def member_kind(models: Sequence[Sequence[str]]) -> MemberKind:
    """Return how the members of an ensemble differ, given the names of the folds of each model folder.

    Folds (or seeds) count if members of one model folder differ in them: ``[["0", "1"]]`` are folds, ``[["all",
    "all_seed1"]]`` seeds, ``[["0"], ["1"]]`` models. One member, or none, is ``one``.
    """
    names = [[FoldName.parse(name) for name in folds] for folds in models]
    has_folds = any(len({name.fold for name in own}) > 1 for own in names)
    has_seeds = any(len({name.fold for name in own}) < len(set(own)) for own in names)
    return _KINDS[len(models) > 1, has_folds, has_seeds]
