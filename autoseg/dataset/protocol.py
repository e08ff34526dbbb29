"""Promises of the annotators about how they worked, from which classes of unannotated voxels can be excluded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Reach: TypeAlias = float | Literal["auto"]
"""A distance in mm, above 0, or "auto": estimated from the data."""


@dataclass(frozen=True)
class AnnotationProtocol:
    """Content of ``dataset.json: annotation_protocol``; by default nothing is promised.

    Made by :meth:`autoseg.dataset.dataset.Dataset.load`, which validates; this class does not check its fields.
    """

    classes_complete_in: Literal["slice", "case"] | None = None
    """A class without annotation in an annotated slice (or case) is absent from that slice (or case)."""
    reach_mm: Reach | Mapping[int, Reach] | None = None
    """Largest distance of a voxel of a foreground class to annotated voxels of the class: one for all foreground
    classes, or class index -> distance. Classes that are missing promise nothing; background has no reach."""
    instances_touched: bool = False
    """Every object has at least one annotated voxel of its class."""
    background_encloses: bool = False
    """Voxels that annotated background separates from all annotated foreground are background."""
    gap_mm: float = 0.0
    """Widest gap in a line of annotated background that counts as closed; 0: none, not even from corner to corner."""
    slice_axis: int | None = None
    """Axis of the file perpendicular to the annotated slices: 0, 1, 2 for z, y, x; None if not declared."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is promised."""
        return self == AnnotationProtocol(gap_mm=self.gap_mm, slice_axis=self.slice_axis)

    @property
    def depends_on_slices(self) -> bool:
        """Whether a promise depends on the axis of the slices."""
        return self.classes_complete_in == "slice" or self.background_encloses

    @property
    def excludes_far_classes(self) -> bool:
        """Whether a promise excludes classes far from all annotation; a reach of "auto" only after its estimation."""
        reach = self.reach_mm.values() if isinstance(self.reach_mm, Mapping) else (self.reach_mm,)
        return self.background_encloses or any(isinstance(distance, (int, float)) for distance in reach)

    def single_promises(self) -> dict[str, AnnotationProtocol]:
        """Return key in dataset.json -> protocol with that promise alone, for promises that apply before training.

        ``instances_touched`` is not among them, since it needs a prediction.
        """
        how = AnnotationProtocol(gap_mm=self.gap_mm, slice_axis=self.slice_axis)
        names = ("classes_complete_in", "reach_mm", "background_encloses")
        return {
            name: replace(how, **{name: getattr(self, name)})
            for name in names
            if getattr(self, name) != getattr(how, name)
        }
