"""Ranking of the slices or patches of a data set of the workspace, and the files with the suggestions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.assist.complete import possible_classes
from autoseg.assist.suggest import Ranking, Units, members_of, rank
from autoseg.assist.suggest_case import Selection
from autoseg.assist.suggestion_files import maps_folder, write_suggestions
from autoseg.core.errors import ConfigError, DatasetError
from autoseg.core.progress import Stages, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.folder_files import strays
from autoseg.inference.out_of_fold import CaseModels, seen_cases
from autoseg.inspection.statements import with_known_promises

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SuggestionOptions:
    """Images to rank, settings of the prediction, and the output folder."""

    output: Path
    """Folder for table, JSON and picture; made if missing."""
    inputs: Path | None = None
    """Folder of images to rank instead of the training cases; none of them is annotated."""
    folds: Sequence[str] | None = None
    """Folds that predict; None takes all finished folds."""
    n_pictures: int = 12
    """Number of suggestions in the picture; 0 draws no picture."""
    device: str = "auto"
    mirror: bool = True
    """Average over mirrored copies of the image."""
    read_ahead: bool = False
    """Read the next case while the network computes."""


def suggest_places(
    workspace: Workspace,
    dataset: Dataset,
    model_folder: Path,
    units: Units,
    selection: Selection,
    options: SuggestionOptions,
    *,
    stages: Stages = silent_stages,
) -> tuple[Ranking, dict[str, Any]]:
    """Rank slices or patches by the model's uncertainty and write the files; return the ranking and the JSON content.

    ``model_folder`` is as :func:`autoseg.assist.trained_model.trained_model` returns it. A case that fails does not
    stop the others. Raises ``DatasetError`` with the faults of ``options.inputs``, ``ConfigError`` if
    ``options.output`` holds a data set, ``ModelError`` if a fold is missing.
    """
    dataset = with_known_promises(dataset, workspace.preprocessed(dataset.name))
    if units.by == "slice" and units.axis is None:
        units = replace(units, axis=dataset.protocol.slice_axis)
    inputs, folder = options.inputs, options.output
    cases = {case.name: case for case in dataset.cases} if inputs is None else images_in(inputs, dataset)
    members = members_of(model_folder, list(cases), list(options.folds or []) or None)
    trained_on = seen_cases(model_folder, members)
    models = CaseModels(model_folder, members, options.device, mirror=options.mirror, seen_cases=trained_on)
    refuse_data_sets(folder)
    with maps_folder(folder) as maps:
        with stages("predict") as progress:
            ranking = rank(
                cases, models, dataset.labels, units, selection,
                left=lambda case: possible_classes(case, dataset) or case.target, maps=maps,
                read_ahead=options.read_ahead, progress=progress,
            )  # fmt: skip
        settings = described(dataset, model_folder, inputs, units, selection)
        result = write_suggestions(
            ranking, settings, cases, dataset.labels, folder, maps, n_pictures=options.n_pictures
        )
    return ranking, result


def images_in(folder: Path, dataset: Dataset) -> dict[str, CaseFiles]:
    """Return the cases of a folder of images, without annotation; raise ``DatasetError`` with all faults."""
    images, faults = find_image_cases(folder, dataset.file_ending, len(dataset.channels))
    faults += strays(folder, dataset.file_ending) if images else []
    if faults:
        raise DatasetError(faults)
    return {name: CaseFiles(name, files) for name, files in images.items()}


def refuse_data_sets(folder: Path) -> None:
    """Raise ``ConfigError`` if ``folder`` holds images or a data set."""
    if (folder / "imagesTr").is_dir() or (folder / "dataset.json").is_file():
        raise ConfigError(f"{folder}: found a data set, expected a folder for suggestions. Choose another -o.")


def described(dataset: Dataset, model: Path, inputs: Path | None, units: Units, selection: Selection) -> dict[str, Any]:
    """Return sources and settings of the suggestions as plain JSON values."""
    return {
        "dataset": dataset.name,
        "model": str(model),
        "images": None if inputs is None else str(inputs),
        "by": units.by,
        "patch_size": None if units.patch_size is None else list(units.patch_size),
        "method": selection.method,
        "number": selection.number,
        "per_case": selection.case_share,
        "round": selection.round,
        "seed": selection.seed,
    }
