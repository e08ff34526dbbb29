"""Folders of a workspace: raw data, preprocessed caches, results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from autoseg.core.errors import ConfigError

ALL: Final = "all"
"""The fold that trains on every case."""
_PREFIX, _SEED = "fold_", "_seed"
FOLD_PATTERN: Final = rf"(\d+|{ALL})({_SEED}\d+)?"
"""Regular expression of what users type for the members of a model folder."""


@dataclass(frozen=True, slots=True)
class FoldName:
    """Name of a member of a model folder, as in ``fold_0``, ``fold_all``, ``fold_all_seed3``: its fold and its seed."""

    fold: str
    """Number of the fold, or ``ALL``: the cases that it was trained on."""
    seed: int = 0
    """How many seeds after the first it was trained with; 0, the first, does not show in the name."""

    def __str__(self) -> str:
        return f"{self.fold}{_SEED}{self.seed}" if self.seed else self.fold

    @property
    def alone(self) -> str:
        """What a user types for this member without the other seeds of its fold."""
        return f"{self.fold}{_SEED}{self.seed}"

    @classmethod
    def parse(cls, name: str) -> FoldName:
        """Return what a name without ``fold_`` says; a name of another form is a fold of its own."""
        found = re.fullmatch(rf"(.+){_SEED}(\d+)", name)
        return cls(name) if found is None else cls(found[1], int(found[2]))


def parse_fold(text: str) -> FoldName:
    """Turn the argument FOLD, such as ``0``, ``all`` or ``all_seed1``, into fold and seed; raise ``ConfigError``."""
    if not re.fullmatch(FOLD_PATTERN, text, re.ASCII):
        raise ConfigError(f"fold: found {text!r}, expected a number from 0 or 'all'. Write for example 0.")
    name = FoldName.parse(text)
    return name if name.fold == ALL else FoldName(str(int(name.fold)), name.seed)


def with_seeds(folds: Sequence[str], n_seeds: int) -> list[str]:
    """Return the names of ``n_seeds`` seeds of each fold: ``all``, ``all_seed1`` ...; with 1 the folds as they are.

    Raises ``ConfigError`` if a name is not that of a fold, or already that of a further seed.
    """
    if n_seeds == 1:
        return [*folds]
    names = [parse_fold(fold) for fold in folds]
    for name in names:
        if name.seed:
            raise ConfigError(
                f"--seeds {n_seeds}: found the fold {name}, which is one seed of {name.fold}, expected folds. Leave "
                f"--seeds out, or write {name.fold}."
            )
    return [str(FoldName(name.fold, seed)) for name in names for seed in range(n_seeds)]


def chosen_members(typed: str, names: Iterable[str]) -> list[str]:
    """Return the members that a user means: ``all`` is every seed of that fold, ``all_seed0`` the first alone."""
    wanted = FoldName.parse(typed)
    if typed == wanted.fold:
        return [name for name in names if FoldName.parse(name).fold == typed]
    return [name for name in names if name == str(wanted)]


def fold_folder(model: Path, fold: str) -> Path:
    """Return the folder of a member of a model folder."""
    return model / f"{_PREFIX}{fold}"


def fold_folders(model: Path) -> dict[str, Path]:
    """Return the name of each member of a model folder -> its folder, sorted; {} if there is no such folder."""
    return {path.name.removeprefix(_PREFIX): path for path in sorted(model.glob(f"{_PREFIX}*")) if path.is_dir()}


@dataclass(frozen=True, slots=True)
class Workspace:
    """The three folders below ROOT, and the search for a data set."""

    root: Path

    def raw(self, dataset: str) -> Path:
        """Folder of a data set's source files."""
        return self.root / "raw" / dataset

    def preprocessed(self, dataset: str) -> Path:
        """Folder of a data set's fingerprint, plan, splits and caches."""
        return self.root / "preprocessed" / dataset

    def results(self, dataset: str) -> Path:
        """Folder of all models of a data set."""
        return self.root / "results" / dataset

    def model(self, dataset: str, configuration: str, name: str = "default") -> Path:
        """Folder of a model: one ``fold_<k>`` folder per fold, and ``fold_<k>_seed<n>`` for further seeds."""
        return self.results(dataset) / f"{name}__{configuration}"

    def find_dataset(self, given: str) -> Path:
        """Return the folder of a data set, or the path of its dataset.json if ``given`` is a file.

        ``given`` is a folder that holds a dataset.json, a dataset.json itself, a name below ROOT/raw, or nnU-Net's
        integer id (``4`` finds ``Dataset004_*``). Raises ``ConfigError`` if there is no such data set or several.
        """
        path = Path(given).expanduser()
        if path.is_file():
            return path
        if (path / "dataset.json").is_file():
            return path
        if (self.raw(given) / "dataset.json").is_file():
            return self.raw(given)
        raw = self.root / "raw"
        if given.isdigit():
            matches = sorted(raw.glob(f"Dataset{int(given):03d}_*/dataset.json"))
            if len(matches) == 1:
                return matches[0].parent
            if len(matches) > 1:
                names = [item.parent.name for item in matches]
                raise ConfigError(f"data set id {given}: found {names} below {raw}, expected one. Give the full name.")
        known = sorted(item.parent.name for item in raw.glob("*/dataset.json"))
        raise ConfigError(
            f"data set {given!r}: neither a folder with a dataset.json nor a name below {raw} "
            f"(there: {known or 'nothing'}). Give the path of the folder, or set --root or AUTOSEG_ROOT."
        )
