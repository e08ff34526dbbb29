"""One training sample: draws place and transform of a patch, reads the box that it needs, and warps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from autoseg.augmentation.move_labels import move_codes
from autoseg.augmentation.recipes import Recipe, draw_warp
from autoseg.augmentation.warp import Warp, identity, keep_inside, move_image, source_box
from autoseg.cases.layers import LayerInfo
from autoseg.cases.store import IMAGE, TARGET, CaseStore
from autoseg.core.boxes import Box
from autoseg.sampling.extra_codes import ExtraCodes
from autoseg.sampling.move_layers import View, as_tensor, move_layer
from autoseg.sampling.places import Aim, box_around, box_within, draw_voxel
from autoseg.sampling.rejection import RealBox, Rejection


@dataclass(frozen=True, slots=True)
class Place:
    """Position and transform of a patch in its case."""

    centre: tuple[float, ...]
    """Source point of the patch's centre in voxels, one number per patch axis."""
    warp: Warp
    slice_index: int | None = None
    """Index of the slice (axis 0 of the case) of a 2-D patch; None for 3-D."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One patch after the warp."""

    image: Tensor
    """(C, *P) float32."""
    codes: Tensor
    """(*P) uint8, or int32 if the case has more than 256 codes."""
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    """Further layers by name: (C, *P) float32 of intensities, otherwise (*P) uint8 or int32."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """The box of a case that a patch is cut out of, and how; its tensors may lie on any device but for ``base``."""

    image: Tensor
    """(C, *box) float32."""
    codes: Tensor
    """(*box) uint8 or int32."""
    layers: Mapping[str, Tensor]
    """Further layers by name, (C, *box) or (*box)."""
    view: View
    unknown: int
    """Code of unannotated voxels."""
    outside: int
    """Code of what lies outside the image."""
    base: Tensor | None
    """(N,), on the CPU: base code of each code; None if every code is its own."""
    infos: tuple[LayerInfo, ...]
    """Of ``layers``."""

    def moved(self) -> Sample:
        """Return the patch: one pass for each layer."""
        return Sample(
            move_image(self.image, *self.view),
            move_codes(self.codes, *self.view, unknown=self.unknown, outside=self.outside, to_drawn=self.base),
            {info.name: move_layer(self.layers[info.name], self.view, info) for info in self.infos},
        )


def draw_place(
    aim: Aim,
    case: CaseStore,
    patch: Sequence[int],
    recipe: Recipe | None,
    rng: np.random.Generator,
    rejection: Rejection | None = None,
) -> Place:
    """Draw voxel, box and transform for a patch of 2 or 3 axes; with ``recipe=None`` there is no transform.

    A 2-D patch lies in the slice of the voxel, or in a random slice if it may lie anywhere. A place that ``rejection``
    rejects is drawn again, except for context patches; after ``rejection.config.max_attempts`` the best place is taken,
    with a note. Only the codes of the case are read for this, once per case. The annotation is counted in the box of
    the patch's size around its centre, without regard to the transform.
    """
    if rejection is None or aim.is_context:
        return _draw_once(aim, case, patch, recipe, rng)
    drawn = []
    for attempt in range(1, rejection.config.max_attempts + 1):
        place = _draw_once(aim, case, patch, recipe, rng)
        content = rejection.content(case, covered_box(place, patch), n_axes=len(patch))
        if rejection.accepts(content, rng):
            rejection.count_tries(attempt)
            return place
        drawn.append((place, content))
    rejection.count_tries(rejection.config.max_attempts)
    place, best = min(drawn, key=lambda pair: rejection.shortfall(pair[1]))
    rejection.warn(case.entry.record.case, best)
    return place


def covered_box(place: Place, patch: Sequence[int]) -> RealBox:
    """Return the box (z, y, x) of the patch's size around its centre, in voxels; it disregards rotation and scale."""
    low = [middle - (edge - 1) / 2 for middle, edge in zip(place.centre, patch, strict=True)]
    high = [start + edge for start, edge in zip(low, patch, strict=True)]
    if place.slice_index is None:
        return low, high
    return [place.slice_index, *low], [place.slice_index + 1, *high]


def _draw_once(
    aim: Aim, case: CaseStore, patch: Sequence[int], recipe: Recipe | None, rng: np.random.Generator
) -> Place:
    """Draw a place without regard to its annotation."""
    n_axes = len(patch)
    shape = case.entry.record.shape[-n_axes:]
    voxel = None if aim.code is None else draw_voxel(case, aim.code, rng)
    if voxel is None:
        own = case.entry.record.own_box
        low = box_within(own.start[-n_axes:], own.shape[-n_axes:], shape, patch, rng)
        slice_index = int(rng.integers(own.start[0], own.stop[0]))
    else:
        low = box_around(voxel[-n_axes:], shape, patch, rng)
        slice_index = voxel[0]
    warp = identity(n_axes) if recipe is None else draw_warp(recipe, patch, rng)
    centre = tuple(start + (edge - 1) / 2 for start, edge in zip(low, patch, strict=True))
    if voxel is not None and not warp.is_identity:
        centre = keep_inside(warp, centre, patch, voxel[-n_axes:])
    return Place(centre, warp, slice_index if n_axes == 2 else None)


def read_patch(
    case: CaseStore,
    place: Place,
    patch: Sequence[int],
    *,
    unknown: int,
    outside: int,
    base: Tensor | None = None,
    extra_codes: ExtraCodes | None = None,
    layers: Sequence[LayerInfo] = (),
) -> Sample:
    """Read the box that the transform needs, and warp it to the patch (*P); parameters as for :func:`read_cutout`."""
    return read_cutout(
        case, place, patch, unknown=unknown, outside=outside, base=base, extra_codes=extra_codes, layers=layers
    ).moved()


def read_cutout(
    case: CaseStore,
    place: Place,
    patch: Sequence[int],
    *,
    unknown: int,
    outside: int,
    base: Tensor | None = None,
    extra_codes: ExtraCodes | None = None,
    layers: Sequence[LayerInfo] = (),
) -> Cutout:
    """Read the box that the transform needs, one layer after the other.

    Outside the image the intensity is 0 and the code ``outside``. Annotated voxels win over those of code ``unknown``.
    ``base`` (N,) int64 is that of the code table, with rows for ``extra_codes`` if these are given; None if every code
    is its own base. Further ``layers`` are warped in the same way, each by the rule of its kind.
    """
    low, high = source_box(place.warp, place.centre, patch)
    shape = case.entry.record.shape[-len(patch) :]
    first = [min(max(start, 0), edge) for start, edge in zip(low, shape, strict=True)]
    last = [max(min(stop, edge), start) for start, stop, edge in zip(first, high, shape, strict=True)]
    is_slice = place.slice_index is not None
    slices = ([], []) if place.slice_index is None else ([place.slice_index], [place.slice_index + 1])
    (z0, y0, x0), (z1, y1, x1) = [*slices[0], *first], [*slices[1], *last]
    box = Box((z0, y0, x0), (z1, y1, x1))
    stored = np.asarray(case.read(TARGET, box))
    if extra_codes is not None:
        stored = extra_codes.apply(stored, box.start)
    codes = as_tensor(stored[0] if is_slice else stored)
    image = _read(case, IMAGE, box, is_slice)
    centre = tuple(middle - start for middle, start in zip(place.centre, first, strict=True))
    return Cutout(
        image,
        codes,
        {info.name: _read(case, info.name, box, is_slice) for info in layers},
        View(place.warp, centre, tuple(patch)),
        unknown,
        outside,
        base,
        tuple(layers),
    )


def _read(case: CaseStore, layer: str, box: Box, is_slice: bool) -> Tensor:
    """Return a copy of a box of a layer, (C, *box) or (*box); without axis z if ``is_slice``."""
    part = case.read(layer, box)
    return as_tensor(part[..., 0, :, :] if is_slice else part)
