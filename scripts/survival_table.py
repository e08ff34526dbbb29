"""The table of the surviving annotation, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ANY = -1
"""Stands for all classes together."""

Counts = Mapping[str, Mapping[int, NDArray[np.float64]]]
"""Stage -> class, or ``ANY`` -> (before, after in autoseg, after in nnU-Net)."""


def as_json(counts: Counts, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row per stage and class with counts and shares; ``class`` is None for all together."""
    return [
        {
            "stage": stage,
            "class": None if key == ANY else names[key],
            "annotated": before,
            "autoseg": ours,
            "nnunet": theirs,
            "autoseg_share": ours / before if before else None,
            "nnunet_share": theirs / before if before else None,
        }
        for stage, rows in counts.items()
        for key, (before, ours, theirs) in ((key, rows[key].tolist()) for key in sorted(rows))
    ]


def as_markdown(counts: Counts, names: Sequence[str]) -> str:
    """Return a Markdown table: a row per stage, a cell per class with the shares in autoseg / by nnU-Net, in %."""
    keys = sorted({key for rows in counts.values() for key in rows})
    heads = ["stage", *("all classes" if key == ANY else names[key] for key in keys)]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for stage, rows in counts.items():
        lines.append(_line([stage, *(_shares(rows.get(key)) for key in keys)]))
    return "\n".join(lines)


def _shares(counts: NDArray[np.float64] | None) -> str:
    if counts is None or not counts[0]:
        return ""
    ours, theirs = 100 * counts[1:] / counts[0]
    return f"**{ours:.1f}** / {theirs:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
