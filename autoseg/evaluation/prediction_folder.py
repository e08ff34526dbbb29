"""Folders of label maps that are made of other folders of predictions: their checks, and their dataset.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.core.atomic import write_json, write_text
from autoseg.core.errors import AutosegError, ConfigError, EvaluationError
from autoseg.core.findings import counted, listed
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.folder_files import refuse_dataset_folder
from autoseg.io.images import ending_of, written_ending

PLANS_JSON = "plans.json"


@dataclass(frozen=True, slots=True)
class FolderReport:
    """Result of each case of a folder."""

    done: Mapping[str, int] = field(default_factory=dict)
    """Written case -> number of voxels with another class than in the (first) input."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> reason why it has no label map."""


def report_of(names: Iterable[str], results: Iterable[int | AutosegError]) -> FolderReport:
    """Return the report of cases, each with its number of changed voxels or an error."""
    pairs = dict(zip(names, results, strict=True))
    return FolderReport(
        {name: result for name, result in pairs.items() if not isinstance(result, AutosegError)},
        {name: str(result) for name, result in pairs.items() if isinstance(result, AutosegError)},
    )


def check_input(folder: Path) -> None:
    """Raise ``EvaluationError`` unless a folder of predictions exists."""
    if folder.is_dir():
        return
    if folder.exists():
        problem, fix = "found a file, expected a folder of predictions", f"Give its folder, {folder.parent}."
    else:
        problem, fix = "no such folder, expected a folder of predictions", "Correct the path."
    raise EvaluationError(f"{folder}: {problem}. {fix}")


def output_path(folder: Path, case: str, label_map: Path, dataset: Dataset) -> Path:
    """Return the path of a label map with the ending of another, or the nearest format that can be written."""
    return folder / f"{case}{written_ending(ending_of(label_map), max(dataset.labels.class_values))}"


def prepare_output(
    folder: Path, inputs: Iterable[Path], dataset: Dataset, outputs: Iterable[Path], *, overwrite: bool
) -> None:
    """Make the output folder, with the dataset.json of the inputs and the plans.json of the first.

    Parameters
    ----------
    folder
        Output folder.
    inputs
        Folders of predictions; none of them may be the output folder.
    dataset
        That of the inputs.
    outputs
        Label maps that will be written.
    overwrite
        Whether they may exist.

    Raises
    ------
    ConfigError
        If the folder is a file, one of the inputs, or belongs to a data set, or holds label maps that may not be
        overwritten.
    """
    given, paths = list(inputs), list(outputs)
    if any(folder.resolve() == item.resolve() for item in given):
        raise ConfigError(f"output folder {folder}: found the predictions in it, expected another folder. Change -o.")
    refuse_dataset_folder(folder)
    existing = [path.name for path in paths if path.exists()]
    if existing and not overwrite:
        raise ConfigError(
            f"output folder {folder}: found {counted(len(existing), 'label map')} of an earlier run "
            f"({listed(existing)}), expected none. Change -o, or add --overwrite."
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DATASET_JSON, {**dataset.json, "file_ending": ending_of(paths[0])})
    if (given[0] / PLANS_JSON).is_file():
        write_text(folder / PLANS_JSON, (given[0] / PLANS_JSON).read_text(encoding="utf-8"))
