"""Find folders of masks beside the label files that dataset.json does not mention: their zeros would be lost."""

from __future__ import annotations

import os
import re
from pathlib import Path

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.schema import MASK_FOLDER

_NAME = re.compile("mask|valid|annotated|known|roi", re.IGNORECASE)
"""In the names of folders that may hold valid masks."""


def unread_masks(dataset: Dataset) -> list[str]:
    """Return a warning for each folder that looks like valid masks of most cases and is not read.

    Nothing where dataset.json names a folder of masks, or says with null that there is none.
    """
    if MASK_FOLDER in dataset.json or not dataset.cases:
        return []
    names = {case.label.name for case in dataset.cases if case.label is not None}
    own = {path.parent.resolve() for case in dataset.cases for path in case.files}
    warnings = []
    for folder in _folders(dataset.folder):
        n_masks = sum((folder / name).is_file() for name in names)
        if folder.resolve() not in own and 2 * n_masks > len(names):
            warnings.append(
                f"dataset.json: {MASK_FOLDER}: no such key, so {folder.name}/ is not read, though it holds a file for "
                f"{n_masks} of {len(dataset.cases)} cases. If it is 0 wherever nobody looked, write "
                f'"{MASK_FOLDER}": "{folder.name}": else those voxels train as what the label files hold there. If it '
                f'says something else, write "{MASK_FOLDER}": null'
            )
    return warnings


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and _NAME.search(entry.name))
