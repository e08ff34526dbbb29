"""The fingerprint and the promises of a data set, from the workspace if its files have not changed since."""

from __future__ import annotations

import logging
from pathlib import Path

from autoseg.core.errors import DatasetError, PlanError
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.parallel import Workers
from autoseg.core.progress import Stages, silent_stages
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.measure import fingerprint_is_current, fingerprint_of
from autoseg.inspection.statements import (
    current_estimates,
    leaves_to_estimate,
    not_estimated,
    settles_anything,
    unclear_slices,
    with_estimates,
)
from autoseg.inspection.survey import survey_dataset
from autoseg.inspection.survey_cache import SURVEY_FILE
from autoseg.planning.files import FINGERPRINT_FILE, load_fingerprint, save_fingerprint
from autoseg.planning.workers import readers

log = logging.getLogger(__name__)


def current_fingerprint(
    dataset: Dataset, folder: Path, workers: Workers | None = None, stages: Stages = silent_stages
) -> Fingerprint:
    """Return the fingerprint stored in ``folder`` if all files are unchanged; otherwise check and measure them.

    ``workers`` as for :func:`autoseg.planning.workers.fitting_workers`. Raises ``DatasetError`` with every fault.
    """
    path = folder / FINGERPRINT_FILE
    try:
        known = load_fingerprint(path)
    except PlanError:
        known = None
    if known is not None and fingerprint_is_current(known, dataset):
        log.info("the files are those of %s; not read again", path)
        return known
    n_workers = readers(dataset, workers)
    with stages("check and measure") as progress:
        survey = survey_dataset(dataset, workers=n_workers, progress=progress, cache=folder / SURVEY_FILE)
    for warning in survey.report.warnings[len(dataset.warnings) :]:
        log.warning("%s", warning)
    for note in survey.report.notes:
        log.info("%s", note)
    survey.report.raise_if_faulty()
    with_estimated_promises(dataset, folder, n_workers, stages)  # promises that cannot be read are refused here
    fingerprint = fingerprint_of(dataset, survey.measures, workers=n_workers)
    save_fingerprint(fingerprint, path)
    return fingerprint


def with_estimated_promises(
    dataset: Dataset, folder: Path, workers: Workers, stages: Stages = silent_stages, *, warn: bool = False
) -> Dataset:
    """Return the data set with all quantities of its protocol filled in; estimates are stored in ``folder``.

    Raises ``DatasetError`` if a promise concerns slices and the axis across which they lie is not known. ``warn`` logs
    the classes whose reach cannot be estimated.
    """
    if dataset.protocol.is_empty or not settles_anything(dataset):
        return dataset
    estimating = stages if leaves_to_estimate(dataset.protocol) else silent_stages
    with estimating("read promises") as progress:
        estimates = current_estimates(dataset, folder, workers=workers, progress=progress)
    if faults := unclear_slices(dataset, estimates):
        raise DatasetError(faults)
    for warning in not_estimated(dataset, estimates) if warn else ():
        log.warning("%s", warning)
    return with_estimates(dataset, estimates)
