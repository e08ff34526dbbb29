"""What the annotators of a data set promise about how they worked, so that silence too says something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Reach: TypeAlias = float | Literal["auto"]
"""A distance in mm, above 0, or "auto": estimated from the data."""


@dataclass(frozen=True)
class AnnotationProtocol:
    """``dataset.json: annotation_protocol``; nothing is promised by default.

    Made by :meth:`autoseg.core.dataset.Dataset.load`, which validates; this class trusts its fields.
    """

    classes_complete_in: Literal["slice", "case"] | None = None
    """Where an annotated slice (or case) has no annotation of a class, that class is absent from it."""
    reach_mm: Reach | Mapping[int, Reach] | None = None
    """Nothing of a foreground class lies farther than this from its annotated voxels: one distance for every
    foreground class, or class index -> distance (classes left out promise nothing; never background)."""
    instances_touched: bool = False
    """Every object carries an annotated voxel of its class."""
    background_encloses: bool = False
    """What annotated background separates from all annotated foreground is background."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is promised."""
        return self == AnnotationProtocol()
