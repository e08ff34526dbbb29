"""Search for the files of an evaluation: label maps by case, valid masks of references, and dataset.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from autoseg.core.errors import EvaluationError
from autoseg.core.findings import Findings
from autoseg.core.location import ARRAY_ENDINGS, FOLDER_ENDINGS
from autoseg.dataset.case_files import label_folder_name, resolved_path
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.dataset_json import read_dataset_json
from autoseg.dataset.folder_files import has_ending, image_ending, stem_of, visible
from autoseg.dataset.schema import MASK_FOLDER
from autoseg.io.images import SUPPORTED_ENDINGS, ending_of
from autoseg.io.tile_json import describes_tiles


def find_dataset_json(reference: Path, predictions: Path) -> Path:
    """Return the dataset.json beside the predictions, otherwise beside the references, otherwise in the folder above.

    Raises ``EvaluationError`` naming these folders if there is none.
    """
    places = [predictions, reference, reference.resolve().parent]
    for place in places:
        if (place / "dataset.json").is_file():
            return place / "dataset.json"
    raise EvaluationError(
        f"dataset.json, which gives the meaning of the label values: found none in {', '.join(map(str, places))}. "
        "Give its path with -d."
    )


def load_dataset(given: str | Path | Mapping[str, Any] | Dataset) -> Dataset:
    """Return the data set for ``given``: a data set, the content or path of a dataset.json, or a folder that holds it.

    Only dataset.json is read; its images and labels need not exist. Raises ``DatasetError`` with every fault.
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
    """Return case -> valid mask for the references that are label files of the data set; other references have none.

    Parameters
    ----------
    given
        The argument from which ``dataset`` was loaded. The content of a dataset.json does not give the place of masks;
        the result is then empty.
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
    """Return a predicate: whether a file is a label file of the data set with dataset.json ``path`` and ``content``."""
    section = content.get("dataset")
    if isinstance(section, Mapping):
        entries = [entry for entry in section.values() if isinstance(entry, Mapping)]
        labels = [entry["label"] for entry in entries if isinstance(entry.get("label"), str)]
        listed = {resolved_path(path.parent, label).resolve() for label in labels}
        return lambda file: file.resolve() in listed
    folder = (path.parent / label_folder_name(path.parent, path.name)).resolve()
    return lambda file: file.parent.resolve() == folder  # the file itself may be a link into a store


def label_files(folder: Path, ending: str, *, with_arrays: bool = False) -> dict[str, Path]:
    """Return case -> label map for the files of a folder, sorted by case.

    Files with ``ending`` (in upper or lower case) are label maps. So are files with another supported ending, for cases
    without a file with ``ending``; but pictures in a folder of volumes are not. A link without its target is included:
    reading it will raise an error that names it. Hidden files (temporary files of a writer) are ignored.

    With ``with_arrays``, arrays are label maps, too: folders ``case.zarr`` and ``case.n5``, files ``case.h5`` and
    ``case.npy``, and the description of tiles ``case.json``.

    Raises
    ------
    EvaluationError
        If the folder does not exist or is a file, holds no label map, or holds several files for one case.
    """
    if not folder.is_dir():
        raise EvaluationError(_no_folder(folder))
    entries = [path for path in visible(folder) if path.is_symlink() or not path.is_dir()]
    arrays = [path for path in visible(folder) if with_arrays and _array_ending(path)]
    wanted = [path for path in dict.fromkeys((*entries, *arrays)) if has_ending(path.name, ending)]
    files = _by_case(folder, ((stem_of(path, ending), path) for path in wanted))
    others = [
        (ending_of(path), path)
        for path in entries
        if not has_ending(path.name, ending) and path.name.lower().endswith(SUPPORTED_ENDINGS)
    ]
    further = [(_array_ending(path), path) for path in arrays if path not in wanted]
    if not wanted:
        _check_one_kind(folder, {other for other, _ in (*others, *further)}, ending)
    else:
        others = [(other, path) for other, path in others if image_ending(path.name, ending)]
    by_name = ((stem_of(path, other), path) for other, path in (*others, *further))
    files |= _by_case(folder, ((case, path) for case, path in by_name if case not in files))
    return dict(sorted(files.items()))


def _array_ending(path: Path) -> str:
    """Return the ending of the name of an array that is no image file; "" for anything else."""
    for ending in ARRAY_ENDINGS:
        if has_ending(path.name, ending) and path.is_dir() == (ending in FOLDER_ENDINGS):
            return path.name[-len(ending) :]
    return path.name[-5:] if has_ending(path.name, ".json") and describes_tiles(path) else ""


def _by_case(folder: Path, files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return case -> file. Raise ``EvaluationError`` if a case has several files."""
    by_case: dict[str, Path] = {}
    for case, path in files:
        if case in by_case:
            raise EvaluationError(
                f"{folder}: found {by_case[case].name!a} and {path.name!a} for the case {case!r}, expected one file. "
                "Remove one of them."
            )
        by_case[case] = path
    return by_case


def _check_one_kind(folder: Path, endings: set[str], ending: str) -> None:
    """Raise ``EvaluationError`` unless the files of a folder without ``ending`` have one other ending in common."""
    if len(endings) == 1:
        return
    problem = f"files of several kinds ({', '.join(sorted(endings))})" if endings else "no label map"
    raise EvaluationError(
        f"{folder}: found {problem}, expected files ending in {ending!r}. "
        "Correct the path, or file_ending in dataset.json."
    )


def _no_folder(folder: Path) -> str:
    if not folder.is_file():
        return f"{folder}: no such folder, expected a folder with label maps. Correct the path."
    return (
        f"{folder}: found a file, expected a folder with label maps. Give the folder of the file, {folder.parent}; to "
        "score this file alone, put it into a separate folder."
    )
