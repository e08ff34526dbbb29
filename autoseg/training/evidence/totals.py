"""Counts of annotated and unannotated voxels of the training cases, from which the weights of evidence follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autoseg.cases.entry import CacheEntry
from autoseg.dataset.labels import Labels, informative_codes, settled_cases


@dataclass(frozen=True, slots=True)
class Totals:
    """Voxels of the training cases, by what is known of them."""

    n_drawn: int
    """Annotated voxels."""
    n_promised: int
    """Voxels of which only promises say something, or that classes are absent from their case."""
    n_unknown: int
    """Voxels of which nothing is known."""
    n_open: int
    """Voxels of which nothing is known, or only that a class is absent from their case."""
    drawn_as: tuple[int, ...]
    """(H,): voxels annotated so that the head is certainly positive."""

    @classmethod
    def of(cls, entries: Iterable[CacheEntry], labels: Labels) -> Totals:
        """Count over cached cases; all 0 if there is none."""
        n_drawn = n_promised = n_unknown = n_open = 0
        drawn_as, settled = [0] * labels.n_heads, settled_cases(labels)
        for entry in entries:
            table = entry.table
            narrowed = informative_codes(table.learnt)
            if entry.record.case in settled:
                annotated, is_open = np.zeros_like(narrowed), narrowed
            else:
                annotated, is_open = table.annotated, (table.learnt == table.drawn[table.undrawn]).all(axis=1)
            positive, _ = table.head_states(labels.regions)
            for code, count in entry.code_counts.items():
                n_drawn += count * bool(annotated[code])
                n_promised += count * bool(narrowed[code] and not annotated[code])
                n_unknown += count * bool(not narrowed[code] and not annotated[code])
                n_open += count * bool(is_open[code] and not annotated[code])
                drawn_as = [total + count * bool(hit) for total, hit in zip(drawn_as, positive[code], strict=True)]
        return cls(n_drawn, n_promised, n_unknown, n_open, tuple(drawn_as))
