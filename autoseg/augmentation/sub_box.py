"""A box at a random place in a patch, for operations that change a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Generator

from autoseg.augmentation.draws import draw_uniform

LengthRatio = Annotated[float, Field(gt=0, le=1)]
"""Edge of a box relative to that of the patch."""


def draw_box(shape: Sequence[int], length_ratio: float, generator: Generator) -> tuple[slice, ...]:
    """Return a box at a uniformly drawn place in a patch: along each axis ``length_ratio`` of its edge, 1 at least."""
    box = []
    for edge, number in zip(shape, draw_uniform(len(shape), (0, 1), generator), strict=True):
        length = max(1, round(edge * length_ratio))
        start = min(int(number * (edge - length + 1)), edge - length)
        box.append(slice(start, start + length))
    return tuple(box)
