"""Say which regions a label map loses that is painted in the order of ``regions_class_order``, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.json_advice import order_as_written
from autoseg.dataset.labels import painting_of
from autoseg.dataset.painting import dice_of_regions
from autoseg.dataset.schema import ORDER


def painting_warnings(dataset: Dataset, class_voxels: Sequence[int]) -> list[str]:
    """Return a warning if nnU-Net's rule does not give every region back from a prediction without mistake.

    It says the Dice of each such region on the label files, under nnU-Net's rule and under ours, and what to write.

    Parameters
    ----------
    class_voxels
        (K,) voxels drawn as each class in all cases; empty if no label file could be read.
    """
    labels = dataset.labels
    painting = painting_of(labels)
    if painting is None or painting.is_sound:
        return []
    voxels = class_voxels or [0] * labels.n_classes
    theirs = dice_of_regions(painting.regions, painting.returned_in_order, voxels)
    ours = dice_of_regions(painting.regions, painting.returned, voxels)
    differs = (painting.regions[:, painting.returned_in_order] != painting.regions).any(axis=1)
    lost = ", ".join(
        f"{head.name!r} with a Dice of {_shown(before)} (here {_shown(after)})"
        for head, before, after, is_lost in zip(labels.heads, theirs, ours, differs, strict=True)
        if is_lost
    )
    written, is_sound = order_as_written(dataset.json["labels"])
    remedy = f"Write {written}, which gives all of them back"
    if not is_sound:
        remedy = "No order gives all of them back, since regions overlap without nesting"
    return [
        f"dataset.json: {ORDER}: painted in this order, {list(labels.paint_values or ())}, later over earlier as "
        f"nnU-Net does, a prediction without any mistake gives back {lost}, on these label files. Here a combination "
        "of regions that a value has of its own is painted with that value; all other combinations, which come of "
        f"mistakes, are painted in this order. {remedy}"
    ]


def _shown(dice: float | None) -> str:
    if dice is None:
        return "no voxel"
    return "more than 0.999" if 0.9995 <= dice < 1 else f"{dice:.3f}"
