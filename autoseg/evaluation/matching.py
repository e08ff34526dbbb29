"""Which prediction file belongs to which reference file, and which dataset.json says what their values mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autoseg.core.errors import EvaluationError
from autoseg.core.findings import Findings
from autoseg.dataset.case_files import label_folder_name, resolved_path
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.dataset_json import read_dataset_json
from autoseg.dataset.folder_files import has_ending, image_ending, stem_of, visible
from autoseg.dataset.schema import MASK_FOLDER
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
    masks_folder = resolved_path(path.parent, dataset.json[MASK_FOLDER])
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

    Files with ``ending`` are taken (in capital or small letters), and files of other kinds for the cases that have
    none; pictures beside volumes are no label maps. A link whose target is missing counts: reading it will fail, by
    name. Hidden files (temporary ones of a writer) are not seen.

    Raises
    ------
    EvaluationError
        If the folder does not exist or is a file, holds no label map, or holds several files for one case.
    """
    if not folder.is_dir():
        raise EvaluationError(_no_folder(folder))
    entries = [path for path in visible(folder) if path.is_symlink() or not path.is_dir()]
    wanted = [path for path in entries if has_ending(path.name, ending)]
    found = _by_case(folder, ((stem_of(path, ending), path) for path in wanted))
    others = [
        (ending_of(path), path)
        for path in entries
        if path not in wanted and path.name.lower().endswith(SUPPORTED_ENDINGS)
    ]
    if not wanted:
        _check_one_kind(folder, {other for other, _ in others}, ending)
    else:
        others = [(other, path) for other, path in others if image_ending(path.name, ending)]
    further = ((stem_of(path, other), path) for other, path in others)
    found |= _by_case(folder, ((case, path) for case, path in further if case not in found))
    return dict(sorted(found.items()))


def _by_case(folder: Path, files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for case, path in files:
        if case in found:
            raise EvaluationError(
                f"{folder}: found {found[case].name!a} and {path.name!a} for the case {case!r}, expected one file. "
                "Remove one of them."
            )
        found[case] = path
    return found


def _check_one_kind(folder: Path, endings: set[str], ending: str) -> None:
    if len(endings) == 1:
        return
    found = f"files of several kinds ({', '.join(sorted(endings))})" if endings else "no label map"
    raise EvaluationError(
        f"{folder}: found {found}, expected files ending in {ending!r}. "
        "Correct the path, or file_ending in dataset.json."
    )


def _no_folder(folder: Path) -> str:
    if not folder.is_file():
        return f"{folder}: found no such folder, expected one with label maps. Correct the path."
    return (
        f"{folder}: found a file, expected a folder with label maps. Give the folder that it lies in, {folder.parent}; "
        "to score this file alone, put it into a folder of its own."
    )
