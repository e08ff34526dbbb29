"""Page about predictions: scores if there are references, predicted quality, uncertainty, and cases in pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted, listed
from autoseg.core.prediction_record import read_prediction_record
from autoseg.evaluation import AnySummary
from autoseg.report.case_parts import CaseKey, case_rows, choose, pictures
from autoseg.report.origin import Origin, command_parts
from autoseg.report.page import Cell, Section, facts, note, page, table, warnings
from autoseg.report.prediction_files import Places, Predictions, find_predictions
from autoseg.report.prediction_tables import QualityTable, UncertaintyTable, read_quality, read_uncertainty
from autoseg.report.score_parts import box_part, mean_part, quality_chart, ranked_keys
from autoseg.report.scores import Scores, case_table, scores_of, summary_warnings

GROUPS = {
    "score": ("worst", "median", "best"),
    "predicted quality": ("worst by prediction", "median by prediction", "best by prediction"),
    "uncertainty": ("most uncertain", "median uncertainty", "least uncertain"),
    "name": ("first", "middle", "last"),
}
"""What cases are ranked by -> names of the groups in pictures."""


def prediction_page(
    folder: Path, summary: AnySummary | None, places: Places, n_each: int, *, scored_at: float | None = None
) -> tuple[str, list[str]]:
    """Return the page of predictions, and remarks on what is missing.

    Parameters
    ----------
    folder
        Of the predictions; quality.csv, prediction.json and the folder ``uncertainty`` are read if they are there.
    summary
        Scores; None without references.
    places
        Where images, references and dataset.json lie, if not where they are looked for.
    n_each
        Number of worst, of median and of best cases in pictures.
    scored_at
        Time at which the scores were written (s, as of files); newer label maps are named. None if it is not known.

    Raises
    ------
    ConfigError
        If there is nothing to show: neither scores nor the meaning of the labels.
    """
    scores = None if summary is None else scores_of({"": summary})
    references = {} if scores is None else {case.case: case.reference for case in scores.cases}
    found = find_predictions(folder, places, references)
    if found.dataset is None and summary is None:
        raise ConfigError(
            f"{folder}: found neither dataset.json nor summary.json, expected what autoseg_predict or "
            "autoseg_evaluate_folder wrote. If these are predictions, give the meaning of their labels with -d."
        )
    quality, doubts = read_quality(folder), read_uncertainty(folder)
    ranked_by, ranked = _ranking(scores, quality, doubts, found)
    files = {("", case): own for case, own in found.cases.items()}
    shown = [case for case in choose(ranked, n_each, GROUPS[ranked_by]) if case.key in files]
    drawn, more = pictures(shown, files, found.dataset)
    remarks = [*found.remarks, *more]
    newer = _newer(found, scored_at)
    columns, rows = _case_table(scores, quality, doubts, found)
    chart = [] if scores is None or quality is None else quality_chart(quality.estimates, scores)
    sections = [
        Section("Overview", (_overview(scores, found, doubts), warnings([*newer, *_warnings(summary, quality)]))),
        Section("Scores", () if summary is None or scores is None else (mean_part(summary), box_part(scores))),
        Section("Cases", (case_rows("cases", columns, rows, shown),)),
        Section(f"Cases in pictures, by {ranked_by}", (warnings(remarks), *drawn)),
        Section("Predicted quality", (*chart, _quality_table(quality))),
        Section("Commands and versions", command_parts(_origins(folder, summary))),
    ]
    return page(f"Predictions in {folder.name}", f"Folder {folder.absolute()}", sections), [*remarks, *newer]


def _ranking(
    scores: Scores | None, quality: QualityTable | None, doubts: UncertaintyTable, found: Predictions
) -> tuple[str, list[tuple[CaseKey, str]]]:
    """Return what cases are ranked by, and the cases, worst first, each with its number in words."""
    if scores is not None and scores.ranked():
        return "score", ranked_keys(scores)
    if quality is not None and quality.by_case:
        values = sorted(quality.by_case.items(), key=lambda item: item[1])
        return "predicted quality", [(("", case), f"predicted Dice {value:.3f}") for case, value in values]
    entropies = {case: own.foreground.entropy for case, own in doubts.cases.items()}
    known = sorted(((value, case) for case, value in entropies.items() if value is not None), reverse=True)
    if known:
        return "uncertainty", [(("", case), f"mean entropy of the foreground {value:.3f}") for value, case in known]
    return "name", [(("", case), "") for case in found.cases]


def _overview(scores: Scores | None, found: Predictions, doubts: UncertaintyTable) -> str:
    values: dict[str, object] = {"predictions": len(found.cases) or None}
    if found.dataset is not None:
        labels = found.dataset.labels
        values["targets" if labels.targets else "classes"] = listed(
            labels.targets or [labels.heads[index].name for index in labels.foreground_heads]
        )
    if scores is None:
        values["scores"] = "none: no summary.json of autoseg_evaluate_folder"
    else:
        values[scores.metric_name] = scores.mean_text() or "none"
    kinds = {(own.members.kind, own.members.number) for own in doubts.cases.values()}
    if kinds:
        values["uncertainty"] = "; ".join(_kind_text(kind, number) for kind, number in sorted(kinds))
    return facts(values)


def _kind_text(kind: str, number: int) -> str:
    """Return of what an uncertainty is the disagreement: it means another thing for folds than for seeds."""
    if number == 1:
        return "entropy of one network"
    return f"entropy of the mean of {number} networks that differ in {kind or 'what was not recorded'}"


def _newer(found: Predictions, scored_at: float | None) -> list[str]:
    """Return a line that names label maps written after their scores."""
    if scored_at is None:
        return []
    newer = [case for case, files in found.cases.items() if files.prediction.stat().st_mtime > scored_at]
    if not newer:
        return []
    fix = "if they were predicted again, score them again with autoseg_evaluate_folder"
    return [f"{counted(len(newer), 'label map')} newer than the scores ({listed(newer)}): {fix}"]


def _warnings(summary: AnySummary | None, quality: QualityTable | None) -> list[str]:
    lines = [] if summary is None else summary_warnings(summary)
    if quality is not None:
        lines += [f"{case} is unlike the training cases: {reason}" for case, reason in quality.unlike]
    return lines


def _case_table(
    scores: Scores | None, quality: QualityTable | None, doubts: UncertaintyTable, found: Predictions
) -> tuple[list[str], Mapping[CaseKey, list[Cell]]]:
    """Return columns and rows of all cases: scores, predicted Dice, uncertainty, remarks; those that there are."""
    columns, values = ([], []) if scores is None else case_table(scores)
    of_case = {} if scores is None else {case.case: row for case, row in zip(scores.cases, values, strict=True)}
    names = sorted({*found.cases, *of_case})
    rows: dict[CaseKey, list[Cell]] = {("", name): list(of_case.get(name, [None] * len(columns))) for name in names}
    estimates = quality.by_case if quality is not None else {}
    more: dict[str, Mapping[str, Cell]] = {
        "predicted Dice": estimates,
        "entropy of the foreground": {case: own.foreground.entropy for case, own in doubts.cases.items()},
        "remark": _remarks(scores, quality),
    }
    for column, cells in more.items():
        if cells:
            columns = [*columns, column]
            for (_, name), row in rows.items():
                row.append(cells.get(name))
    return columns, rows


def _remarks(scores: Scores | None, quality: QualityTable | None) -> dict[str, Cell]:
    texts: dict[str, list[str]] = {}
    for case in scores.cases if scores is not None else ():
        if case.is_seen:
            texts.setdefault(case.case, []).append("seen in training")
    for name, _ in quality.unlike if quality is not None else ():
        texts.setdefault(name, []).append("unlike the training cases")
    return {case: ", ".join(lines) for case, lines in texts.items()}


def _quality_table(quality: QualityTable | None) -> str:
    if quality is None:
        return ""
    shown = [index for index in range(len(quality.columns)) if any(row[index] for row in quality.rows)]
    rows: list[list[Cell]] = [[_cell(row[index]) for index in shown] for row in quality.rows]
    columns = [quality.columns[index].replace("_", " ") for index in shown]
    return note("The content of quality.csv; empty columns are left out.") + table(columns, rows, name="quality")


def _cell(text: str) -> Cell:
    try:
        value = float(text)
    except ValueError:
        return text or None
    return value if math.isfinite(value) else text


def _origins(folder: Path, summary: AnySummary | None) -> list[Origin]:
    origins = []
    for run in read_prediction_record(folder).runs:
        machine = f"{run.environment.device}, {run.environment.platform}"
        name = f"prediction of {counted(len(run.images), 'case')} by {run.model}"
        origins.append(Origin(name, run.command, run.environment.versions, run.environment.git, machine, run.directory))
    if not origins:
        origins.append(Origin("prediction", None, {}))
    if summary is not None:
        origins.append(Origin("evaluation", summary.command, {}))
    return origins
