"""Divide training cases into folds for cross-validation, by nnU-Net's rule, and keep the division in a file.

Where annotation is partial, kinds of cases are spread over the folds by as few swaps as that takes.
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
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.folder_files import normal_name
from autoseg.planning.strata import CaseProfile, profiles_from_fingerprint, spread

_log = logging.getLogger(__name__)

N_FOLDS = 5
SPLITS_FILE = "splits.json"
NNUNET_SPLITS_FILE = "splits_final.json"
_SEED = 12345


@dataclass(frozen=True, slots=True)
class Split:
    """One fold: names of the cases to train on and to validate on, sorted."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Cases that a user keeps out of all folds, on purpose."""


def make_splits(
    names: Sequence[str],
    groups: Mapping[str, str | None] | None = None,
    profiles: Mapping[str, CaseProfile] | None = None,
) -> list[Split]:
    """Divide cases into five folds, or into as many as there are cases (or groups) if these are fewer.

    Cases of one group stay together; a case without a group is a group of its own. One case (or group) alone gives one
    fold that trains and validates on it, with a warning.

    Parameters
    ----------
    names
        Training cases, in any order.
    groups
        Case -> group, where it has one.
    profiles
        Case -> what is annotated in it. If given for every case, each class and each density of annotation shall occur
        in every fold; cases (or groups) change places only where one does not though it could.

    Raises
    ------
    ConfigError
        If there is no case.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``utilities/crossval_split.py``: scikit-learn's ``KFold(5, shuffle=True, random_state=12345)``
    over sorted names, here over sorted groups. nnU-Net does not look at what the cases hold.
    """
    if not names:
        raise ConfigError("splits: found no training case, expected at least one. Annotate a case, at least in part.")
    units = _units(names, groups or {})
    if len(units) == 1:
        _log.warning("found one case or group only: training and validation use the same cases, scores will flatter.")
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
    """Return the profiles if the annotation of a data set is partial, else None: dense data keep nnU-Net's folds."""
    is_dense = dataset.labels.is_dense and all(profile.share == 1 for profile in profiles.values())
    return None if is_dense else profiles


def load_or_make_splits(
    dataset: Dataset, folder: Path, names: Sequence[str], fingerprint: Fingerprint | None = None
) -> list[Split]:
    """Return the folds of a data set, the same in every run.

    In this order: nnU-Net's ``splits_final.json`` in ``folder`` or beside dataset.json, taken as it is; ``splits.json``
    in ``folder`` if it still holds exactly the cases and keeps groups together; otherwise new ones, written there.

    Parameters
    ----------
    folder
        Of the preprocessed data set.
    names
        Cases to train on: those of the data set without uninformative ones.
    fingerprint
        Says what is annotated in each case, for new folds of partially annotated data.

    Raises
    ------
    DatasetError
        If ``splits_final.json`` names cases that do not exist, or has a fold without cases; lists all faults.
    ConfigError
        If a file does not hold folds at all.
    """
    given = given_splits(dataset, folder)
    if given is not None:
        return _honour(given, dataset, names)
    path = folder / SPLITS_FILE
    groups = {case.name: case.group for case in dataset.cases}
    if path.is_file():
        splits = read_splits(path)
        reason = _outdated(splits, names, groups)
        if reason is None:
            return splits
        _log.warning("%s: %s; the cases are divided anew. Folds trained before are not comparable.", path, reason)
    profiles = None if fingerprint is None else partial_profiles(dataset, profiles_from_fingerprint(fingerprint))
    splits = make_splits(names, groups, profiles)
    write_json(path, [{"train": list(split.train), "val": list(split.val)} for split in splits])
    return splits


def given_splits(dataset: Dataset, folder: Path) -> Path | None:
    """Return nnU-Net's ``splits_final.json``, in ``folder`` or beside dataset.json; None if there is none."""
    paths = (folder / NNUNET_SPLITS_FILE, dataset.folder / NNUNET_SPLITS_FILE)
    return next((path for path in paths if path.is_file()), None)


def forgotten_cases(dataset: Dataset, folder: Path, names: Sequence[str]) -> Fault | None:
    """Find the annotated cases ``names`` that no fold of the user's ``splits_final.json`` trains or validates on.

    Cases that are left out on purpose stand in a list ``"left_out"`` of any fold.
    """
    path = given_splits(dataset, folder)
    if path is None:
        return None
    splits = read_splits(path)
    left_out = {name for split in splits for name in split.left_out}
    held = {name for split in splits for name in (*split.train, *split.val)} | left_out
    forgotten = [name for name in sorted(names) if name not in held]
    if not forgotten:
        return None
    them = "it" if len(forgotten) == 1 else "them"
    fix = f"Add {them} to train or val of its folds, or delete the file for new folds; to leave {them} out on "
    names_left_out = json.dumps(sorted({*left_out, *forgotten}), ensure_ascii=False)
    fix += f'purpose, write "left_out": {names_left_out} in its first fold.'
    found = f"no fold with {counted(len(forgotten), 'annotated case')}: {listed(forgotten, len(forgotten))}"
    return Fault(str(path), found, "every annotated case in some fold", fix)


def refuse_forgotten_cases(dataset: Dataset, folder: Path, names: Sequence[str]) -> None:
    """Raise ``DatasetError`` if there are :func:`forgotten_cases`."""
    fault = forgotten_cases(dataset, folder, names)
    if fault is not None:
        raise DatasetError([fault])


def select_fold(splits: Sequence[Split], fold: int | Literal["all"], names: Sequence[str] | None = None) -> Split:
    """Return one fold; ``"all"`` trains and validates on every case.

    ``names`` are the cases that ``"all"`` means, by default those that occur in any fold; those that a fold leaves out
    on purpose are none of them. Raises ``ConfigError`` naming the folds that exist.
    """
    if fold == "all":
        every = {name for split in splits for name in (*split.train, *split.val)} if names is None else set(names)
        everything = tuple(sorted(every - {name for split in splits for name in split.left_out}))
        return Split(everything, everything)
    if not 0 <= fold < len(splits):
        raise ConfigError(
            f"fold: found {fold}, expected one of {list(range(len(splits)))} or 'all'. "
            "More folds need more cases, or a splits_final.json that lists them."
        )
    return splits[fold]


def read_splits(path: Path) -> list[Split]:
    """Read a list of ``{"train": [...], "val": [...]}``; raise ``ConfigError`` if the file holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: found a file that cannot be read ({error}), expected JSON. Correct or delete it."
        ) from error
    if not isinstance(content, list) or not content or not all(_is_fold(item) for item in content):
        raise ConfigError(
            f'{path}: found no list of folds, expected [{{"train": [case, ...], "val": [case, ...]}}, ...]. '
            "Correct it, or delete it for new folds."
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
    """Cases that must stay together, ordered by group, or by name where there is none."""
    units: dict[tuple[str, bool], list[str]] = {}
    for name in sorted(set(names)):
        group = groups.get(name)
        key = (name, False) if group is None else (group, True)
        units.setdefault(key, []).append(name)
    return [tuple(units[key]) for key in sorted(units)]


def _outdated(splits: Sequence[Split], names: Sequence[str], groups: Mapping[str, str | None]) -> str | None:
    """Why folds do not fit the cases any more; None if they do."""
    held = {name for split in splits for name in (*split.train, *split.val)}
    if held != set(names):
        gone, new = sorted(held - set(names)), sorted(set(names) - held)
        are = "is" if len(gone) == 1 else "are"
        named = "; ".join(f"{what}: {listed(cases)}" for what, cases in (("gone", gone), ("new", new)) if cases)
        return (
            f"{counted(len(gone), 'case')} {are} gone and {len(new)} {'is' if len(new) == 1 else 'are'} new ({named})"
        )
    for split in splits:
        train_groups = {groups.get(name) for name in split.train} - {None}
        if split.train != split.val and train_groups & {groups.get(name) for name in split.val}:
            return "a group is divided between training and validation"
    return None


def split_faults(dataset: Dataset, folder: Path, names: Sequence[str]) -> list[Fault]:
    """Return all that is wrong with the user's ``splits_final.json``: for cases to train on ``names``.

    Raises ``ConfigError`` if the file does not hold folds at all.
    """
    path = given_splits(dataset, folder)
    if path is None:
        return []
    forgotten = forgotten_cases(dataset, folder, names)
    return [*_fold_faults(path, read_splits(path), dataset, names), *([] if forgotten is None else [forgotten])]


def _fold_faults(path: Path, splits: Sequence[Split], dataset: Dataset, names: Sequence[str]) -> list[Fault]:
    """Find cases that do not exist, and folds without a case to train or validate on."""
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


def _honour(path: Path, dataset: Dataset, names: Sequence[str]) -> list[Split]:
    """Validate folds that the user gave; cases that carry no information leave them, with a warning."""
    splits, usable = read_splits(path), set(names)
    faults = _fold_faults(path, splits, dataset, names)
    if faults:
        raise DatasetError(faults)
    result = []
    for fold, split in enumerate(splits):
        train, val = (tuple(name for name in part if name in usable) for part in (split.train, split.val))
        kept = Split(train, val, split.left_out)
        if left_out := sorted({*split.train, *split.val} - usable):
            _log.warning("%s: fold %d: %s are left out: no voxel is annotated.", path, fold, left_out)
        if both := sorted({*kept.train} & {*kept.val}):
            _log.warning("%s: fold %d: %s are in both train and val: scores will flatter.", path, fold, both)
        result.append(kept)
    return result
