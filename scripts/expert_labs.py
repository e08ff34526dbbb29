"""Images of a lab with the masks of its experts, as ``measure_experts.py`` needs them: fused data sets, references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.cli.fuse_experts import fuse_experts
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.pairing import pair_by_name
from autoseg.evaluation import Summary, evaluate_folder
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.planning.splits import NNUNET_SPLITS_FILE

TRUTH = "est_GT"
"""Folder of the masks that the authors of the images published as their truth."""
IGNORED_REGIONS = "ignored_regions"
UNLABELLED = 2
"""Value, in masks and references, of regions that the lab's experts left out; the masks are 0 and 1 elsewhere."""
REFERENCE_JSON = {
    "channel_names": {"0": "image"}, "labels": {"background": 0, "foreground": 1, "ignore": UNLABELLED},
    "numTraining": 0, "file_ending": ".png",
}  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """Images of one laboratory: ``images``, ``labels/EXPERT`` and ``labels/est_GT``, perhaps ``ignored_regions``."""

    name: str
    folder: Path
    experts: tuple[str, ...]
    cases: tuple[str, ...]
    """Names of the images, sorted."""
    has_ignored: bool


def find_labs(data: Path, names: Sequence[str] | None) -> list[Lab]:
    """Return the labs of a folder that are asked for (None: all); raise ``ConfigError`` if one is not there."""
    folders = {folder.parent.name: folder.parent for folder in sorted(data.glob("*/images"))}
    missing = sorted({*(names or ())} - {*folders})
    if missing or not folders:
        raise ConfigError(
            f"{data}: found {listed(folders) if folders else 'no lab'}, expected "
            f"{listed(missing) if missing else 'folders with images and labels'}. "
            "Give the folder that holds LAB/images, LAB/labels/EXPERT and LAB/labels/est_GT."
        )
    return [read_lab(folders[name]) for name in (names or folders)]


def read_lab(folder: Path) -> Lab:
    """Return the lab in ``folder``; raise ``ConfigError`` if it has no truth or fewer than two experts."""
    experts = sorted(path.name for path in (folder / "labels").glob("*/") if path.name != TRUTH)
    if len(experts) < 2 or not (folder / "labels" / TRUTH).is_dir():
        raise ConfigError(
            f"{folder / 'labels'}: found {listed(experts) if experts else 'no expert'}, expected two experts or more "
            f"and {TRUTH}. Each needs a folder of masks."
        )
    cases = sorted(path.stem for path in (folder / "images").iterdir())
    return Lab(folder.name, folder, tuple(experts), tuple(cases), (folder / IGNORED_REGIONS).is_dir())


def masks_of(lab: Lab, folder: Path) -> dict[str, Path]:
    """Return case -> file of a folder of masks; raise ``ConfigError`` if a case has none."""
    pairs = pair_by_name(sorted((lab.folder / "images").iterdir()), sorted(folder.iterdir())).pairs
    missing = sorted({*lab.cases} - {*pairs})
    if missing:
        raise ConfigError(f"{folder}: found no mask of {listed(missing)}, expected one of each image. Add them.")
    return {case: mask for case, (_, mask) in pairs.items()}


def write_masks(lab: Lab, work: Path) -> None:
    """Write ``work/masks/EXPERT`` and ``work/truth`` with values 0, 1 and ``UNLABELLED``; once."""
    ignored = masks_of(lab, lab.folder / IGNORED_REGIONS) if lab.has_ignored else {}
    targets = {name: work / "masks" / name for name in lab.experts} | {TRUTH: work / "truth"}
    for name, target in targets.items():
        target.mkdir(parents=True, exist_ok=True)
        for case, path in masks_of(lab, lab.folder / "labels" / name).items():
            if (target / f"{case}.png").is_file():
                continue
            values, geometry = read_labels(path)
            binary = (values > 0).astype(np.uint8)
            if case in ignored:
                region, _ = read_image([ignored[case]])  # may have three channels
                binary[region.max(axis=0) > 0] = UNLABELLED
            write_labels(target / f"{case}.png", binary, geometry)


def fused(lab: Lab, work: Path, method: str, number: int, held_out: Sequence[str]) -> Dataset:
    """Return the data set of the lab's fused masks, made unless it is there; its fold 0 holds out ``held_out``."""
    folder = work / "raw" / f"Dataset{number:03d}_{lab.name.replace('-', '_')}_{method}"
    if not (folder / DATASET_JSON).is_file():
        fuse_experts(
            work / "masks", output=folder, images=lab.folder / "images", method=method, pictures=False, workers=1,
            unlabelled=UNLABELLED if lab.has_ignored else None, quiet=True,
        )  # fmt: skip
        training = [case for case in lab.cases if case not in held_out]
        write_json(folder / NNUNET_SPLITS_FILE, [{"train": training, "val": list(held_out)}])
    return Dataset.load(folder)


def dice_with_truth(work: Path, predictions: Path, cases: Sequence[str]) -> dict[str, float]:
    """Return case -> Dice of a folder of label maps with the truth, outside regions that the experts left out."""
    return per_case(evaluate_folder(work / "truth", predictions, REFERENCE_JSON, cases=cases))


def dice_where_agreed(sets: Dataset, predictions: Path, cases: Sequence[str]) -> dict[str, float]:
    """Return case -> Dice of a folder of label maps at the voxels that all experts labelled alike.

    ``sets`` is the data set of the method ``sets``. With two classes its label maps hold these voxels, the rest is
    ignored, because a voxel that may be either of the two classes may be any.
    """
    return per_case(evaluate_folder(sets.folder / "labelsTr", predictions, REFERENCE_JSON, cases=cases))


def undecided_share(work: Path, dataset: Dataset, cases: Sequence[str]) -> float:
    """Return the undecided voxels of fused masks as a share of the truth's foreground, both summed over the cases.

    Regions that the experts left out do not count. 0 if the truth has no foreground.
    """
    n_undecided = n_truth = 0
    for case in cases:
        truth, _ = read_labels(work / "truth" / f"{case}.png")
        labels, _ = read_labels(dataset.folder / "labelsTr" / f"{case}.png")
        n_undecided += int(((labels == UNLABELLED) & (truth != UNLABELLED)).sum())
        n_truth += int((truth == 1).sum())
    return n_undecided / n_truth if n_truth else 0.0


def size_of_truth(work: Path, predictions: Path, cases: Sequence[str]) -> dict[str, float]:
    """Return case -> predicted foreground as a share of the truth's, outside regions that the experts left out."""
    summary = evaluate_folder(work / "truth", predictions, REFERENCE_JSON, cases=cases)
    counts = {case.case: case.metrics["1"] for case in summary.metric_per_case}
    return {case: metrics.n_pred / metrics.n_ref if metrics.n_ref else 0.0 for case, metrics in counts.items()}


def dice_of_masks(work: Path, masks: Path, name: str, cases: Sequence[str]) -> dict[str, float]:
    """Return case -> Dice of masks with the truth; what they leave open counts as background.

    A copy of the masks in which it is so is written to ``work/scored/NAME``.
    """
    target = work / "scored" / name
    target.mkdir(parents=True, exist_ok=True)
    for case in cases:
        values, geometry = read_labels(masks / f"{case}.png")
        write_labels(target / f"{case}.png", (values == 1).astype(np.uint8), geometry)
    return dice_with_truth(work, target, cases)


def per_case(summary: Summary) -> dict[str, float]:
    """Return case -> Dice of the foreground, 1 where neither side has any (with two empty masks nothing is wrong)."""
    dice: Mapping[str, float | None] = {case.case: case.metrics["1"].Dice for case in summary.metric_per_case}
    return {case: 1.0 if value is None else value for case, value in dice.items()}
