"""Label files of the cases that have masks of several experts: fused once, and from then on like all label files.

They lie in the workspace, in the folder of the preprocessed data set: ``experts/labelsTr``, with a dataset.json that
says what their values mean, and the tables of ``autoseg_fuse_experts``. Whoever opens a data set asks for them here, so
that no later step needs to know of experts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from autoseg.annotation.votes import NO_VOTE
from autoseg.core.atomic import write_json
from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import counted, listed
from autoseg.core.json_models import save_model
from autoseg.core.progress import Progress, silent
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.file_values import DECLARE_VALUES, NAN_VALUE, value_name
from autoseg.dataset.labels import Labels, unknown_values
from autoseg.interop.expert_masks import MaskSet
from autoseg.interop.expert_tables import write_tables
from autoseg.interop.fuse_experts import FusedFiles, FusionSettings, found_meanings, fuse_masks
from autoseg.interop.fused_values import STEPS, FileValues, Meaning, further_values
from autoseg.interop.mask_votes import MaskReading, MaskVotes, place_of, read_votes
from autoseg.io.images import written_ending
from autoseg.preprocessing.freshness import file_stamp, short_hash

FOLDER, LABELS, RECORD = "experts", "labelsTr", "fusion.json"
FUSION_VERSION = 1
"""Number to be raised when the same masks are fused to other labels."""
_log = logging.getLogger(__name__)


class FusionRecord(BaseModel):
    """Content of ``fusion.json``: what label files were made of, and what they add to the data set's dataset.json."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    """Hash over masks, settings and labels."""
    ignore: int | None
    """Value of unknown voxels, to be declared as ``labels.ignore``; None if none occurs, or one was declared before."""
    further: dict[str, dict[str, Any]]
    """What is to be added to ``label_sets`` and ``label_weights``."""


def has_experts(dataset: Dataset) -> bool:
    """Whether label files of the data set are still to be fused."""
    return any(case.experts for case in dataset.cases)


def open_dataset(given: Dataset | str | Path, space: Workspace) -> Dataset:
    """Return a data set, or that which a path or a name in the workspace means, with fused labels.

    Raises what ``Dataset.load`` and :func:`with_fused_labels` raise.
    """
    dataset = given if isinstance(given, Dataset) else Dataset.load(space.find_dataset(str(given)))
    return with_fused_labels(dataset, space.preprocessed(dataset.name))


def with_fused_labels(dataset: Dataset, folder: Path, *, workers: int = 1, progress: Progress = silent) -> Dataset:
    """Return the data set with a label file for each case that has experts, as if it had been described so.

    If a mask, or what dataset.json says of labels and fusion, has changed since the last time, all masks are read and
    fused again; a label file whose values stay the same is not touched. Otherwise no file is read but the record.

    Parameters
    ----------
    dataset
        Without experts it is returned as it is.
    folder
        That of the preprocessed data set; see the module.
    workers
        Processes; 1 works in this one.

    Raises
    ------
    DatasetError
        If masks cannot be read, have another grid than the image, or values that are no class; names all of them.
    """
    if not has_experts(dataset):
        return dataset
    place = folder / FOLDER
    record = _stored(dataset, place)
    if record is None:
        record = _fuse(dataset, place, workers, progress)
        n_cases = sum(bool(case.experts) for case in dataset.cases)
        _log.info("masks of experts fused for %s; label files and agreement in %s", counted(n_cases, "case"), place)
    return _described(dataset, record, place)


@contextmanager
def open_for_check(
    given: Dataset | str | Path, space: Workspace, *, workers: int = 1
) -> Iterator[tuple[Dataset, tuple[Fault, ...]]]:
    """Yield what a path or a name in the workspace means, and its faults, as :func:`labels_for_check` does."""
    dataset, faults = (given, ()) if isinstance(given, Dataset) else Dataset.examine(space.find_dataset(str(given)))
    with labels_for_check(dataset, faults, space.preprocessed(dataset.name), workers=workers) as checked:
        yield checked


@contextmanager
def labels_for_check(
    dataset: Dataset, faults: Sequence[Fault], folder: Path, *, workers: int = 1, progress: Progress = silent
) -> Iterator[tuple[Dataset, tuple[Fault, ...]]]:
    """Yield a data set with fused labels, and all faults; nothing is written to ``folder``.

    Labels that are not there yet are fused in a temporary folder. If that is not possible, a mask stands for the label.
    """
    if not has_experts(dataset):
        yield dataset, tuple(faults)
        return
    with TemporaryDirectory(prefix="autoseg_") as temporary:
        checked, found = dataset, tuple(faults)
        try:
            if not found:
                record, place = _stored(dataset, folder / FOLDER), folder / FOLDER
                if record is None:
                    place = Path(temporary)
                    record = _fuse(dataset, place, workers, progress)
                checked = _described(dataset, record, place)
        except DatasetError as error:
            found = error.faults
        if found:
            checked = replace(dataset, cases=tuple(_with_a_mask(case, found) for case in dataset.cases))
        yield checked, found


def _with_a_mask(case: CaseFiles, faults: Sequence[Fault]) -> CaseFiles:
    """Return a case whose label file is the first mask without a fault, otherwise the first that exists."""
    masks = [path for _, path in case.experts if path.is_file()]
    masks.sort(key=lambda path: any(str(path) in fault.where for fault in faults))
    return replace(case, label=masks[0], experts=()) if masks else case


def _stored(dataset: Dataset, place: Path) -> FusionRecord | None:
    """Return the record in ``place`` if it is that of the present files, and all label files are there."""
    try:
        record = FusionRecord.model_validate_json((place / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    is_current = record.fingerprint == _fingerprint(dataset)
    is_whole = all(_label_path(dataset, place, case).is_file() for case in dataset.cases if case.experts)
    return record if is_current and is_whole else None


def _fingerprint(dataset: Dataset) -> str:
    labels = dataset.labels
    meaning = [labels.class_values, labels.class_names, sorted(labels.value_weights.items()), unknown_values(labels)]
    sets = [[value, sorted(members)] for value, members in sorted(labels.set_values.items())]
    masks = [
        [case.name, [[expert, file_stamp(path)] for expert, path in case.experts]]
        for case in dataset.cases
        if case.experts
    ]
    return short_hash([FUSION_VERSION, dataset.expert_fusion.model_dump(), meaning, sets, dataset.file_ending, masks])


def _label_path(dataset: Dataset, place: Path, case: CaseFiles) -> Path:
    return place / LABELS / f"{case.name}{written_ending(dataset.file_ending)}"


def _fuse(dataset: Dataset, place: Path, workers: int, progress: Progress) -> FusionRecord:
    """Write label files, tables and dataset.json; return the record, which is written last."""
    fingerprint = _fingerprint(dataset)  # before reading: a change is noticed
    labels, fusion = dataset.labels, dataset.expert_fusion
    settings = FusionSettings(labels.class_names, _class_of(labels), fusion.method, fusion.undecided, fusion.soft)
    cases = {case.name: case for case in dataset.cases if case.experts}
    files = {name: FusedFiles(name, case.images[0], _label_path(dataset, place, case)) for name, case in cases.items()}
    reading = MaskReading(len(settings.class_of), allow_nan=NAN_VALUE in settings.class_of)
    with TemporaryDirectory(prefix="autoseg_") as scratch:
        sets = [MaskSet(name, dict(case.experts), case.images[0]) for name, case in cases.items()]
        votes = read_votes(sets, Path(scratch), reading, workers=workers, progress=progress)
        _check_values(votes, labels, settings.class_of)
        declared = _declared_sets(labels)
        found = found_meanings(votes, settings, workers=workers) - declared.keys()
        further = further_values(found, labels.n_classes, max(labels.file_values()) + 1)
        unknown = next((value for value in unknown_values(labels) if value >= 0), None)
        free = max([*labels.file_values(), *further.values()]) + 1
        values = FileValues(labels.class_values, free if unknown is None else unknown, declared | further)
        (place / RECORD).unlink(missing_ok=True)
        agreements = fuse_masks(votes, settings, values, files, workers=workers)
    is_open = any(item.unknown for item in agreements)
    keys = FileValues(labels.class_values, values.unknown, further).as_json(labels.class_names)
    record = FusionRecord(
        fingerprint=fingerprint, ignore=free if is_open and unknown is None else None, further=keys
    )  # fmt: skip
    write_tables(place, agreements, labels.class_names, fusion.model_dump())
    for path in {*(place / LABELS).iterdir()} - {of_case.label for of_case in files.values()}:
        path.unlink()  # of a case that has no experts any more
    write_json(place / DATASET_JSON, _described(dataset, record, place).json)
    save_model(record, place / RECORD)
    unsettled = [item.name for item in agreements if not item.is_settled]
    if unsettled:
        _log.warning("%s: STAPLE ended before its estimate had settled. Look at these cases", listed(unsettled))
    return record


def _class_of(labels: Labels) -> dict[int, int]:
    """Return file value -> class index that a mask with it votes for, ``NO_VOTE`` for values of unannotated voxels."""
    single = {value: next(iter(members)) for value, members in labels.set_values.items() if len(members) == 1}
    classes = {value: index for index, value in enumerate(labels.class_values)}
    return single | classes | dict.fromkeys(unknown_values(labels), NO_VOTE)


def _declared_sets(labels: Labels) -> dict[Meaning, int]:
    """Return the sets of several classes that dataset.json declares with a value that can be written."""
    return {
        (members, STEPS): value
        for value, members in labels.set_values.items()
        if 1 < len(members) < labels.n_classes and value >= 0 and value not in labels.value_weights
    }


def _check_values(votes: Sequence[MaskVotes], labels: Labels, class_of: Mapping[int, int]) -> None:
    """Raise ``DatasetError`` naming every mask with a value that is no class."""
    faults = []
    for item in votes:
        for expert, values in item.values.items():
            wrong = [value for value in values if value not in class_of]
            if not wrong:
                continue
            of_sets = [value for value in wrong if value in labels.set_values]
            what = "values of label sets" if of_sets else "undeclared values"
            fix = "An expert names one class, or the value of unannotated voxels." if of_sets else (
                f"{DECLARE_VALUES} autoseg_fuse_experts makes a data set of masks with any values, such as 0 and 255."
            )  # fmt: skip
            found = f"{what} {listed(map(value_name, of_sets or wrong))}"
            faults.append(
                Fault(place_of(item.masks, expert), found, f"only {listed(map(value_name, class_of), 20)}", fix)
            )
    if faults:
        raise DatasetError(faults)


def _described(dataset: Dataset, record: FusionRecord, place: Path) -> Dataset:
    """Return the data set as its dataset.json would describe it with fused label files."""
    content = {key: value for key, value in dataset.json.items() if key != "expert_fusion"}
    if record.ignore is not None:
        content["labels"] = {**content["labels"], "ignore": record.ignore}
    content |= {key: {**content.get(key, {}), **entries} for key, entries in record.further.items()}
    entries = {
        case: {key: value for key, value in entry.items() if key != "experts"}
        for case, entry in content.pop("cases", {}).items()
    }
    if any(entries.values()):
        content["cases"] = {case: entry for case, entry in entries.items() if entry}
    meaning = Dataset.from_json(content, name=dataset.name, folder=dataset.folder)
    cases = tuple(
        replace(case, label=_label_path(dataset, place, case), experts=()) if case.experts else case
        for case in dataset.cases
    )
    return replace(dataset, labels=meaning.labels, protocol=meaning.protocol, json=content, cases=cases)
