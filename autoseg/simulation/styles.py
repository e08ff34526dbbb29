"""Simulation of sparse annotation of a densely labelled case: slices, scribbles, patches and points."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import slice_axis
from autoseg.simulation.curves import border_curve, depth_inside, interior_curve, largest_component, paint

LabelArray = NDArray[np.integer[Any]]

_PATCH_ATTEMPTS = 20
_ROUNDING = 1e-9
"""Rounding error of a product that should be a whole number."""


@dataclass(frozen=True, slots=True)
class Style:
    """Style of annotation. Several kinds are combined by union. Without any kind, every voxel is annotated."""

    scribbles: bool = False
    """Whether to draw, per slice and class (background too), a curve through the middle and one along the border."""
    slices: float | None = None
    """Share of the slices that are annotated: densely, or with scribbles if ``scribbles``."""
    start: float | None = None
    """Position of the first annotated slice, as a share of the slice distance, 0 to below 1. 0.5 leaves equal margins.
    None: random for each case. Otherwise the ends of the cases would never be annotated."""
    patches: int = 0
    """Number of boxes per case in which every voxel is annotated."""
    points: int = 0
    """Number of single annotated voxels per case."""
    thickness: int = 3
    """Thickness of scribbles, pixels."""
    patch_size: Shape3 | None = None
    """Shape of a box, voxels (z, y, x). None: a quarter of each edge of the case."""
    axis: int | None = None
    """Slice axis: 0, 1 or 2 for z, y or x. None: :func:`autoseg.core.geometry.slice_axis`."""

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` if a number is out of range."""
        limits = (
            ("--slices", self.slices, self.slices is None or 0 < self.slices <= 1, "a fraction above 0, up to 1"),
            (
                "--start", self.start, self.start is None or (0 <= self.start < 1 and self.slices is not None),
                "a share of 0 or more, below 1, with --slices",
            ),
            ("--patches", self.patches, self.patches >= 0, "0 or more"),
            ("--points", self.points, self.points >= 0, "0 or more"),
            ("--thickness", self.thickness, self.thickness >= 1, "1 or more"),
            ("--patch-size", self.patch_size, min(self.patch_size or (1,)) >= 1, "three numbers of 1 or more"),
            ("--axis", self.axis, self.axis in (None, 0, 1, 2), "0, 1 or 2"),
        )  # fmt: skip
        for name, value, is_right, expected in limits:
            if not is_right:
                raise ConfigError(f"{name}: found {value}, expected {expected}. Correct it.")

    @property
    def is_dense(self) -> bool:
        """Whether every voxel is annotated."""
        return not (self.scribbles or self.slices is not None or self.patches or self.points)


def annotate(labels: LabelArray, spacing: Sequence[float], style: Style, *, seed: int, case: str) -> BoolArray:
    """Return a mask (z, y, x) of the voxels of a dense label map that are annotated in the given style.

    Every kind of annotation has its own stream of random numbers, derived from the seed and the name of the case.
    Therefore it depends neither on other cases nor on other kinds.

    Parameters
    ----------
    labels
        (z, y, x), class indices at every voxel.
    spacing
        mm, (z, y, x).
    """
    if style.is_dense:
        return np.ones(labels.shape, dtype=bool)
    drawn = np.zeros(labels.shape, dtype=bool)
    axis = slice_axis(labels.shape, spacing) if style.axis is None else style.axis
    if style.slices is not None or style.scribbles:
        start = case_rng(seed, case, "slices").random() if style.start is None else style.start
        chosen = even_slices(labels.shape[axis], 1.0 if style.slices is None else style.slices, start)
        along, drawn_along = np.moveaxis(labels, axis, 0), np.moveaxis(drawn, axis, 0)
        rng = case_rng(seed, case, "scribbles")
        for index in chosen:
            drawn_along[index] = (
                scribble_slice(rng, along[index], thickness=style.thickness) if style.scribbles else True
            )
    if style.patches:
        size = style.patch_size or _quarter(labels.shape)
        drawn |= dense_patches(case_rng(seed, case, "patches"), labels, style.patches, size)
    if style.points:
        drawn |= single_points(case_rng(seed, case, "points"), labels, style.points)
    return drawn


def case_rng(seed: int, case: str, kind: str) -> np.random.Generator:
    """Return the random generator of one kind of annotation in one case. Equal arguments give equal numbers."""
    digest = hashlib.sha256(f"{case}\0{kind}".encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def even_slices(n_slices: int, fraction: float, start: float = 0.5) -> tuple[int, ...]:
    """Return the numbers of about ``fraction * n_slices`` evenly spaced slices, at least one.

    ``start``, from 0 to below 1, is the share of their distance before the first one. With 0.5, there are as many
    slices before the first one as after the last one, or one more.
    """
    n = max(1, int(fraction * n_slices + 0.5))
    return tuple(min(int((index + start) * n_slices / n + _ROUNDING), n_slices - 1) for index in range(n))


def scribble_slice(rng: np.random.Generator, labels: LabelArray, *, thickness: int = 3) -> BoolArray:
    """Return a mask (y, x) of scribbles: for each class in ``labels`` (y, x), a curve in its middle and at its border.

    Both lie inside the largest component of the class. A class that fills the slice has no border curve.
    Source: ScribbleBench (arXiv 2403.12834), in which the component is random, larger ones with higher probability.
    """
    drawn = np.zeros(labels.shape, dtype=bool)
    for value in np.flatnonzero(np.bincount(labels.reshape(-1))):
        component = largest_component(labels == value)
        box = _box(component)
        region = component[box]
        depth = depth_inside(component[box])
        if depth is None:
            drawn[box] |= paint(interior_curve(rng, region), region, thickness)
            continue
        middle = depth >= min((thickness + 1) / 2, float(depth.max()))
        drawn[box] |= paint(interior_curve(rng, region, middle), region, thickness)
        drawn[box] |= paint(border_curve(rng, depth), region, thickness)
    return drawn


def dense_patches(rng: np.random.Generator, labels: LabelArray, n: int, size: Shape3) -> BoolArray:
    """Return a mask (z, y, x) of ``n`` boxes of shape ``size`` in ``labels`` (z, y, x), half of them at foreground.

    The first, third ... box lies around a random voxel of a random foreground class, the others at random places. Boxes
    are moved into the image. They do not overlap if some attempts find enough room.
    """
    drawn = np.zeros(labels.shape, dtype=bool)
    edges = np.minimum(size, labels.shape)
    room = np.array(labels.shape) - edges
    classes = [np.flatnonzero(labels == value) for value in np.flatnonzero(np.bincount(labels.reshape(-1))) if value]
    for number in range(n):
        by_overlap: dict[int, tuple[slice, ...]] = {}
        for _ in range(_PATCH_ATTEMPTS):
            if number % 2 == 0 and classes:
                voxels = classes[int(rng.integers(len(classes)))]
                centre = np.unravel_index(int(voxels[rng.integers(len(voxels))]), labels.shape)
                low = np.clip(np.array(centre) - edges // 2, 0, room)
            else:
                low = rng.integers(0, room + 1)
            box = tuple(slice(int(start), int(start + edge)) for start, edge in zip(low, edges, strict=True))
            overlap = int(drawn[box].sum())
            by_overlap.setdefault(overlap, box)
            if overlap == 0:
                break
        drawn[by_overlap[min(by_overlap)]] = True
    return drawn


def single_points(rng: np.random.Generator, labels: LabelArray, n: int) -> BoolArray:
    """Return a mask (z, y, x) of ``n`` random voxels of ``labels`` (z, y, x), equally many of each class if possible.

    The remainder goes to random classes. If ``n`` is at least the number of classes, each class that is present gets at
    least one voxel.
    """
    flat = labels.reshape(-1)
    counts = np.bincount(flat)
    present = np.flatnonzero(counts)
    wanted = _shared_out(rng, min(n, flat.size), counts[present])
    drawn = np.zeros(flat.shape, dtype=bool)
    for value, number in zip(present, wanted, strict=True):
        drawn[rng.choice(np.flatnonzero(flat == value), size=int(number), replace=False)] = True
    return drawn.reshape(labels.shape)


def _shared_out(rng: np.random.Generator, n: int, available: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return (K,) int64: numbers with sum ``n``, as equal as possible and at most ``available`` (K,), sum >= ``n``."""
    shares = np.zeros(len(available), dtype=np.int64)
    while (rest := n - int(shares.sum())) > 0:
        open_ = np.flatnonzero(shares < available)
        if rest < len(open_):
            shares[rng.permutation(open_)[:rest]] += 1
            break
        shares[open_] = np.minimum(available[open_], shares[open_] + rest // len(open_))
    return shares


def _quarter(shape: tuple[int, ...]) -> Shape3:
    z, y, x = (max(1, n // 4) for n in shape)
    return (z, y, x)


def _box(region: BoolArray) -> tuple[slice, slice]:
    """Return the bounding box of ``region`` (y, x) with one pixel around it, inside the image."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return (
        slice(max(0, int(rows[0]) - 1), int(rows[-1]) + 2),
        slice(max(0, int(columns[0]) - 1), int(columns[-1]) + 2),
    )
