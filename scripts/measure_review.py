"""Measure whether ``autoseg_complete --review`` lists faults of annotators before faults of the model.

python scripts/measure_review.py DATASET MODEL_FOLDER --work FOLDER

In a copy of a dense data set, annotation of two thirds of the cases gets a slip (a ball of another class), and the
images of the others are blurred and noisy, so that the model is at fault there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.assist.complete import CompletionOptions, complete_dataset
from autoseg.cli import common
from autoseg.core.arrays import BoolArray
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation.disagreement import Disagreement, surest_first
from autoseg.inference.out_of_fold import fold_cases
from autoseg.io.images import read_image, read_labels, write_labels, write_values

RADIUS = 2.5
"""Of a slip, in voxels."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(measure)


def measure(
    dataset: Annotated[Path, typer.Argument(help="Folder of the dense data set of the model.")],
    model: Annotated[Path, typer.Argument(help="Model folder with all folds.")],
    *,
    work: Annotated[Path, typer.Option("--work", help="New folder for the copy and its completion.")],
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Print the precision at the top of the list in both orders."""
    source = Dataset.load(dataset)
    rng = np.random.default_rng(seed)
    slips: dict[str, BoolArray] = {}
    folds = {case: fold for fold, cases in fold_cases(model).items() for case in cases.val}
    for index, case in enumerate(sorted(folds)):
        files = source.case(case)
        image, geometry = read_image(files.images)
        labels, _ = read_labels(files.label or Path())
        is_poor = index % 3 == 0
        if is_poor:
            image = worsened(image, rng)
        labels, slips[case] = (labels, np.zeros(labels.shape, bool)) if is_poor else with_slip(labels, rng)
        for number, channel in enumerate(image):
            path = work / "copy" / "imagesTr" / f"{case}_{number:04d}{source.file_ending}"
            write_values(path, channel[None].astype(np.float32), geometry)
        write_labels(work / "copy" / "labelsTr" / f"{case}{source.file_ending}", labels, geometry)
    content = {**source.json, "numTraining": len(folds)}
    (work / "copy" / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    options = CompletionOptions(device="cpu", review=True)
    report = complete_dataset(Dataset.load(work / "copy"), model, folds, work / "completed", options)
    groups = report.disagreements or ()
    by_probability = sorted(groups, key=lambda group: (-round(group.mean_probability, 3), -group.n_voxels))
    blind = surest_first(group.model_copy(update={"predicted_dice": None}) for group in groups)
    planted = sum(mask.any() for mask in slips.values())
    print(f"{planted} slips, {len(folds) - planted} cases with poor images, {len(groups)} places listed")
    print("| order | top 10 | top 20 | top 40 | top 60 |\n|---|---|---|---|---|")
    orders = (("mean probability", by_probability), ("as listed, but for the Dice", blind), ("as listed", groups))
    for name, ranked in orders:
        cells = " | ".join(f"{precision(ranked[:n], slips):.2f}" for n in (10, 20, 40, 60))
        print(f"| {name} | {cells} |")


def precision(groups: Sequence[Disagreement], slips: dict[str, BoolArray]) -> float:
    """Return the share of groups whose central voxel lies in a slip."""
    hits = [bool(slips[group.case][group.z, group.y, group.x]) for group in groups]
    return sum(hits) / len(hits) if hits else 0.0


def worsened(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image (C, z, y, x), blurred and with noise as strong as its contrast."""
    blurred = np.stack([ndimage.gaussian_filter(channel.astype(np.float32), 2.0) for channel in image])
    noisy: NDArray[np.float32] = blurred + rng.normal(0, 1.0 * image.std(), image.shape).astype(np.float32)
    return noisy


def with_slip(
    labels: NDArray[np.unsignedinteger], rng: np.random.Generator
) -> tuple[NDArray[np.unsignedinteger], BoolArray]:
    """Return labels (z, y, x) in which a ball within the foreground has another class, and the changed voxels."""
    z, y, x = rng.choice(np.argwhere(ndimage.binary_erosion(labels > 0, iterations=2)))
    grid = np.indices(labels.shape)
    near = ((grid - np.array([z, y, x])[:, None, None, None]) ** 2).sum(axis=0) <= RADIUS**2
    others = [value for value in np.unique(labels) if value != labels[z, y, x]]
    changed = labels.copy()
    changed[near] = rng.choice(others)
    return changed, changed != labels


if __name__ == "__main__":
    main()
