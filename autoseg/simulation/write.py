"""Write a copy of a densely labelled data set with simulated sparse annotation."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.label_counts import count_values, undeclared_values
from autoseg.cases.label_codes import read_drawn
from autoseg.core.atomic import write_json
from autoseg.core.errors import AutosegError, ConfigError, DatasetError, Fault
from autoseg.core.findings import listed
from autoseg.core.geometry import Geometry, slice_axis
from autoseg.core.parallel import map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.file_values import DECLARE_VALUES, value_name
from autoseg.dataset.labels import Labels, background_value, free_value, statements_leave_open, unknown_values
from autoseg.dataset.schema import IGNORE, UNLABELLED
from autoseg.io.images import read_header, write_labels, written_ending
from autoseg.io.raw_layout import put_images
from autoseg.simulation.dropped_classes import choose_left_out
from autoseg.simulation.styles import Style, annotate
from autoseg.tasks.task import refuse_instances, refuse_regression, task_of

REPORT_FILE = "annotation_report.json"
UNFINISHED_FILE = ".unfinished.json"
"""Name of the file with the settings of an unfinished run. It is removed when dataset.json is written."""

CHOOSE_DENSE = "Choose a data set in which every voxel has a known label."

NOT_COPIED = ("boxes", "dataset", "annotation_protocol", "lazy_semantics")
"""Keys of the source's dataset.json that are not valid for the copy: its list of files, and how it was annotated."""


@dataclass(frozen=True)
class Simulation:
    """Settings and random choices of a simulation, made before any file is written."""

    source: Dataset
    style: Style
    seed: int
    n_dropped: int
    """Number of classes that each annotator omits."""
    dropped: Mapping[str, frozenset[int]]
    """Case -> file values of the omitted classes."""
    ignore: int | None
    """File value of unannotated voxels. None if every voxel is annotated."""
    content: Mapping[str, Any]
    """dataset.json of the copy."""


@dataclass(frozen=True)
class CaseShares:
    """Numbers of voxels of a case, per file value of the dense labels."""

    voxels: Mapping[int, int]
    """All voxels."""
    annotated: Mapping[int, int]
    """Voxels annotated with a single class."""
    narrowed: Mapping[int, int]
    """Voxels annotated as "none of the annotated classes": as background in a case with omitted classes."""


def check_output(output: Path) -> None:
    """Raise ``ConfigError`` if ``output`` exists and is neither empty nor the output of an interrupted run."""
    if (output / DATASET_JSON).exists():
        raise _not_free(output, "a data set")
    if output.is_dir() and any(output.iterdir()) and not (output / UNFINISHED_FILE).exists():
        raise _not_free(output, "files")


def plan_simulation(
    dataset: Dataset, style: Style, *, n_dropped: int = 0, seed: int = 0, workers: int = 1,
    progress: Progress = silent,
) -> Simulation:  # fmt: skip
    """Read every label file of ``dataset``, and choose the classes that each annotator omits.

    Raises
    ------
    ConfigError
        If there is nothing to simulate, a setting does not fit the data set, or its task is regression or instances.
    DatasetError
        If the data set is not dense: it declares partial labels, or a file contains ignored or undeclared values.
    """
    refuse_regression(dataset.labels, "simulating annotation")
    refuse_instances(dataset.labels, "simulating annotation")
    if style.is_dense and not n_dropped:
        raise ConfigError(
            "nothing to simulate: no kind of annotation is given. "
            "Choose among --scribbles, --slices, --patches, --points and --drop-classes."
        )
    _check_dense(dataset)
    foreground = dataset.labels.class_values[1:]
    if n_dropped and not task_of(dataset.labels).is_exclusive:
        raise ConfigError(
            f"--drop-classes: found regions in {dataset.name}, expected classes. One value per voxel cannot express "
            "that a region was omitted. Remove --drop-classes."
        )
    present: dict[str, frozenset[int]] = {}
    faults: list[Fault] = []
    survey = partial(_survey, labels=dataset.labels, style=style)
    for done, (index, values) in enumerate(map_unordered(survey, dataset.cases, workers=workers), 1):
        name = dataset.cases[index].name
        if isinstance(values, DatasetError):
            faults.extend(values.faults)
        elif isinstance(values, AutosegError):
            raise values
        else:
            present[name] = values
        progress(done, len(dataset.cases), name)
    faults.sort(key=lambda fault: fault.where)
    unannotated = {*unknown_values(dataset.labels)}
    sparse = sorted(name for name, values in present.items() if unannotated & values)
    if sparse:
        where = f"labels of data set {dataset.name}"
        key = IGNORE if dataset.labels.unlabelled is None else UNLABELLED
        ignored = f"voxels with the value of {key} in {listed(sparse)}"
        faults.insert(0, Fault(where, ignored, "a class at every voxel", CHOOSE_DENSE))
    if faults:
        raise DatasetError(faults)
    present = {name: values & {*foreground} for name, values in present.items()}
    dropped = choose_left_out(present, foreground, n_dropped, seed=seed)
    ignore = dataset.labels.ignore
    if ignore is None and not style.is_dense:
        ignore = free_value(dataset.labels)
    return Simulation(dataset, style, seed, n_dropped, dropped, ignore, sparse_json(dataset, ignore, dropped))


def sparse_json(dataset: Dataset, ignore: int | None, dropped: Mapping[str, frozenset[int]]) -> dict[str, Any]:
    """Return the content of the copy's dataset.json: that of the source, with ``ignore`` and ``annotated`` per case.

    ``dropped``: case -> file values of the omitted classes.
    """
    content = {key: value for key, value in dataset.json.items() if key not in NOT_COPIED}
    if ignore is not None:
        content["labels"] = {**content["labels"], IGNORE: ignore}
    content["numTraining"] = len(dataset.cases)
    content["file_ending"] = written_ending(dataset.file_ending)
    cases: dict[str, dict[str, Any]] = {name: dict(entry) for name, entry in content.get("cases", {}).items()}
    for name in dataset.case_names:
        if dropped.get(name):
            pairs = zip(dataset.labels.class_names[1:], dataset.labels.class_values[1:], strict=True)
            annotated = [class_name for class_name, value in pairs if value not in dropped[name]]
            cases[name] = {**cases.get(name, {}), "annotated": annotated}
    return content | ({"cases": cases} if cases else {}) | _listed_cases(dataset)


def _listed_cases(dataset: Dataset) -> dict[str, Any]:
    """Return the keys that list the cases of the copy: ``boxes`` and, beside them, ``dataset``; none without parts."""
    boxes = {
        case.name: case.volume.as_json(f"labelsTr/{_label_name(dataset, case)}")
        for case in dataset.cases
        if case.volume is not None
    }
    ending = written_ending(dataset.file_ending)
    others = {
        case.name: {
            "images": [f"imagesTr/{case.name}_{number:04d}{ending}" for number in range(len(case.images))],
            "label": f"labelsTr/{_label_name(dataset, case)}",
        }
        for case in dataset.cases
        if case.volume is None and boxes
    }
    return {key: value for key, value in {"boxes": boxes, "dataset": others}.items() if value}


def _label_name(dataset: Dataset, case: CaseFiles) -> str:
    return f"{case.name}{written_ending(dataset.file_ending)}"


def write_cases(
    simulation: Simulation, output: Path, *, copy: bool = False, workers: int = 1, progress: Progress = silent
) -> dict[str, CaseShares]:
    """Write the images and label files of the copy to ``output``; return case -> numbers of annotated voxels.

    After an interruption, call it again with the same settings; all files are written again.

    Raises
    ------
    ConfigError
        If ``output`` exists and is neither empty nor the output of an interrupted run with the same settings.
    """
    source = simulation.source
    _claim(simulation, output)
    put_images(source.cases, written_ending(source.file_ending), output / "imagesTr", copy=copy)
    write = partial(_write_case, simulation=_without_json(simulation), folder=output / "labelsTr")
    shares: dict[str, CaseShares] = {}
    for done, (index, result) in enumerate(map_unordered(write, source.cases, workers=workers), 1):
        if isinstance(result, AutosegError):
            raise result
        shares[source.cases[index].name] = result
        progress(done, len(source.cases), source.cases[index].name)
    return dict(sorted(shares.items()))


def without_annotation(simulation: Simulation, shares: Mapping[str, CaseShares]) -> dict[str, tuple[str, ...]]:
    """Return class -> cases that contain the class but have no annotation of it, for classes with such cases.

    Cases in which the annotator omits the class on purpose do not count.
    """
    labels = simulation.source.labels
    without: dict[str, tuple[str, ...]] = {}
    for name, value in zip(labels.class_names, labels.class_values, strict=True):
        cases = tuple(
            case
            for case, share in shares.items()
            if share.voxels.get(value, 0)
            and not share.annotated.get(value, 0) + share.narrowed.get(value, 0)
            and value not in simulation.dropped.get(case, ())
        )
        if cases:
            without[name] = cases
    return without


def finish(simulation: Simulation, output: Path, report: Mapping[str, Any]) -> Dataset:
    """Write the report and then dataset.json; return the copy, loaded from its folder."""
    write_json(output / REPORT_FILE, report)
    write_json(output / DATASET_JSON, simulation.content)
    (output / UNFINISHED_FILE).unlink(missing_ok=True)
    return Dataset.load(output)


def annotation_report(simulation: Simulation, shares: Mapping[str, CaseShares]) -> dict[str, Any]:
    """Return the annotated share of all voxels and of the voxels of each class, in total and per case, as JSON."""
    labels = simulation.source.labels
    return {
        "source": simulation.source.name,
        "settings": settings(simulation),
        **_shares(list(shares.values()), labels),
        "without_annotation": {name: list(cases) for name, cases in without_annotation(simulation, shares).items()},
        "cases": {name: _shares([share], labels) for name, share in shares.items()},
    }


def settings(simulation: Simulation) -> dict[str, Any]:
    """Return the settings that determine the copy, as JSON."""
    style = asdict(simulation.style)
    size = simulation.style.patch_size
    return {
        **style,
        "patch_size": None if size is None else list(size),
        "drop_classes": simulation.n_dropped,
        "seed": simulation.seed,
    }


def _check_dense(dataset: Dataset) -> None:
    """Raise ``DatasetError`` if dataset.json declares partial labels."""
    faults = [
        Fault(
            f"{DATASET_JSON} of {dataset.name}: {key}", "partial labels", "a densely labelled data set without them",
            CHOOSE_DENSE,
        )
        for key, is_there in (
            ("label_sets", dataset.labels.set_values.keys() - dataset.labels.value_weights.keys()),
            ("label_weights", dataset.labels.value_weights),
            ("cases", statements_leave_open(dataset.labels)),
            ("valid_mask_folder", dataset.labels.has_masks),
            ("boxes", any(case.volume is not None and case.valid_mask is not None for case in dataset.cases)),
        )
        if is_there
    ]  # fmt: skip
    if faults:
        raise DatasetError(faults)


def _survey(case: CaseFiles, *, labels: Labels, style: Style) -> frozenset[int]:
    """Return the file values in the labels of a case. Raise ``DatasetError`` if the style does not fit the case."""
    file_labels, geometry = _read_truth(case)
    counts = count_values(file_labels)
    where = f"labels of case {case.name!r}"
    undeclared = undeclared_values(counts, labels)
    if undeclared:
        problem, expected = (
            f"undeclared values {listed(map(value_name, undeclared))}",
            f"only {listed(labels.class_values, 20)}",
        )
        raise DatasetError([Fault(where, problem, expected, DECLARE_VALUES)])
    axis = slice_axis(file_labels.shape, geometry.spacing) if style.axis is None else style.axis
    is_line = style.scribbles and min(np.delete(file_labels.shape, axis)) == 1
    if (style.slices is not None and file_labels.shape[axis] == 1) or is_line:
        problem = f"shape {file_labels.shape} with slices along axis {axis}"
        fix = "Choose another --axis, or --scribbles, --points or --patches without --slices for 2-D images."
        raise DatasetError([Fault(where, problem, "several slices, or whole slices to scribble on", fix)])
    return frozenset(counts)


def _read_truth(case: CaseFiles) -> tuple[NDArray[np.integer[Any]], Geometry]:
    """Return the file values (z, y, x) of a case, and their geometry; in a volume that of the image."""
    truth, geometry = read_drawn(case)
    return truth, geometry if case.volume is None else read_header(case.images[0])[1]


def _claim(simulation: Simulation, output: Path) -> None:
    """Create ``output`` and store the settings in it. Raise ``ConfigError`` as :func:`write_cases`."""
    check_output(output)
    marker = output / UNFINISHED_FILE
    wanted = {"source": str(simulation.source.folder), **settings(simulation)}
    if marker.exists() and _noted(marker) != wanted:
        raise _not_free(output, "an unfinished copy with other settings")
    write_json(marker, wanted)


def _not_free(output: Path, what: str) -> ConfigError:
    return ConfigError(f"{output}: found {what}, expected a new folder. Delete it, or choose another -o.")


def _noted(marker: Path) -> object:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _without_json(simulation: Simulation) -> Simulation:
    """Return the simulation without its lists of cases, which would otherwise be sent to a worker with every case."""
    return replace(simulation, source=replace(simulation.source, cases=(), json={}), content={})


def _write_case(case: CaseFiles, *, simulation: Simulation, folder: Path) -> CaseShares:
    """Write the label file of one case; return its numbers of annotated voxels."""
    truth, geometry = _read_truth(case)
    dropped = sorted(simulation.dropped[case.name])
    background = background_value(simulation.source.labels)
    without_dropped = np.where(np.isin(truth, dropped), background, truth).astype(np.uint16)
    classes, _ = simulation.source.labels.encode(without_dropped)  # in which background is 0, whatever its file value
    drawn = annotate(classes, geometry.spacing, simulation.style, seed=simulation.seed, case=case.name)
    ignore = simulation.ignore
    labels = without_dropped if ignore is None else np.where(drawn, without_dropped, np.uint16(ignore))
    write_labels(folder / _label_name(simulation.source, case), labels, geometry)
    decided = drawn & (without_dropped != background) if dropped else drawn
    return CaseShares(count_values(truth), count_values(truth[decided]), count_values(truth[drawn & ~decided]))


def _shares(cases: Sequence[CaseShares], labels: Labels) -> dict[str, Any]:
    """Return numbers of voxels and annotated shares, 0 to 1 (None without voxels), in total and per class."""
    rows = {
        name: [sum(counts.get(value, 0) for counts in numbers) for numbers in (
            [case.voxels for case in cases], [case.annotated for case in cases], [case.narrowed for case in cases],
        )]
        for name, value in zip(labels.class_names, labels.class_values, strict=True)
    }  # fmt: skip
    everything = [sum(column) for column in zip(*rows.values(), strict=True)]
    return {"all": _row(everything), "classes": {name: _row(row) for name, row in rows.items()}}


def _row(numbers: Sequence[int]) -> dict[str, Any]:
    voxels, annotated, narrowed = numbers
    share, narrowed_share = ((n / voxels if voxels else None) for n in (annotated, narrowed))
    return {"voxels": voxels, "annotated": annotated, "share": share, "narrowed_share": narrowed_share}
