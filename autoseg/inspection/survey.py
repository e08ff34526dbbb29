"""Survey of a data set before planning: every file is read once, for its faults and for its measures.

Results are stored, so that after a change only the changed cases are read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoseg.cases.label_codes import encode_target
from autoseg.core.errors import AutosegError
from autoseg.core.parallel import Workers, map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.inspection.case_check import CaseCheck, check_case_files, naming_case
from autoseg.inspection.case_measure import CaseMeasure
from autoseg.inspection.integrity import IntegrityReport, check_dataset, ending_fault, report_on, unchecked_case
from autoseg.inspection.intensities import knots_per_case
from autoseg.inspection.measure import measure_arrays
from autoseg.inspection.survey_cache import CachedCase, case_stamp, load_survey, save_survey
from autoseg.inspection.volume_check import survey_volume
from autoseg.preprocessing.volume_size import is_large


@dataclass(frozen=True, slots=True)
class Survey:
    """Result of reading all files once."""

    report: IntegrityReport
    """Faults and annotation, as returned by :func:`autoseg.inspection.integrity.check_dataset`."""
    measures: Mapping[str, CaseMeasure]
    """Case -> measure, without cases that have faults or no annotation."""


def survey_dataset(
    dataset: Dataset,
    *,
    workers: Workers = 1,
    progress: Progress = silent,
    cache: Path | None = None,
) -> Survey:
    """Check and measure all cases, ``workers`` at a time; no fault raises an error.

    Parameters
    ----------
    workers
        Number of processes.
    progress
        Called with (cases done, cases in all, name of the case just done).
    cache
        File with the results of earlier runs, of cases without faults. Unchanged cases are not read again; the file is
        updated, also if the survey is interrupted. None reads all cases.
    """
    if ending_fault(dataset) is not None:
        return Survey(check_dataset(dataset), {})
    n_knots = knots_per_case(len(dataset.cases))
    stamps = {case.name: case_stamp(dataset, case, n_knots) for case in dataset.cases}
    known = {} if cache is None else load_survey(cache)
    read = {name: case for name, case in known.items() if case.stamp == stamps.get(name)}
    checks = {name: case.check for name, case in read.items()}
    changed = [case for case in dataset.cases if case.name not in read]
    function = partial(
        _survey_case,
        labels=dataset.labels,
        n_channels=len(dataset.channels),
        n_knots=n_knots,
        protocol=dataset.protocol,
    )
    try:
        for index, result in map_unordered(function, changed, workers=workers):
            name = changed[index].name
            check, measure = (unchecked_case(name, result), None) if isinstance(result, AutosegError) else result
            checks[name] = check
            if not (check.faults or check.undeclared):
                read[name] = CachedCase(stamps[name], check, measure)
            progress(len(checks), len(dataset.cases), name)
    finally:
        if cache is not None and changed and read:
            save_survey(cache, read)
    measures = {name: case.measure for name, case in read.items() if case.measure is not None}
    return Survey(report_on(dataset, checks), measures)


def _survey_case(
    case: CaseFiles, labels: Labels, n_channels: int, n_knots: int, protocol: AnnotationProtocol
) -> tuple[CaseCheck, CaseMeasure | None]:
    """Check a case, and measure it unless it has faults or no annotation."""
    with naming_case(case.name):
        if is_large(case):
            return survey_volume(case, labels, n_channels, n_knots, protocol)
        return _measured(case, labels, n_channels, n_knots)


def _measured(case: CaseFiles, labels: Labels, n_channels: int, n_knots: int) -> tuple[CaseCheck, CaseMeasure | None]:
    check, arrays = check_case_files(case, labels, n_channels)
    is_usable = check.annotation is not None and check.annotation.informative
    if check.faults or check.undeclared or not is_usable:
        return check, None
    if arrays.image is None or arrays.geometry is None or arrays.file_labels is None:
        return check, None
    target = encode_target(arrays.file_labels, labels, case.name, valid=arrays.valid, numbers=arrays.numbers)
    return check, measure_arrays(arrays.image, arrays.geometry, target, labels, n_knots)
