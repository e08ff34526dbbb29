"""Files that belong to the predictions in a folder: images, references, uncertainty maps, and the meaning of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import ConfigError, DatasetError
from autoseg.core.location import path_of
from autoseg.core.prediction_record import read_prediction_record
from autoseg.dataset.case_files import find_image_cases
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.folder_files import has_ending, visible
from autoseg.evaluation.matching import label_files, load_dataset
from autoseg.io.images import SUPPORTED_ENDINGS
from autoseg.report.case_panels import PictureFiles
from autoseg.report.prediction_tables import uncertainty_map


@dataclass(frozen=True, slots=True)
class Places:
    """Places that a user named; None: they are searched."""

    images: Path | None = None
    """Folder of the images."""
    references: Path | None = None
    """Folder of the reference label maps."""
    dataset_json: Path | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Predictions in a folder, with what belongs to them."""

    dataset: Dataset | None
    """Meaning of the labels; None if no dataset.json was found."""
    cases: Mapping[str, PictureFiles]
    """Sorted by case."""
    remarks: tuple[str, ...]
    """What was not found, and what to do."""


def find_predictions(folder: Path, places: Places, references: Mapping[str, Path]) -> Predictions:
    """Return the predictions in a folder.

    Images and references come from the folders in ``places``; otherwise images from the record of the prediction, and
    references from ``references`` (case -> file, as an evaluation names them); images also from the data set that
    holds a reference. Files that do not exist are left out.

    Raises
    ------
    ConfigError
        If a given place does not exist, or holds no images.
    EvaluationError
        If a folder holds several label maps of one case, or that of the references none.
    """
    dataset = _dataset(folder, places, references)
    if dataset is None:
        remark = "no pictures: found no dataset.json, which gives the meaning of the labels; give it with -d"
        return Predictions(None, {}, (remark,))
    if not any(path.name.lower().endswith(SUPPORTED_ENDINGS) for path in visible(folder)):
        return Predictions(dataset, {}, (f"no pictures: {folder} holds no label maps",))
    predicted = label_files(folder, dataset.file_ending)
    known = {case: path for case, path in references.items() if path_of(path).exists()}
    if places.references is not None:
        known = label_files(places.references, dataset.file_ending)
    training = _training_cases(known)
    images = _images(folder, places, dataset)
    cases = {}
    for case, path in predicted.items():
        own = training.get(case)
        mask = own.valid_mask if own is not None and own.label == known.get(case) else None
        files = images.get(case) or (() if own is None else own.images)
        doubt = uncertainty_map(folder, case, SUPPORTED_ENDINGS)
        cases[case] = PictureFiles(case, path, tuple(files), known.get(case), mask, doubt)
    return Predictions(dataset, cases, _remarks(cases, references, known, places))


def _remarks(
    cases: Mapping[str, PictureFiles], references: Mapping[str, Path], known: Mapping[str, Path], places: Places
) -> tuple[str, ...]:
    lines = []
    if cases and not any(files.images for files in cases.values()):
        first = next(iter(cases))
        lines.append(
            "no images: they were not recorded, or are not where they were; give their folder with -i"
            if places.images is None
            else f"no images: -i {places.images} holds none of these cases, such as {first}"
        )
    if places.references is not None and cases and not any(files.reference for files in cases.values()):
        lines.append(f"no truth: -r {places.references} holds none of these cases, such as {next(iter(cases))}")
    elif references and not known:
        scored = next(iter(references.values()))
        lines.append(f"no truth: the references are not where they were scored ({scored}); give their folder with -r")
    return tuple(lines)


def _dataset(folder: Path, places: Places, references: Mapping[str, Path]) -> Dataset | None:
    """Return the data set that gives the meaning of labels; None if there is none beside predictions or references."""
    if places.dataset_json is not None:
        return load_dataset(places.dataset_json)
    given = [] if places.references is None else [places.references, places.references.resolve().parent]
    beside = [place for path in [*references.values()][:1] for place in (path.parent, path.parent.resolve().parent)]
    for place in (folder, *given, *beside):
        if (place / DATASET_JSON).is_file():
            return load_dataset(place)
    return None


def _training_cases(references: Mapping[str, Path]) -> dict[str, CaseFiles]:
    """Return case -> files of the data set whose label files the references are; empty if they are of none."""
    first = next(iter(references.values()), None)
    if first is None or not (first.parent.resolve().parent / DATASET_JSON).is_file():
        return {}
    try:
        dataset, _ = Dataset.examine(first.parent.resolve().parent)
    except DatasetError:
        return {}
    labels = {path.resolve() for path in references.values()}
    return {case.name: case for case in dataset.cases if case.label is not None and case.label.resolve() in labels}


def _images(folder: Path, places: Places, dataset: Dataset) -> Mapping[str, tuple[Path, ...]]:
    if places.images is None:
        recorded = read_prediction_record(folder).images
        found = {case: tuple(map(Path, files)) for case, files in recorded.items()}
        return {case: files for case, files in found.items() if all(path_of(path).exists() for path in files)}
    names = [path.name for path in visible(places.images)] if places.images.is_dir() else []
    endings = [dataset.file_ending, *SUPPORTED_ENDINGS]
    ending = next((end for end in endings if any(has_ending(name, f"_0000{end}") for name in names)), endings[0])
    cases, faults = find_image_cases(places.images, ending, len(dataset.channels))
    if not cases:
        raise ConfigError(f"-i {places.images}: {faults[0]}")
    return cases


def check_places(places: Places) -> None:
    """Raise ``ConfigError`` naming a given place that does not exist."""
    for flag, path in (("-i", places.images), ("-r", places.references), ("-d", places.dataset_json)):
        if path is not None and not path.exists():
            raise ConfigError(f"{flag} {path}: no such file or folder. Correct the path.")
