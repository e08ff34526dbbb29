"""Which prediction file belongs to which reference file, and which dataset.json says what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autoseg.core.case_files import label_folder_name, mask_folder_of, resolved_path
from autoseg.core.dataset import Dataset
from autoseg.core.dataset_json import read_dataset_json
from autoseg.core.errors import EvaluationError
from autoseg.core.findings import Findings
from autoseg.io.images import SUPPORTED_ENDINGS, ending_of


def find_dataset_json(reference: Path, predictions: Path) -> Path:
    """Return the dataset.json beside the predictions, else the references, else in the parent of the references.

    Raises ``EvaluationError`` naming the places if there is none.
    """
    places = [predictions, reference, reference.resolve().parent]
    for place in places:
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    raise EvaluationError(
        f"dataset.json: found none in {', '.join(map(str, places))}, expected one that says what the label values "
        "mean. Give it with -d."
    )


def load_dataset(given: str | Path | Mapping[str, Any] | Dataset) -> Dataset:
    """Return the data set that ``given`` is, holds (a mapping), or points to (a file, or a folder with one).

    Only what dataset.json says is needed: the images and labels that it belongs to need not be there.
    Raises ``DatasetError`` with every fault.
    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, Mapping):
        return Dataset.from_json(given, name="dataset.json", folder=None)
    path = Path(given)
    path = path / "dataset.json" if path.is_dir() else path
    findings = Findings(str(path))
    content = read_dataset_json(path, findings)
    findings.raise_if_faulty()
    return Dataset.from_json(content, name=path.resolve().parent.name, folder=None)


def find_reference_masks(
    given: str | Path | Mapping[str, Any] | Dataset, dataset: Dataset, references: Mapping[str, Path]
) -> dict[str, Path]:
    """Return the valid masks of references that are the label files of the data set itself; others have none.

    Parameters
    ----------
    given
        What ``dataset`` was loaded from. The content of a dataset.json alone does not say where the masks are.
    references
        Case -> file.
    """
    if not dataset.labels.has_masks or isinstance(given, Mapping):
        return {}
    if isinstance(given, Dataset):
        masks = {case.label.resolve(): case.valid_mask for case in dataset.cases if case.label and case.valid_mask}
        return {name: masks[path.resolve()] for name, path in references.items() if path.resolve() in masks}
    path = Path(given).resolve()
    path = path / "dataset.json" if path.is_dir() else path
    own = _label_files_of(path, dataset.json)
    masks_folder = mask_folder_of(path.parent, dataset.json)
    return {name: masks_folder / file.name for name, file in references.items() if own(file)}


def _label_files_of(path: Path, content: Mapping[str, Any]) -> Callable[[Path], bool]:
    """Return what tells whether a file is a label file of the data set whose dataset.json, ``content``, is ``path``."""
    section = content.get("dataset")
    if isinstance(section, Mapping):
        entries = [entry for entry in section.values() if isinstance(entry, Mapping)]
        labels = [entry["label"] for entry in entries if isinstance(entry.get("label"), str)]
        listed = {resolved_path(path.parent, label).resolve() for label in labels}
        return lambda file: file.resolve() in listed
    folder = (path.parent / label_folder_name(path.parent, path.name)).resolve()
    return lambda file: file.parent.resolve() == folder  # the file itself may be a link into a store


def label_files(folder: Path, ending: str) -> dict[str, Path]:
    """Return the label maps of a folder by case name, sorted.

    Files with ``ending`` are taken; if there is none, those with the only other supported ending. Hidden files
    (temporary ones of a writer) are not seen.

    Raises
    ------
    EvaluationError
        If the folder does not exist, holds no label map, or holds several kinds, none of them ``ending``.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: found no such folder, expected one with label maps. Correct the path.")
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    wanted = [path for path in files if path.name.endswith(ending)]
    if wanted:
        return {path.name[: -len(ending)]: path for path in wanted}
    by_ending: dict[str, dict[str, Path]] = {}
    for path in files:
        if path.name.lower().endswith(SUPPORTED_ENDINGS):
            found = ending_of(path)
            by_ending.setdefault(found, {})[path.name[: -len(found)]] = path
    if len(by_ending) == 1:
        return next(iter(by_ending.values()))
    found_endings = f"files of several kinds ({', '.join(sorted(by_ending))})" if by_ending else "no label map"
    raise EvaluationError(
        f"{folder}: found {found_endings}, expected files ending in {ending!r}. "
        "Correct the path, or file_ending in dataset.json."
    )
