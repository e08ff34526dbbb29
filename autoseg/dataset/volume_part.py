"""Part of a large volume that is a case: an annotated box, or all of the volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.core.boxes import Box


@dataclass(frozen=True, slots=True)
class VolumePart:
    """Where the voxels of a case of a volume lie. Locations are absolute, ``volume.zarr:raw`` (docs/volumes.md)."""

    images: tuple[str, ...]
    """Locations of the whole volume in channel order; one array may hold several channels."""
    box: Box | None = None
    """Voxels of the volume that are the case; None: all of it."""
    label: str | None = None
    """Location of the labels, an array of the shape of the box, or of the whole volume; None without annotation."""
    valid_mask: str | None = None
    """Location of the mask, of such a shape, that is 0 where nothing is annotated; None without mask."""

    @property
    def image_paths(self) -> tuple[Path, ...]:
        """For each location of ``images`` the location of the case's own voxels, as ``CaseFiles.images``."""
        return tuple(map(self._own, self.images))

    @property
    def label_path(self) -> Path | None:
        """Location of the case's own labels, as ``CaseFiles.label``."""
        return None if self.label is None else self._own(self.label)

    @property
    def mask_path(self) -> Path | None:
        """Location of the case's own mask, as ``CaseFiles.valid_mask``."""
        return None if self.valid_mask is None else self._own(self.valid_mask)

    def overlaps(self, other: VolumePart) -> bool:
        """Whether two parts share voxels: of one volume, whose boxes intersect or one of which is all of it."""
        if self.images != other.images:
            return False
        return self.box is None or other.box is None or bool(self.box.intersection(other.box).n_voxels)

    def as_json(self, label: str) -> dict[str, Any]:
        """Return the entry of ``boxes`` in a dataset.json for this part with other labels, those of the case alone."""
        if self.box is None:
            return {"image": list(self.images), "label": label}
        return {"image": list(self.images), "box": [list(span) for span in self.box.spans], "label": label}

    def _own(self, location: str) -> Path:
        return Path(location if self.box is None else f"{location}{self.box}")
