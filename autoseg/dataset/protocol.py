"""What the annotators of a data set promise about how they worked, so that silence too says something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Reach: TypeAlias = float | Literal["auto"]
"""A distance in mm, above 0, or "auto": estimated from the data."""


@dataclass(frozen=True)
class AnnotationProtocol:
    """``dataset.json: annotation_protocol``; nothing is promised by default.

    Made by :meth:`autoseg.dataset.dataset.Dataset.load`, which validates; this class trusts its fields.
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
    gap_mm: float = 0.0
    """Widest gap in a line of annotated background that still separates; 0: none, not even from corner to corner."""
    slice_axis: int | None = None
    """Axis of the file that counts the slices which people drew in: 0, 1, 2 for z, y, x; None: not said."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is promised."""
        return self == AnnotationProtocol(gap_mm=self.gap_mm, slice_axis=self.slice_axis)

    @property
    def speaks_of_slices(self) -> bool:
        """Whether it matters which axis counts the slices."""
        return self.classes_complete_in == "slice" or self.background_encloses

    @property
    def settles_far(self) -> bool:
        """Whether it is settled what lies far from all annotation; by a reach of "auto" only once it is estimated."""
        reach = self.reach_mm.values() if isinstance(self.reach_mm, Mapping) else (self.reach_mm,)
        return self.background_encloses or any(isinstance(distance, (int, float)) for distance in reach)

    def single_promises(self) -> dict[str, AnnotationProtocol]:
        """Return each promise that narrows sets before training on its own, by its key in dataset.json.

        ``instances_touched`` is none of them: it needs a prediction.
        """
        how = AnnotationProtocol(gap_mm=self.gap_mm, slice_axis=self.slice_axis)
        names = ("classes_complete_in", "reach_mm", "background_encloses")
        return {
            name: replace(how, **{name: getattr(self, name)})
            for name in names
            if getattr(self, name) != getattr(how, name)
        }
