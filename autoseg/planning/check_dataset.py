"""Check a data set: its files, the folds that it has or would get, and the promises of its annotators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.core.errors import Fault
from autoseg.core.parallel import Workers
from autoseg.core.progress import Stages, silent_stages
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset as check_files
from autoseg.inspection.statements import (
    PromiseReport,
    check_promises,
    estimate_promises,
    leaves_to_estimate,
    settles_anything,
)
from autoseg.planning.check_report import CheckReport
from autoseg.planning.splits import (
    Split,
    given_splits,
    load_or_make_splits,
    make_splits,
    partial_profiles,
    split_faults,
)
from autoseg.planning.strata import CaseProfile, find_gaps, profiles_from_report


def check_dataset(
    dataset: Dataset, faults: Sequence[Fault], folder: Path, workers: Workers, stages: Stages = silent_stages
) -> CheckReport:
    """Return everything that is to be reported of a data set; nothing is written, no fault raises.

    Parameters
    ----------
    dataset
        As far as its dataset.json can be read.
    faults
        Those of dataset.json.
    folder
        That of the preprocessed data set, where folds may lie.
    workers
        Processes; 1 reads in this one.
    """
    with stages("check") as progress:
        report = check_files(dataset, known_faults=faults, workers=workers, progress=progress)
    names = [name for name in report.cases if name not in report.uninformative]
    of_folds = split_faults(dataset, folder, names)
    report = replace(report, faults=(*report.faults, *of_folds))
    profiles = profiles_from_report(report)
    splits = [] if of_folds else _folds(dataset, folder, names, profiles)
    gaps = find_gaps([(split.train, split.val) for split in splits], profiles, report.heads)
    return CheckReport(report, tuple(gaps), _promises(dataset, workers, stages))


def _folds(
    dataset: Dataset, folder: Path, names: Sequence[str], profiles: Mapping[str, CaseProfile]
) -> Sequence[Split]:
    """Return the user's folds, or those that planning would make; nothing is written."""
    if not names:
        return ()
    if given_splits(dataset, folder) is not None:
        return load_or_make_splits(dataset, folder, names)
    groups = {case.name: case.group for case in dataset.cases}
    return make_splits(names, groups, partial_profiles(dataset, profiles))


def _promises(dataset: Dataset, workers: Workers, stages: Stages) -> PromiseReport | None:
    """Compare the annotators' promises with their annotation; None where no promise could settle a voxel."""
    if not settles_anything(dataset):
        return None
    estimating = stages if leaves_to_estimate(dataset.protocol) else silent_stages
    with estimating("read promises") as progress:
        estimates = estimate_promises(dataset, workers=workers, progress=progress)
    with stages("check promises") as progress:
        return check_promises(dataset, estimates, workers=workers, progress=progress)
