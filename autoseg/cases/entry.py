"""What is known of a preprocessed case besides its voxels."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from autoseg.cases.case import CaseRecord
from autoseg.cases.code_table import CodeTable
from autoseg.cases.layers import LayerInfo
from autoseg.core.arrays import BoolArray


class CacheEntry(BaseModel):
    """``CASE.json``: all that is known of a cached case besides its arrays."""

    model_config = ConfigDict(frozen=True)

    record: CaseRecord
    label_sets: tuple[tuple[int, ...], ...]
    """Per code the class indices that a voxel with that code may be by what was drawn."""
    inferred_sets: tuple[tuple[int, ...], ...] | None = None
    """Per code those that promises of the annotators leave of them; None: all."""
    undrawn: int
    """Code of voxels that nobody annotated and no promise narrows. Further codes of such voxels, which promises make,
    have the same label set."""
    n_classes: int
    locations: dict[int, tuple[int, int]]
    """Informative code -> [start, stop) in ``CASE.locations.npy``."""
    code_counts: dict[int, int]
    """Code -> number of voxels."""
    images: tuple[str, ...] = ()
    """Per channel the content of the image as read (:func:`autoseg.core.trained_on.image_contents`)."""
    layers: tuple[LayerInfo, ...] = ()
    """Layers besides image and target."""
    fingerprint: str
    """Hash over the source files and all settings that made this case; another hash is stale."""

    @property
    def table(self) -> CodeTable:
        """What each code stands for; made anew at each call."""
        drawn = self._as_rows(self.label_sets)
        learnt = drawn if self.inferred_sets is None else self._as_rows(self.inferred_sets)
        return CodeTable.of_sets(drawn, learnt, self.undrawn)

    def _as_rows(self, sets: tuple[tuple[int, ...], ...]) -> BoolArray:
        rows = np.zeros((len(sets), self.n_classes), dtype=bool)
        for code, members in enumerate(sets):
            rows[code, list(members)] = True
        return rows
