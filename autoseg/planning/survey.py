"""Read every file of a data set once, for both that is wanted of it before planning: its faults and its measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from autoseg.core.case import Target
from autoseg.core.dataset import CaseFiles, Dataset
from autoseg.core.errors import AutosegError
from autoseg.core.labels import Labels
from autoseg.core.parallel import map_unordered
from autoseg.planning.case_check import Finding, look_into
from autoseg.planning.fingerprint import CaseMeasure, measure_arrays
from autoseg.planning.integrity import IntegrityReport, check_dataset, ending_fault, lost, report_on
from autoseg.planning.intensities import knots_per_case


@dataclass(frozen=True, slots=True)
class Survey:
    """What one reading of all files gives."""

    report: IntegrityReport
    """Faults and annotation, as of :func:`autoseg.planning.integrity.check_dataset`."""
    measures: Mapping[str, CaseMeasure]
    """Case -> measure; without the cases that have faults, and those of which training learns nothing."""


def survey_dataset(
    dataset: Dataset, *, workers: int = 1, progress: Callable[[int, int, str], None] | None = None
) -> Survey:
    """Check and measure all cases, ``workers`` at a time; nothing is raised for what is wrong with them.

    ``progress`` is called with (cases done, cases in all, name of the case just done).
    """
    if ending_fault(dataset) is not None:
        return Survey(check_dataset(dataset), {})
    findings: dict[str, Finding] = {}
    measures: dict[str, CaseMeasure] = {}
    function = partial(
        _survey_case,
        labels=dataset.labels,
        n_channels=len(dataset.channels),
        n_knots=knots_per_case(len(dataset.cases)),
    )
    for index, result in map_unordered(function, dataset.cases, workers=workers):
        name = dataset.cases[index].name
        finding, measure = (lost(name, result), None) if isinstance(result, AutosegError) else result
        findings[name] = finding
        if measure is not None:
            measures[name] = measure
        if progress is not None:
            progress(len(findings), len(dataset.cases), name)
    return Survey(report_on(dataset, findings), measures)


def _survey_case(case: CaseFiles, labels: Labels, n_channels: int, n_knots: int) -> tuple[Finding, CaseMeasure | None]:
    """Look into a case; measure it unless it has faults or says nothing."""
    finding, opened = look_into(case, labels, n_channels)
    is_usable = finding.annotation is not None and finding.annotation.informative
    if finding.faults or finding.undeclared or not is_usable:
        return finding, None
    if opened.image is None or opened.geometry is None or opened.file_labels is None:
        return finding, None
    target = Target(*labels.encode(opened.file_labels, case.name, valid=opened.valid))
    return finding, measure_arrays(opened.image, opened.geometry, target, labels, n_knots)
