"""Check of ``regions_class_order``: regions that are lost when a label map is painted in this order."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.json_advice import order_as_written
from autoseg.dataset.labels import painting_of
from autoseg.dataset.painting import dice_of_regions
from autoseg.dataset.schema import ORDER


def painting_warnings(dataset: Dataset, class_voxels: Sequence[int]) -> list[str]:
    """Return a warning if nnU-Net's painting rule loses a region even from a prediction without any mistake.

    It gives the Dice of each such region on the label files, for nnU-Net's rule and for ours, and a better order.

    Parameters
    ----------
    class_voxels
        (K,) annotated voxels of each class in all cases; empty if no label file can be read.
    """
    labels = dataset.labels
    painting = painting_of(labels)
    if painting is None or painting.is_sound:
        return []
    voxels = class_voxels or [0] * labels.n_classes
    dice_nnunet = dice_of_regions(painting.regions, painting.returned_in_order, voxels)
    dice_here = dice_of_regions(painting.regions, painting.returned, voxels)
    differs = (painting.regions[:, painting.returned_in_order] != painting.regions).any(axis=1)
    lost = ", ".join(
        f"{head.name!r} with a Dice of {_shown(before)} (here {_shown(after)})"
        for head, before, after, is_lost in zip(labels.heads, dice_nnunet, dice_here, differs, strict=True)
        if is_lost
    )
    written, is_sound = order_as_written(dataset.json["labels"])
    remedy = f"Write {written}, which keeps all regions"
    if not is_sound:
        remedy = "No order keeps all regions, because some overlap without one containing the other"
    return [
        f"dataset.json: {ORDER}: nnU-Net paints regions in this order, {list(labels.paint_values or ())}, later ones "
        f"over earlier ones. On these label files even a perfect prediction then gives {lost}. autoseg paints a "
        "combination of regions with the value that stands for it, and only combinations without a value in this "
        f"order. {remedy}"
    ]


def _shown(dice: float | None) -> str:
    if dice is None:
        return "no voxel"
    return "more than 0.999" if 0.9995 <= dice < 1 else f"{dice:.3f}"
