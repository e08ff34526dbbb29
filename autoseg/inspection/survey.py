"""Read every file of a data set once, for both that is wanted of it before planning: its faults and its measures.

What was read is kept, so that after a change only the cases that changed are read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoseg.cases.case import Target
from autoseg.core.errors import AutosegError
from autoseg.core.parallel import map_unordered
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels
from autoseg.inspection.case_check import Finding, look_into, naming_case
from autoseg.inspection.integrity import IntegrityReport, check_dataset, ending_fault, lost, report_on
from autoseg.inspection.intensities import knots_per_case
from autoseg.inspection.measure import CaseMeasure, measure_arrays
from autoseg.inspection.survey_cache import KeptCase, case_stamp, load_survey, save_survey


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of all files gives."""

    report: IntegrityReport
    """Faults and annotation, as of :func:`autoseg.inspection.integrity.check_dataset`."""
    measures: Mapping[str, CaseMeasure]
    """Case -> measure; without the cases that have faults, and those of which training learns nothing."""


def survey_dataset(
    dataset: Dataset,
    *,
    workers: int = 1,
    progress: Progress = silent,
    kept: Path | None = None,
) -> Survey:
    """Check and measure all cases, ``workers`` at a time; nothing is raised for what is wrong with them.

    ``progress`` is called with (cases done, cases in all, name of the case just done). ``kept`` is a file in which what
    was read of sound cases is kept from run to run: cases that have not changed since are not read again.
    """
    if ending_fault(dataset) is not None:
        return Survey(check_dataset(dataset), {})
    n_knots = knots_per_case(len(dataset.cases))
    stamps = {case.name: case_stamp(dataset, case, n_knots) for case in dataset.cases}
    known = {} if kept is None else load_survey(kept)
    read = {name: case for name, case in known.items() if case.stamp == stamps.get(name)}
    findings = {name: case.finding for name, case in read.items()}
    changed = [case for case in dataset.cases if case.name not in read]
    function = partial(_survey_case, labels=dataset.labels, n_channels=len(dataset.channels), n_knots=n_knots)
    for index, result in map_unordered(function, changed, workers=workers):
        name = changed[index].name
        finding, measure = (lost(name, result), None) if isinstance(result, AutosegError) else result
        findings[name] = finding
        if not (finding.faults or finding.undeclared):
            read[name] = KeptCase(stamps[name], finding, measure)
        progress(len(findings), len(dataset.cases), name)
    if kept is not None and changed:
        save_survey(kept, read)
    measures = {name: case.measure for name, case in read.items() if case.measure is not None}
    return Survey(report_on(dataset, findings), measures)


def _survey_case(case: CaseFiles, labels: Labels, n_channels: int, n_knots: int) -> tuple[Finding, CaseMeasure | None]:
    """Look into a case; measure it unless it has faults or says nothing."""
    with naming_case(case.name):
        return _measured(case, labels, n_channels, n_knots)


def _measured(case: CaseFiles, labels: Labels, n_channels: int, n_knots: int) -> tuple[Finding, CaseMeasure | None]:
    finding, opened = look_into(case, labels, n_channels)
    is_usable = finding.annotation is not None and finding.annotation.informative
    if finding.faults or finding.undeclared or not is_usable:
        return finding, None
    if opened.image is None or opened.geometry is None or opened.file_labels is None:
        return finding, None
    target = Target(*labels.encode(opened.file_labels, case.name, valid=opened.valid))
    return finding, measure_arrays(opened.image, opened.geometry, target, labels, n_knots, case=case.name)
