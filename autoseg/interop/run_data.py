"""The data set that a run's file describes: HDF5 cubes listed in its table ``data``, converted on first use."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoseg.core.atomic import write_json
from autoseg.core.config_levels import DATA_TABLE, read_toml
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted, did_you_mean, listed
from autoseg.core.progress import Progress, silent
from autoseg.core.workspace import Workspace
from autoseg.interop.elektronn import ConversionReport, convert
from autoseg.interop.elektronn_cubes import ConversionSettings, Cube, pair_cubes
from autoseg.io.hdf5 import parse_array
from autoseg.planning.splits import NNUNET_SPLITS_FILE

log = logging.getLogger(__name__)

RECORD_FILE = "run_data.json"
"""Beside dataset.json: what a data set was converted from."""
ELEKTRONN_WORDS = {"d_files": "images", "l_files": "labels", "cube_prios": "priorities", "valid_cubes": "validation"}
"""ELEKTRONN's option -> key of the table."""


class DataTable(BaseModel):
    """The table ``data`` of a run's file; paths are relative to the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: tuple[str, ...] = Field(min_length=1)
    """``file.h5:key``, one per cube; ``*`` in a file name stands for all such files, in the order of their
    names, ``raw_2`` before ``raw_10``."""
    labels: tuple[str, ...] = Field(min_length=1)
    """In the same order."""
    name: str | None = Field(default=None, pattern=r"^[^./\\][^/\\]*$")
    """Of the data set; None: the file's without the ending."""
    classes: tuple[str, ...] | None = None
    """Names of the classes 0, 1, ..., first background; None: background, class_1, ..."""
    priorities: tuple[float, ...] | None = None
    """Relative sampling frequency of each cube; None: all cases alike."""
    validation: tuple[int | str, ...] = ()
    """Cubes that validate, by index from 0 or by case name; (): five folds."""
    case_names: tuple[str, ...] | None = None
    """None: those of the image files."""
    channel_names: tuple[str, ...] | None = None
    """None: EM, or channel_0, channel_1, ..."""
    axes: str = "xyz"
    """Order in the files, with c for channels; zxy is ELEKTRONN's zchxy_order."""
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """mm, (x, y, z)."""
    anisotropic_data: bool = False
    """The cubes are stacks of 2-D images: each slice along z is a case, and networks are 2-D."""
    ending: Literal[".nii.gz", ".nii", ".nrrd", ".mha"] = ".nii.gz"
    """Of the files to write."""

    def settings(self) -> ConversionSettings:
        """Return what the converter is to be told beside the cubes."""
        x, y, z = self.spacing
        return ConversionSettings(
            self.classes, self.channel_names, self.axes, (z, y, x), self.ending, self.anisotropic_data
        )


def dataset_of_run_file(path: Path, workspace: Workspace, progress: Progress = silent) -> Path:
    """Return the folder of the data set that a run's file describes, below ROOT/raw; convert the cubes if need be.

    They are converted when the folder is not there, and again when the table or a file has changed since then.
    ``validation`` becomes the only fold. ``progress`` as for :func:`autoseg.interop.elektronn.convert`.

    Raises
    ------
    ConfigError
        If the file has no such table, or a wrong one, or if the folder holds a data set of another origin.
    DatasetError
        With every fault of every cube.
    """
    table = read_table(path)
    if table is None:
        raise ConfigError(
            f"{path}: it has no table [{DATA_TABLE}], so it names no data set. Write images and labels into one, or "
            f"give the data set and --config {path}."
        )
    folder = workspace.raw(_name(table, path))
    cubes = _cubes(table, path)
    record = {"file": str(path.resolve()), "table": table.model_dump(mode="json"), "sources": _sources(cubes)}
    present = _present_record(folder, path)
    if present == record:
        return folder
    validating = _validating(table, cubes, path)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    report = convert(cubes, partial, table.settings(), progress=progress)
    if validating:
        write_json(partial / NNUNET_SPLITS_FILE, [_fold(report, validating)])
    write_json(partial / RECORD_FILE, record)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    why = "" if present is None else " again, since files or the table changed"
    log.info("%s: %s converted%s to %s", path, counted(len(cubes), "cube"), why, folder)
    return folder


def check_same_dataset(path: Path, workspace: Workspace, folder: Path) -> None:
    """Raise ``ConfigError`` if a run's file describes another data set than that in ``folder``."""
    table = read_table(path)
    if table is None:
        return
    described = workspace.raw(_name(table, path))
    if described.resolve() != folder.resolve():
        raise ConfigError(
            f"--config {path}: its table [{DATA_TABLE}] describes {described}, expected {folder}. Give {path} in the "
            "place of the data set, or take the table out."
        )


def read_table(path: Path) -> DataTable | None:
    """Return the table of a run's file; None if it has none. Raises ``ConfigError`` with all that is wrong in it."""
    content = read_toml(path)
    if DATA_TABLE not in content:
        return None
    try:
        return DataTable.model_validate(content[DATA_TABLE])
    except ValidationError as error:
        raise ConfigError("\n".join(_fault(path, item) for item in error.errors())) from error


def _fault(path: Path, item: Mapping[str, Any]) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    where = f"{path}: {DATA_TABLE}.{key}".rstrip(".")
    if item["type"] == "extra_forbidden":
        word = ELEKTRONN_WORDS.get(key)
        advice = f" Write {word}." if word else did_you_mean(key, DataTable.model_fields, 0.5)
        return f"{where}: no such key, expected one of {', '.join(DataTable.model_fields)}.{advice}"
    return f"{where}: {item['msg'][:1].lower()}{item['msg'][1:]}. Correct it."


def _name(table: DataTable, path: Path) -> str:
    return table.name or path.stem


def _cubes(table: DataTable, path: Path) -> list[Cube]:
    images, labels = (
        [cube for text in texts for cube in _expanded(text, path, key)]
        for key, texts in (("images", table.images), ("labels", table.labels))
    )
    return pair_cubes(images, labels, table.priorities, table.case_names, lambda key: f"{path}: {DATA_TABLE}.{key}")


def _expanded(text: str, path: Path, key: str) -> list[str]:
    """Return ``file:key`` with the file below the folder of ``path``; one for each file that a pattern matches."""
    file, array = parse_array(text)
    suffix = "" if array is None else f":{array}"
    folder = path.resolve().parent
    if not any(sign in str(file) for sign in "*?["):
        return [f"{folder / file.expanduser()}{suffix}"]
    files = sorted(folder.glob(str(file)), key=lambda item: _counting(str(item)))
    if not files:
        raise ConfigError(f"{path}: {DATA_TABLE}.{key}: found no file {file} in {folder}. Correct the pattern.")
    return [f"{item}{suffix}" for item in files]


def _counting(text: str) -> list[tuple[int, str]]:
    """Return what sorts file names as one counts: ``raw_2`` before ``raw_10``, as ELEKTRONN's lists are written."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text)]


def _validating(table: DataTable, cubes: Sequence[Cube], path: Path) -> frozenset[str]:
    """Return the names of the cubes that validate; raise ``ConfigError`` unless all exist and others remain."""
    names = [cube.name for cube in cubes]
    wrong = [
        given
        for given in table.validation
        if (given not in names if isinstance(given, str) else not 0 <= given < len(names))
    ]
    where = f"{path}: {DATA_TABLE}.validation"
    if wrong:
        raise ConfigError(
            f"{where}: found {listed(wrong)}, expected numbers from 0 to {len(names) - 1}, or names of "
            f"{listed(names)}. Correct them."
        )
    chosen = frozenset(given if isinstance(given, str) else names[given] for given in table.validation)
    if len(chosen) == len(names):
        raise ConfigError(f"{where}: found all cubes, expected at least one that trains. Leave one out.")
    return chosen


def _fold(report: ConversionReport, validating: frozenset[str]) -> dict[str, list[str]]:
    """Return the fold in which the cases of some cubes validate, and those of the others train."""
    parts: dict[str, list[str]] = {"train": [], "val": []}
    for cube, cases in report.cases_of.items():
        parts["val" if cube in validating else "train"] += cases
    return parts


def _sources(cubes: Sequence[Cube]) -> dict[str, list[int] | None]:
    """Return file -> size and time of change; None for a file that is not there."""
    files = sorted({parse_array(text)[0] for cube in cubes for text in (cube.image, cube.label)})
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else None for file in files}


def _present_record(folder: Path, path: Path) -> dict[str, Any] | None:
    """Return what the data set in ``folder`` was made of; None if the folder is not there.

    Raises ``ConfigError`` if it was not made of the run's file ``path``, which would replace it.
    """
    if not folder.exists():
        return None
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        origin = Path(record["file"])
    except (OSError, ValueError, KeyError, TypeError):
        origin = None
    if origin != path.resolve():
        of = "another origin" if origin is None else str(origin)
        raise ConfigError(
            f"{path}: {folder} holds a data set of {of}. Give [{DATA_TABLE}] a name of its own: name = "
            f'"{folder.name}_2"'
        )
    return record
