"""What planning needs to know of a data set: shapes, spacings and the intensities of annotated foreground."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from autoseg.core.geometry import Direction


class IntensityProperties(BaseModel):
    """Statistics of one channel over informative foreground voxels (or, as fallback, inside the body)."""

    model_config = ConfigDict(frozen=True)

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_99_5: float
    percentile_00_5: float


class Fingerprint(BaseModel):
    """``dataset_fingerprint.json``: nnU-Net's keys, then ours.

    Axes are the files' (z, y, x), after each case was brought to the order in which most of them are stored.
    """

    model_config = ConfigDict(frozen=True)

    spacings: tuple[tuple[float, float, float], ...]
    """mm, one per case, in case order."""
    shapes_after_crop: tuple[tuple[int, int, int], ...]
    """Voxels, one per case; of the whole image if nothing is cropped."""
    foreground_intensity_properties_per_channel: dict[str, IntensityProperties]
    """Channel number as string -> statistics."""
    median_relative_size_after_cropping: float
    cases: tuple[str, ...] = ()
    """Names, in the order of the lists above."""
    intensity_source: dict[str, str] = Field(default_factory=dict)
    """Channel number -> ``"foreground"``, or ``"body"`` when too few foreground voxels are annotated."""
    foreground_voxels: int = 0
    """How many informative foreground voxels the statistics saw."""
    annotated_fraction: dict[str, float] = Field(default_factory=dict)
    """Case -> share of voxels that say something about their class."""
    drawn_fraction: dict[str, float] = Field(default_factory=dict)
    """Case -> share of voxels that somebody drew: those of which it is only said that a class is absent are none."""
    annotated_in_slices: dict[str, float] = Field(default_factory=dict)
    """Case -> share of the drawn voxels that lie in slices of which at least half is annotated; 0 for scribbles."""
    annotated_classes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Case -> indices of the heads (classes, or regions) with a voxel that is certainly theirs; ascending."""
    direction: Direction | None = None
    """Direction cosines of the order in which most cases are stored, see :class:`autoseg.core.geometry.Geometry`; None
    if no file says how its axes lie."""
    turned: dict[str, str] = Field(default_factory=dict)
    """Case -> the order in which its file stores the voxels (``RAS``: x to the right, y to anterior, z to superior), of
    those that have to be turned to ``direction``."""
    foreground_outside: dict[str, int] = Field(default_factory=dict)
    """Case -> voxels annotated as foreground outside the box of what is not 0; without those that have none. If there
    is any, no case is cropped."""
    background_outside: dict[str, int] = Field(default_factory=dict)
    """Case -> voxels annotated as background outside that box, likewise."""
    source_hash: str = ""
    """Hash over the source files and dataset.json; a fingerprint with another hash is stale."""

    @property
    def crop(self) -> bool:
        """Whether what is 0 around the images can be cut away without losing annotated foreground."""
        return not self.foreground_outside

    @property
    def informative_cases(self) -> tuple[str, ...]:
        """Cases with at least one voxel that says something, in case order: those that training uses."""
        return tuple(case for case in self.cases if self.annotated_fraction.get(case, 1.0) > 0)
