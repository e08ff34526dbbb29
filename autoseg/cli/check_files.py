"""``--check-only``: look into the files of a data set, and report what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.cli import common
from autoseg.core.errors import Fault

if TYPE_CHECKING:
    from autoseg.dataset.dataset import Dataset
    from autoseg.inspection.statements import PromiseReport
    from autoseg.planning.check_report import CheckReport
    from autoseg.planning.splits import Split
    from autoseg.planning.strata import CaseProfile


def check(dataset: Dataset, faults: Sequence[Fault], folder: Path, workers: int, *, as_json: bool, quiet: bool) -> None:
    """Report what the files hold; raise ``DatasetError`` with every fault, those of dataset.json first.

    ``folder`` is that of the preprocessed data set, where folds may lie.
    """
    from autoseg.cli.integrity_table import print_report
    from autoseg.cli.promise_table import print_promises

    found = look_into_files(dataset, faults, folder, workers, quiet=quiet)
    if as_json:
        common.print_json(found.as_json())
    else:
        print_report(found.integrity, found.fold_gaps)
        if found.promises is not None:
            print_promises(found.promises)
    found.raise_if_faulty()


def look_into_files(
    dataset: Dataset, faults: Sequence[Fault], folder: Path, workers: int, *, quiet: bool
) -> CheckReport:
    """Return everything that is to be said of the files of a data set.

    ``faults`` are those of its dataset.json; ``folder`` is that of the preprocessed data set, where folds may lie.
    """
    from autoseg.inspection.integrity import check_dataset
    from autoseg.planning.check_report import CheckReport
    from autoseg.planning.splits import split_faults
    from autoseg.planning.strata import find_gaps, profiles_from_report

    with common.progress("check", quiet=quiet) as report:
        found = check_dataset(dataset, known_faults=faults, workers=workers, progress=report)
    names = [name for name in found.cases if name not in found.uninformative]
    of_folds = split_faults(dataset, folder, names)
    found = replace(found, faults=(*found.faults, *of_folds))
    profiles = profiles_from_report(found)
    splits = [] if of_folds else _folds(dataset, folder, names, profiles)
    gaps = find_gaps([(split.train, split.val) for split in splits], profiles, found.heads)
    return CheckReport(found, tuple(gaps), check_promised(dataset, workers, quiet=quiet))


def _folds(
    dataset: Dataset, folder: Path, names: Sequence[str], profiles: Mapping[str, CaseProfile]
) -> Sequence[Split]:
    """Return the user's folds, or those that planning would make; nothing is written."""
    from autoseg.planning.splits import given_splits, load_or_make_splits, make_splits, partial_profiles

    if not names:
        return ()
    if given_splits(dataset, folder) is not None:
        return load_or_make_splits(dataset, folder, names)
    groups = {case.name: case.group for case in dataset.cases}
    return make_splits(names, groups, partial_profiles(dataset, profiles))


def check_promised(dataset: Dataset, workers: int, *, quiet: bool) -> PromiseReport | None:
    """Hold the annotators' promises against what they drew; None where no promise could settle a voxel."""
    from autoseg.inspection.statements import check_promises, estimate_promises, leaves_to_estimate, settles_anything

    if not settles_anything(dataset):
        return None
    with common.progress("read promises", quiet=quiet or not leaves_to_estimate(dataset.protocol)) as report:
        estimates = estimate_promises(dataset, workers=workers, progress=report)
    with common.progress("check promises", quiet=quiet) as report:
        return check_promises(dataset, estimates, workers=workers, progress=report)
