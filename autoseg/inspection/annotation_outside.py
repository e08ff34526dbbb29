"""Annotated voxels in the empty border of an image (0 in all channels): cropping must not remove foreground."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.annotation.label_counts import voxels_by_code
from autoseg.core.arrays import BoolArray
from autoseg.core.findings import listed
from autoseg.dataset.labels import Labels, foreground_codes


@dataclass(frozen=True, slots=True)
class BorderAnnotation:
    """Numbers of annotated voxels outside the box around all non-zero voxels of an image."""

    foreground: int = 0
    """Voxels that are certainly foreground: their label set does not include background."""
    background: int = 0
    """Voxels that are certainly background."""


def border_annotation(counts: Mapping[int, int], label_sets: BoolArray) -> BorderAnnotation:
    """Return the numbers for ``counts`` (code -> voxels outside the box); ``label_sets`` is (N, K) bool."""
    codes, numbers = list(counts), np.array(list(counts.values()), dtype=np.int64)
    is_background = label_sets[:, 0] & (label_sets.sum(axis=1) == 1)
    return BorderAnnotation(
        int(numbers[foreground_codes(label_sets)[codes]].sum()), int(numbers[is_background[codes]].sum())
    )


def border_annotation_of_values(counts: Mapping[int, int], labels: Labels, case: str) -> BorderAnnotation:
    """Return the numbers for ``counts`` (file value -> voxels outside the box); undeclared values are ignored."""
    numbers, label_sets = voxels_by_code(counts, labels, case)
    return border_annotation(dict(enumerate(numbers.tolist())), label_sets)


def foreground_warning(name: str, cases: Mapping[str, BorderAnnotation]) -> str | None:
    """Return a warning that names the cases with foreground in the empty border; None if there are none.

    Parameters
    ----------
    name
        Name of the data set.
    cases
        Case -> numbers of voxels in its border.
    """
    voxels = {case: outside.foreground for case, outside in cases.items() if outside.foreground}
    if not voxels:
        return None
    return (
        f"{name}: {sum(voxels.values())} voxels in {len(voxels)} cases are annotated as foreground in the empty border "
        f"of the image (0 in all channels): {_numbered(voxels)}. Therefore no case is cropped. If this annotation is a "
        "mistake, correct it: cropped cases need less time and memory"
    )


def background_note(name: str, cases: Mapping[str, BorderAnnotation]) -> str | None:
    """Return a note on annotated background that cropping removes; None if there is none.

    Parameters
    ----------
    name
        Name of the data set.
    cases
        Case -> numbers of voxels in its border.
    """
    voxels = {case: outside.background for case, outside in cases.items() if outside.background}
    if not voxels or foreground_warning(name, cases) is not None:
        return None
    return (
        f"{name}: {sum(voxels.values())} voxels in {len(voxels)} cases are annotated as background in the empty border "
        f"of the image (0 in all channels): {_numbered(voxels)}. This border is cropped and predicted as background"
    )


def _numbered(voxels: Mapping[str, int]) -> str:
    cases: Iterable[str] = sorted(voxels, key=lambda case: (-voxels[case], case))
    return listed(f"{case} ({voxels[case]} voxels)" for case in cases)
