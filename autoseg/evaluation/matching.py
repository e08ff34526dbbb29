"""Which prediction file belongs to which reference file, and which dataset.json says what their values mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
