"""Post-processing of a folder of label maps into another folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.core.errors import ConfigError, EvaluationError, Fault, FileFormatError
from autoseg.core.parallel import map_ordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import DATASET_JSON
from autoseg.dataset.labels import Labels
from autoseg.evaluation.matching import label_files, load_dataset
from autoseg.evaluation.postprocessing import Postprocessing, change_of, check_unit, postprocess
from autoseg.evaluation.prediction_folder import FolderReport, check_input, output_path, prepare_output, report_of
from autoseg.io.images import read_header, read_labels, write_labels


@dataclass(frozen=True, slots=True)
class _Job:
    """One label map, as it is sent to a worker process."""

    case: str
    path: Path
    output: Path
    labels: Labels
    postprocessing: Postprocessing

    def __repr__(self) -> str:
        return self.case


def postprocess_folder(
    inputs: Path,
    output_folder: Path,
    postprocessing: Postprocessing,
    *,
    dataset_json: Path | None = None,
    overwrite: bool = False,
    workers: int = 1,
    progress: Progress = silent,
) -> FolderReport:
    """Apply the steps to every label map of a folder, and write the results, each atomically, into another folder.

    Steps, names and units are checked before anything is written. The output folder also gets dataset.json, and
    plans.json if the input folder has it.

    Parameters
    ----------
    inputs
        Folder of dense label maps, as ``autoseg_predict`` writes them.
    output_folder
        Made if it does not exist.
    postprocessing
        Steps; see :func:`autoseg.evaluation.postprocessing.postprocess`.
    dataset_json
        File with the meaning of the values, or a folder that holds it; None: that of ``inputs``.
    overwrite
        Write label maps that exist again, instead of refusing.
    workers
        Number of processes.

    Returns
    -------
    report
        Number of changed voxels of each case. A label map that cannot be read, or holds values of no class, is in
        ``failed``.

    Raises
    ------
    EvaluationError
        If there is no label map or no dataset.json, or the label maps do not hold classes (regression, instances).
    ConfigError
        If a step does not fit the data set or the images, or the output folder cannot be used; see
        :func:`autoseg.evaluation.prediction_folder.prepare_output`.
    """
    check_input(inputs)
    if dataset_json is None and not (inputs / DATASET_JSON).is_file():
        raise EvaluationError(
            f"{inputs}: found no {DATASET_JSON}, which gives the meaning of the values, expected one as "
            "autoseg_predict writes it. Give its path with -d."
        )
    dataset = load_dataset(dataset_json or inputs)
    if dataset.labels.targets or dataset.labels.instances is not None:
        raise EvaluationError(f"{inputs}: found the task {dataset.json['task']!r}, expected label maps of classes.")
    files = label_files(inputs, dataset.file_ending)
    for step in postprocessing.steps:
        change_of(step, dataset.labels)
    _check_units(files, postprocessing)
    jobs = [
        _Job(case, path, output_path(output_folder, case, path, dataset), dataset.labels, postprocessing)
        for case, path in files.items()
    ]
    prepare_output(output_folder, [inputs], dataset, [job.output for job in jobs], overwrite=overwrite)
    return report_of(files, map_ordered(_write, jobs, list(files), workers=workers, progress=progress))


def _check_units(files: Mapping[str, Path], postprocessing: Postprocessing) -> None:
    """Raise ``ConfigError`` if a step has sizes in a unit that the first readable image does not have."""
    for path in files.values():
        try:
            geometry = read_header(path)[1]
        except FileFormatError:
            continue
        for step in postprocessing.steps:
            check_unit(step, geometry)
        return


def _write(job: _Job) -> int:
    """Write one case; return its number of changed voxels."""
    label_map, geometry = read_labels(job.path)
    try:
        result = postprocess(label_map, geometry, job.labels, job.postprocessing)
    except ValueError as error:
        fix = "Give predictions, and the dataset.json that belongs to them."
        raise FileFormatError(Fault(str(job.path), str(error), "file values of classes only", fix)) from error
    except ConfigError as error:
        raise ConfigError(f"{job.path}: {error}") from error
    write_labels(job.output, result, geometry)
    return int(np.count_nonzero(result != label_map))
