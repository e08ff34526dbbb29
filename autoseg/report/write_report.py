"""One HTML page about a run, a folder of predictions, or fused masks of experts."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autoseg.core.atomic import write_text
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.dataset.dataset import DATASET_JSON
from autoseg.dataset.folder_files import visible
from autoseg.io.images import SUPPORTED_ENDINGS
from autoseg.report.experts_page import EXPERTS_FILE, experts_page
from autoseg.report.prediction_files import Places, check_places
from autoseg.report.prediction_page import prediction_page
from autoseg.report.run_files import fold_folders, read_fold
from autoseg.report.run_page import run_page
from autoseg.report.scores import SUMMARY_FILE, read_summary

REPORT_FILE = "report.html"
Kind = Literal["run", "predictions", "experts"]


@dataclass(frozen=True, slots=True)
class Report:
    """A page that was written."""

    path: Path
    kind: Kind
    remarks: tuple[str, ...]
    """What the page does not show, and why."""


def write_report(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    summary: str | Path | None = None,
    places: Places | None = None,
    n_each: int = 3,
) -> Report:
    """Write a page that shows all about a folder, in one file that needs no network.

    Parameters
    ----------
    folder
        Of a fold, or of a model with its ``fold_<k>``; or of predictions; or the output of autoseg_fuse_experts.
    output
        File to write, atomically; None: ``report.html`` in the folder.
    summary
        Scores of predictions; None: ``summary.json`` in the folder, and without it no scores.
    places
        Where images, references and dataset.json lie; see :func:`.prediction_files.find_predictions`. None: searched.
    n_each
        Number of worst, of median and of best cases that are shown in pictures, at least 0.

    Raises
    ------
    ConfigError
        If the folder is none of these, an option does not fit it, or a given place does not exist.
    EvaluationError, ModelError, DatasetError
        If a file in it cannot be read.
    """
    folder = Path(folder)
    kind = kind_of(folder)
    if n_each < 0:
        raise ConfigError(f"-n {n_each}: expected 0 or more cases of each kind.")
    places = places or Places()
    check_places(places)
    if summary is not None and kind != "predictions":
        raise ConfigError(f"--summary {summary}: {folder} holds no predictions, so it has no use. Leave it out.")
    if kind == "run":
        text, remarks = run_page(folder, [read_fold(path) for path in fold_folders(folder)], places, n_each)
    elif kind == "experts":
        text, remarks = experts_page(folder, n_each)
    else:
        beside = folder / SUMMARY_FILE
        path = beside if summary is None and beside.is_file() else summary
        scores = None if path is None else read_summary(Path(path))
        scored_at = None if path is None else Path(path).stat().st_mtime
        text, remarks = prediction_page(folder, scores, places, n_each, scored_at=scored_at)
    written = folder / REPORT_FILE if output is None else Path(output)
    if written.is_dir():
        raise ConfigError(f"-o {written}: found a folder, expected a file. Give {written / REPORT_FILE}.")
    write_text(written, text)
    return Report(written, kind, tuple(remarks))


def kind_of(folder: Path) -> Kind:
    """Return what a folder holds; raise ``ConfigError`` if it is nothing that a page can be made of."""
    if not folder.is_dir():
        fix = f"Give its folder: {shlex.quote(str(folder.parent))}." if folder.is_file() else "Correct the path."
        found = "a file" if folder.is_file() else "no such folder"
        raise ConfigError(f"{folder}: {found}, expected the folder of a run or of predictions. {fix}")
    if (folder / EXPERTS_FILE).is_file():
        return "experts"
    if fold_folders(folder):
        return "run"
    inside = sorted(path.name for path in folder.iterdir() if path.is_dir() and fold_folders(path))
    if inside:
        raise ConfigError(
            f"{folder}: found a folder of several models ({listed(inside)}), expected one of them. Give "
            f"{shlex.quote(str(folder / inside[0]))}."
        )
    if (folder / DATASET_JSON).is_file() and (folder / "imagesTr").is_dir():
        raise ConfigError(
            f"{folder}: found a data set, expected the folder of a run or of predictions. "
            f"autoseg_plan_and_preprocess {shlex.quote(str(folder))} --check-only shows what a data set holds."
        )
    has_maps = any(path.name.lower().endswith(SUPPORTED_ENDINGS) for path in visible(folder))
    if has_maps or (folder / SUMMARY_FILE).is_file():
        return "predictions"
    raise ConfigError(
        f"{folder}: found neither a run (history.jsonl, or fold_<k> with one), nor predictions, nor the tables of "
        "autoseg_fuse_experts. Give the folder fold_<k> of a run, or the folder that autoseg_predict wrote (-o)."
    )
