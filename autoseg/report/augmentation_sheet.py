"""Picture of augmented patches beside the same patches before augmentation, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from autoseg.dataset.labels import Labels
from autoseg.report.batch_sheet import Panel, composed, heading, legend, patch_panels, shown_slice
from autoseg.sampling.patch_view import PatchView


def draw_augmentation_sheet(
    views: Sequence[PatchView],
    originals: Sequence[PatchView],
    labels: Labels,
    channel_names: Sequence[str],
    *,
    title: str = "",
    is_colour: bool = False,
) -> NDArray[np.uint8]:
    """Draw every patch as a row of panels: its original, without and with labels, then the augmented one alike.

    Of a 3-D patch one section is shown, that with most annotation, and a cut across all sections (z down, x to the
    right), in which sections that were shifted, lost or blurred stand out. Unannotated voxels are hatched.

    Parameters
    ----------
    views, originals
        At least one each, in the same order.
    labels
        Classes of the data set.
    channel_names
        One per channel of the images; the first is shown.
    title
        Text above the picture.
    is_colour
        Whether the first three channels are red, green and blue; then all of them are shown.

    Returns
    -------
    picture
        (y, x, 3) uint8.
    """
    slices = [shown_slice(view) for view in views]
    tiles = [
        [
            *_panels("original", original, source_slice(view, z), labels, channel_names, is_colour),
            *_panels("augmented", view, z, labels, channel_names, is_colour),
        ]
        for view, original, z in zip(views, originals, slices, strict=True)
    ]
    headings = [heading(view, z, number, labels) for number, (view, z) in enumerate(zip(views, slices, strict=True), 1)]
    return composed(tiles, headings, legend([*views, *originals], labels), title)


def source_slice(view: PatchView, z: int) -> int:
    """Return the section of the original that section ``z`` of a 3-D patch shows, as far as the original has it."""
    origin, depth = view.origin, len(view.codes)
    if view.codes.ndim == 2 or (origin.order and origin.order[0] != 0):
        return z
    before = depth - 1 - z if origin.mirrors[0] else z
    step = origin.sections[before].step if origin.sections else 0
    return min(max(before + step, 0), depth - 1)


def _panels(
    name: str, view: PatchView, z: int, labels: Labels, channel_names: Sequence[str], is_colour: bool
) -> list[Panel]:
    """Return the panels of a patch: image, labels over it, and of a 3-D patch the cut across the middle row."""
    plain, *_, over = patch_panels(view, z, labels, channel_names, is_colour)
    panels = [Panel(f"{name}: {plain.caption}", plain.pixels), Panel(f"{name}, labels", over.pixels)]
    if view.codes.ndim == 2:
        return panels
    row = view.codes.shape[1] // 2
    across = replace(
        view, image=view.image[:, :, row], codes=view.codes[:, row], spacing=view.spacing[::2],
        numbers=tuple(numbers[:, row] for numbers in view.numbers),
    )  # fmt: skip
    *_, side = patch_panels(across, 0, labels, channel_names, is_colour)
    return [*panels, Panel(f"{name}, across sections at y {row}", side.pixels)]
