"""What is annotated where an image is empty at its border: cropping must not lose foreground."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from autoseg.core.arrays import BoolArray
from autoseg.core.findings import listed
from autoseg.dataset.labels import Labels, foreground_codes


@dataclass(frozen=True, slots=True)
class Outside:
    """Annotated voxels outside the box of what is not 0 in an image."""

    foreground: int = 0
    """Certainly foreground: the classes that are drawn there do not include background."""
    background: int = 0
    """Certainly background."""


def outside_of(counts: Mapping[int, int], label_sets: BoolArray) -> Outside:
    """Return what ``counts`` (code -> voxels outside the box) mean; ``label_sets`` is (N, K)."""
    codes, numbers = list(counts), np.array(list(counts.values()), dtype=np.int64)
    is_background = label_sets[:, 0] & (label_sets.sum(axis=1) == 1)
    return Outside(int(numbers[foreground_codes(label_sets)[codes]].sum()), int(numbers[is_background[codes]].sum()))


def outside_of_values(counts: Mapping[int, int], labels: Labels, case: str) -> Outside:
    """Return what ``counts`` (file value -> voxels outside the box) mean; undeclared values mean nothing."""
    sets = labels.sets_by_value(case)
    table = np.zeros((len(sets), labels.n_classes), dtype=bool)
    for row, members in enumerate(sets.values()):
        table[row, list(members)] = True
    return outside_of({row: counts[value] for row, value in enumerate(sets) if value in counts}, table)


def foreground_warning(name: str, cases: Mapping[str, Outside]) -> str | None:
    """Say in which cases of the data set ``name`` foreground is drawn where the image is 0 around; None if in none."""
    found = {case: outside.foreground for case, outside in cases.items() if outside.foreground}
    if not found:
        return None
    return (
        f"{name}: {sum(found.values())} voxels are annotated as foreground where the image is 0 in all channels at its "
        f"border, in {len(found)} cases: {_numbered(found)}. No case is cropped to what is not 0, so that nothing is "
        "lost; if that annotation is a mistake, correct it, and less has to be computed"
    )


def background_note(name: str, cases: Mapping[str, Outside]) -> str | None:
    """Say how much annotated background will be cut away with the empty border; None if nothing is."""
    found = {case: outside.background for case, outside in cases.items() if outside.background}
    if not found or foreground_warning(name, cases) is not None:
        return None
    return (
        f"{name}: {sum(found.values())} voxels annotated as background lie where the image is 0 in all channels at its "
        f"border, in {len(found)} cases: {_numbered(found)}. They are cut away, and predicted as background"
    )


def _numbered(found: Mapping[str, int]) -> str:
    most: Iterable[str] = sorted(found, key=lambda case: (-found[case], case))
    return listed(f"{case} ({found[case]} voxels)" for case in most)
