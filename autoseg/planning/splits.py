"""Folds for cross-validation: made by nnU-Net's rule, kept in a file.

On partially annotated data a few cases are swapped, so that each class and each density of annotation occurs in every
fold.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, DatasetError, Fault
from autoseg.core.findings import counted, listed
from autoseg.core.fingerprint import Fingerprint
from autoseg.core.workspace import ALL
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folder_files import normal_name
from autoseg.planning.strata import CaseProfile, find_gaps, profiles_from_fingerprint, spread

_log = logging.getLogger(__name__)

N_FOLDS = 5
SPLITS_FILE = "splits.json"
NNUNET_SPLITS_FILE = "splits_final.json"
_SEED = 12345


@dataclass(frozen=True, slots=True)
class Split:
    """One fold: sorted names of the training cases and of the validation cases."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Cases that the user keeps out of all folds on purpose."""


def make_splits(
    names: Sequence[str],
    groups: Mapping[str, str | None] | None = None,
    profiles: Mapping[str, CaseProfile] | None = None,
) -> list[Split]:
    """Divide cases into five folds, or into as many as there are cases (or groups) if there are fewer.

    Cases of one group stay together; a case without a group is a group of its own. A single case (or group) gives one
    fold that trains and validates on it, with a warning.

    Parameters
    ----------
    names
        Training cases, in any order.
    groups
        Case -> group, for the cases that have one.
    profiles
        Case -> what is annotated in it. If every case has a profile, each class and each density of annotation occurs
        in every fold as far as possible; cases (or groups) are swapped only where this is needed.

    Raises
    ------
    ConfigError
        If there is no case.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``utilities/crossval_split.py``: scikit-learn's ``KFold(5, shuffle=True, random_state=12345)``
    over sorted names, here over sorted groups. nnU-Net does not use profiles.
    """
    if not names:
        raise ConfigError("splits: no training case, expected at least one. Annotate a case, at least in part.")
    units = _units(names, groups or {})
    if len(units) == 1:
        _log.warning("there is only one case or group: training and validation use it both, so scores are too high.")
        everything = tuple(sorted(names))
        return [Split(everything, everything)]
    n_folds = min(N_FOLDS, len(units))
    order = np.arange(len(units))
    np.random.RandomState(_SEED).shuffle(order)
    folds: list[list[int]] = [part.tolist() for part in np.array_split(order, n_folds)]
    if profiles is not None and all(name in profiles for name in names):
        folds = spread(folds, [[profiles[name] for name in unit] for unit in units])
    splits = []
    for held_out in folds:
        val = {name for index in held_out for name in units[index]}
        splits.append(Split(tuple(sorted(set(names) - val)), tuple(sorted(val))))
    return splits


def partial_profiles(dataset: Dataset, profiles: Mapping[str, CaseProfile]) -> Mapping[str, CaseProfile] | None:
    """Return the profiles if the annotation is partial; None if it is dense, since dense data keep nnU-Net's folds."""
    is_dense = dataset.labels.is_dense and all(profile.share == 1 for profile in profiles.values())
    return None if is_dense else profiles


def load_or_make_splits(
    dataset: Dataset, folder: Path, names: Sequence[str], fingerprint: Fingerprint | None = None
) -> list[Split]:
    """Return the folds of a data set, the same in every run.

    They come from the first of these that exists:

    1. nnU-Net's ``splits_final.json`` in ``folder`` or beside dataset.json, used as it is;
    2. ``splits.json`` in ``folder``, if it holds exactly the cases and keeps groups together;
    3. new folds, which are written to ``splits.json``.

    Parameters
    ----------
    folder
        Folder of the preprocessed data set.
    names
        Cases to train on: those of the data set that have annotation.
    fingerprint
        Tells what is annotated in each case; used for new folds of partially annotated data.

    Raises
    ------
    DatasetError
        If ``splits_final.json`` names cases that do not exist, or has a fold without cases; lists all faults.
    ConfigError
        If a file does not hold folds.
    """
    given = given_splits(dataset, folder)
    if given is not None:
        return _use_given(given, dataset, names)
    path = folder / SPLITS_FILE
    groups = {case.name: case.group for case in dataset.cases}
    if path.is_file():
        splits = read_splits(path)
        reason = _outdated(splits, names, groups)
        if reason is None:
            return splits
        _log.warning("%s: %s; new folds are made. Results of folds trained before cannot be compared.", path, reason)
    profiles = None if fingerprint is None else partial_profiles(dataset, profiles_from_fingerprint(fingerprint))
    splits = make_splits(names, groups, profiles)
    write_json(path, [{"train": list(split.train), "val": list(split.val)} for split in splits])
    return splits


def given_splits(dataset: Dataset, folder: Path) -> Path | None:
    """Return the path of nnU-Net's ``splits_final.json``, in ``folder`` or beside dataset.json; None without one."""
    paths = (folder / NNUNET_SPLITS_FILE, dataset.folder / NNUNET_SPLITS_FILE)
    return next((path for path in paths if path.is_file()), None)


def known_splits(folder: Path, dataset: Dataset) -> list[Split]:
    """Return the folds of a data set as :func:`load_or_make_splits` found them; [] if there are none yet.

    ``folder`` is that of the preprocessed data set. Raises ``ConfigError`` if the file does not hold folds.
    """
    path = given_splits(dataset, folder) or folder / SPLITS_FILE
    return read_splits(path) if path.is_file() else []


def forgotten_cases(dataset: Dataset, folder: Path, names: Sequence[str]) -> Fault | None:
    """Return a fault if annotated cases are in no fold of the user's ``splits_final.json``; None otherwise.

    Cases that are left out on purpose stand in a list ``"left_out"`` of any fold.

    Parameters
    ----------
    names
        The annotated cases.
    """
    path = given_splits(dataset, folder)
    if path is None:
        return None
    splits = read_splits(path)
    left_out = {name for split in splits for name in split.left_out}
    in_folds = {name for split in splits for name in (*split.train, *split.val)} | left_out
    forgotten = [name for name in sorted(names) if name not in in_folds]
    if not forgotten:
        return None
    pronoun = "it" if len(forgotten) == 1 else "them"
    fix = f"Add {pronoun} to train or val of a fold, or delete the file to get new folds. To leave {pronoun} out on "
    names_left_out = json.dumps(sorted({*left_out, *forgotten}), ensure_ascii=False)
    fix += f'purpose, write "left_out": {names_left_out} in its first fold.'
    missing = f"no fold with {counted(len(forgotten), 'annotated case')}: {listed(forgotten, len(forgotten))}"
    return Fault(str(path), missing, "every annotated case in a fold", fix)


def refuse_forgotten_cases(dataset: Dataset, folder: Path, names: Sequence[str]) -> None:
    """Raise ``DatasetError`` if there are :func:`forgotten_cases`."""
    fault = forgotten_cases(dataset, folder, names)
    if fault is not None:
        raise DatasetError([fault])


def warn_of_gaps(splits: Sequence[Split], dataset: Dataset, fingerprint: Fingerprint, fold: int | None = None) -> None:
    """Warn of the classes and densities of annotation that the folds lack, or that ``fold`` lacks."""
    heads = [head.name for head in dataset.labels.heads]
    profiles = profiles_from_fingerprint(fingerprint)
    for gap in find_gaps([(split.train, split.val) for split in splits], profiles, heads):
        if fold is None or gap.fold == fold:
            _log.warning("%s", gap)


def select_fold(splits: Sequence[Split], fold: int | Literal["all"], names: Sequence[str] | None = None) -> Split:
    """Return one fold; ``"all"`` trains and validates on every case.

    Parameters
    ----------
    names
        Cases that ``"all"`` means, without those that the folds leave out on purpose; None takes all cases of the
        folds.

    Raises
    ------
    ConfigError
        If there is no such fold; names the folds that exist.
    """
    if fold == ALL:
        every = {name for split in splits for name in (*split.train, *split.val)} if names is None else set(names)
        everything = tuple(sorted(every - {name for split in splits for name in split.left_out}))
        return Split(everything, everything)
    if not 0 <= fold < len(splits):
        raise ConfigError(
            f"fold {fold} does not exist, expected one of {list(range(len(splits)))} or 'all'. "
            "For more folds, add cases or list the folds in a splits_final.json."
        )
    return splits[fold]


def read_splits(path: Path) -> list[Split]:
    """Read a list of ``{"train": [...], "val": [...]}``; raise ``ConfigError`` if the file holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: the file cannot be read ({error}), expected JSON. Correct or delete it.") from error
    if not isinstance(content, list) or not content or not all(_is_fold(item) for item in content):
        raise ConfigError(
            f'{path}: not a list of folds, expected [{{"train": [case, ...], "val": [case, ...]}}, ...]. '
            "Correct it, or delete it to get new folds."
        )
    return [Split(*(_names_in(item, part) for part in ("train", "val", "left_out"))) for item in content]


def _names_in(item: Mapping[str, Any], part: str) -> tuple[str, ...]:
    return tuple(sorted({normal_name(name) for name in item.get(part, ())}))


def _is_fold(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(names, list) and all(isinstance(name, str) for name in names)
        for names in (item.get("train"), item.get("val"), item.get("left_out", []))
    )


def _units(names: Sequence[str], groups: Mapping[str, str | None]) -> list[tuple[str, ...]]:
    """Return the groups of cases that must stay together, sorted by group, or by case name where there is no group."""
    units: dict[tuple[str, bool], list[str]] = {}
    for name in sorted(set(names)):
        group = groups.get(name)
        key = (name, False) if group is None else (group, True)
        units.setdefault(key, []).append(name)
    return [tuple(units[key]) for key in sorted(units)]


def _outdated(splits: Sequence[Split], names: Sequence[str], groups: Mapping[str, str | None]) -> str | None:
    """Return why folds do not fit the cases any more; None if they do."""
    in_folds = {name for split in splits for name in (*split.train, *split.val)}
    if in_folds != set(names):
        removed, new = sorted(in_folds - set(names)), sorted(set(names) - in_folds)
        are = "is" if len(removed) == 1 else "are"
        named = "; ".join(f"{what}: {listed(cases)}" for what, cases in (("gone", removed), ("new", new)) if cases)
        are_new = "is" if len(new) == 1 else "are"
        return f"{counted(len(removed), 'case')} {are} gone and {len(new)} {are_new} new ({named})"
    for split in splits:
        train_groups = {groups.get(name) for name in split.train} - {None}
        if split.train != split.val and train_groups & {groups.get(name) for name in split.val}:
            return "a group is divided between training and validation"
    return None


def split_faults(dataset: Dataset, folder: Path, names: Sequence[str]) -> list[Fault]:
    """Return all faults of the user's ``splits_final.json``; empty if there is no such file.

    Parameters
    ----------
    names
        Cases to train on.

    Raises
    ------
    ConfigError
        If the file does not hold folds.
    """
    path = given_splits(dataset, folder)
    if path is None:
        return []
    forgotten = forgotten_cases(dataset, folder, names)
    return [*_fold_faults(path, read_splits(path), dataset, names), *([] if forgotten is None else [forgotten])]


def _fold_faults(path: Path, splits: Sequence[Split], dataset: Dataset, names: Sequence[str]) -> list[Fault]:
    """Return a fault for each fold that names cases that do not exist, or has no case to train or validate on."""
    known, usable = {case.name for case in dataset.cases} | set(names), set(names)
    faults = []
    for fold, split in enumerate(splits):
        if unknown := sorted({*split.train, *split.val} - known):
            faults.append(
                Fault(f"{path}: fold {fold}", f"unknown cases {unknown}", "cases of the data set", "Correct the names.")
            )
        faults += [
            Fault(f"{path}: fold {fold}", f"no usable case in {part!r}", "at least one", "List annotated cases.")
            for part, cases in (("train", split.train), ("val", split.val))
            if not usable & {*cases}
        ]
    return faults


def _use_given(path: Path, dataset: Dataset, names: Sequence[str]) -> list[Split]:
    """Check the folds that the user gave and return them without cases that have no annotation, with a warning."""
    splits, usable = read_splits(path), set(names)
    faults = _fold_faults(path, splits, dataset, names)
    if faults:
        raise DatasetError(faults)
    result = []
    for fold, split in enumerate(splits):
        train, val = (tuple(name for name in part if name in usable) for part in (split.train, split.val))
        usable_part = Split(train, val, split.left_out)
        if left_out := sorted({*split.train, *split.val} - usable):
            _log.warning("%s: fold %d: %s are left out, because no voxel is annotated.", path, fold, left_out)
        if both := sorted({*usable_part.train} & {*usable_part.val}):
            _log.warning("%s: fold %d: %s are in both train and val, so scores are too high.", path, fold, both)
        result.append(usable_part)
    return result
