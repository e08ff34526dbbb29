"""Folders of a workspace: raw data, preprocessed caches, results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from autoseg.core.errors import ConfigError

ALL: Final = "all"
"""The fold that trains on every case."""
_SEED = "_seed"
FOLD_PATTERN: Final = rf"(\d+|{ALL})({_SEED}[1-9]\d*)?"
"""Regular expression of what users type for a member of a model folder."""


@dataclass(frozen=True, slots=True)
class FoldName:
    """Name of a member of a model folder, as in ``fold_0``, ``fold_all``, ``fold_all_seed3``: its fold and its seed."""

    fold: str
    """Number of the fold, or ``ALL``: the cases that it was trained on."""
    seed: int = 0
    """How many seeds after the first it was trained with; 0, the first, does not show in the name."""

    def __str__(self) -> str:
        return f"{self.fold}{_SEED}{self.seed}" if self.seed else self.fold

    @classmethod
    def parse(cls, name: str) -> FoldName:
        """Return what a name without ``fold_`` says; a name of another form is a fold of its own."""
        found = re.fullmatch(rf"(.+){_SEED}([1-9]\d*)", name)
        return cls(name) if found is None else cls(found[1], int(found[2]))


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
        """Folder of a model: one ``fold_<k>`` folder per fold."""
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
