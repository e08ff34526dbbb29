"""Picture of fused masks: the image, how many experts named a foreground class, and what the fusion made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autoseg.core.arrays import Float32Array
from autoseg.report.overlay import PALETTE, Rgb, choose_slices, display_range, rendered, to_grey

UNKNOWN_COLOUR: Rgb = (0.55, 0.55, 0.55)
SET_COLOUR: Rgb = (0.25, 0.75, 0.95)


def draw_experts(
    image: Float32Array | None,
    votes: NDArray[np.uint8],
    codes: NDArray[np.integer[Any]],
    class_names: tuple[str, ...],
    n_experts: int,
    *,
    title: str,
) -> NDArray[np.uint8]:
    """Draw the slice of a case with most disagreement: image (if there is one), votes, fused labels.

    Parameters
    ----------
    image
        (C, z, y, x) of any intensity range, of which the first channel is shown; None without an image.
    votes
        (z, y, x) number of experts who named a foreground class.
    codes
        (z, y, x): indices of the K classes, K for unknown voxels, above it sets of classes.
    class_names
        K names.
    n_experts
        Largest possible number of votes; the scale of colours ends there, so pictures can be compared.
    title
        Text above the picture.

    Returns
    -------
    picture
        (y, x, 3) uint8.
    """
    doubtful = (votes > 0) & (votes < n_experts)
    (z,) = choose_slices(doubtful if doubtful.any() else votes > 0, 1)
    height = min(max(3.4 * votes.shape[1] / max(votes.shape[2], 1), 1.0), 7.0)
    figure = Figure(figsize=(3.4 * (2 if image is None else 3) + 0.8, height + 0.9), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2 if image is None else 3, squeeze=False)[0]
    if image is not None:
        grey = to_grey(image[0], display_range(image[0]))
        panels[0].imshow(grey[z], cmap="gray", vmin=0, vmax=1)
        panels[0].set_title("image", fontsize=10)
    shown = panels[-2].imshow(votes[z], cmap="viridis", vmin=0, vmax=n_experts, interpolation="nearest")
    panels[-2].set_title("experts who named foreground", fontsize=10)
    figure.colorbar(
        shown, ax=panels[-2], ticks=range(n_experts + 1), fraction=0.046, pad=0.02, aspect=20 * height / 3.4
    )
    n_classes = len(class_names)
    colours = [(0.0, 0.0, 0.0), *(PALETTE[index % len(PALETTE)] for index in range(n_classes - 1)), UNKNOWN_COLOUR]
    table = np.array([*colours, SET_COLOUR])
    panels[-1].imshow(table[np.minimum(codes[z], n_classes + 1)], interpolation="nearest")
    panels[-1].set_title("fused", fontsize=10)
    present = [index for index in range(n_classes + 2) if (np.minimum(codes, n_classes + 1) == index).any()]
    names = [*class_names, "unknown", "several classes"]
    for index in present:
        panels[-1].plot([], [], "s", color=tuple(table[index]), label=names[index], markeredgecolor="grey")
    panels[-1].legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncol=3, fontsize=8, frameon=False)
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
    depth = f", slice {z}" if codes.shape[0] > 1 else ""
    figure.suptitle(f"{title}{depth}", fontsize=11)
    return rendered(figure)
