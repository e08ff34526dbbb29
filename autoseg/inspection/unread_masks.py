"""Search for folders of masks beside the label files that dataset.json does not name.

If such a mask is not read, unannotated voxels are trained as whatever the label files hold there.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from autoseg.dataset.dataset import Dataset
from autoseg.dataset.schema import MASK_FOLDER

_NAME = re.compile("mask|valid|annotated|known|roi", re.IGNORECASE)
"""Words in the names of folders that may hold valid masks."""


def unread_masks(dataset: Dataset) -> list[str]:
    """Return a warning for each folder that probably holds valid masks of most cases but is not read.

    No warning if dataset.json names a folder of masks, or states with null that there is none.
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
                f"dataset.json: {MASK_FOLDER}: the key is missing, so {folder.name}/ is not read, though it has files "
                f"for {n_masks} of {len(dataset.cases)} cases. If its files are 0 where nothing is annotated, write "
                f'"{MASK_FOLDER}": "{folder.name}"; otherwise these voxels are trained with the values of the label '
                f'files. If its files mean something else, write "{MASK_FOLDER}": null'
            )
    return warnings


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir() and _NAME.search(entry.name))
