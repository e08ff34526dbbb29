"""Page about a run: learning curves, scores of the validation, cases in pictures, settings, commands and versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.core.findings import counted
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import AnySummary, Summary
from autoseg.evaluation.summary import summarise
from autoseg.report.case_panels import PictureFiles
from autoseg.report.case_parts import CaseKey, case_rows, choose, pictures
from autoseg.report.charts import Curve, curves
from autoseg.report.history import dice_name
from autoseg.report.origin import Origin, command_parts
from autoseg.report.page import Cell, Section, facts, heading, note, page, side_by_side, table, warnings
from autoseg.report.prediction_files import Places, find_predictions
from autoseg.report.run_files import VALIDATION, FoldRun
from autoseg.report.score_parts import box_part, mean_part, ranked_keys
from autoseg.report.scores import Scores, case_table, mean_of_head, scores_of, summary_warnings

MOST_CLASSES = 8
"""Most classes whose score has a curve of its own."""


def run_page(folder: Path, folds: Sequence[FoldRun], places: Places, n_each: int) -> tuple[str, list[str]]:
    """Return the page of a fold or of all folds of a model, and remarks on what is missing.

    Parameters
    ----------
    folder
        Of the fold or the model.
    folds
        At least one.
    places
        Where images and references lie, if not where the run found them.
    n_each
        Number of worst, of median and of best validation cases in pictures.
    """
    scored = {fold.name if len(folds) > 1 else "": fold for fold in folds if fold.summary is not None}
    summaries: dict[str, AnySummary] = {name: fold.summary for name, fold in scored.items() if fold.summary is not None}
    scores = scores_of(summaries) if summaries else None
    validation, remarks = _validation(scored, scores, places, n_each) if scores is not None else ([], [])
    model = folder if len(folds) > 1 or not folder.name.startswith("fold_") else folder.parent
    title = f"{model.parent.name}, {model.name}" + (f", fold {folds[0].name}" if len(folds) == 1 else "")
    sections = [
        Section("Overview", (_overview(folds, scores), warnings(_warnings(folds)))),
        Section("Learning curves", (side_by_side(_curves(folds)),)),
        Section("Scores of the validation", _score_parts(summaries, scores)),
        *validation,
        Section("Settings", (_settings(folds),)),
        Section("Commands and versions", command_parts([origin for fold in folds for origin in _origins(fold, folds)])),
    ]
    lead = f"Training of {counted(len(folds), 'fold')} in {folder.absolute()}"
    return page(title, lead, sections), remarks


def _overview(folds: Sequence[FoldRun], scores: Scores | None) -> str:
    first = folds[0].settings
    if len(folds) == 1:
        fold, values = folds[0], _score_facts(scores)
        return facts(
            {
                "steps": _steps(fold),
                "time": _duration(sum(record.seconds for record in fold.records)),
                **values,
                "training cases": len(first.train_cases) or None,
                "validation cases": len(first.val_cases) or None,
                "weights": None if first.n_parameters is None else f"{first.n_parameters:,} parameters",
                "batch size": first.batch_size,
                "precision": first.precision,
                "started from": first.pretrained or "fresh weights",
            }
        )
    heads = scores.heads if scores is not None and len(scores.heads) <= MOST_CLASSES else ()
    metric = scores.metric if scores is not None else "score"
    rows: list[list[Cell]] = []
    for fold in folds:
        last = fold.records[-1] if fold.records else None
        best = max((record.dice_smooth for record in fold.records if record.dice_smooth is not None), default=None)
        means: list[Cell] = []
        if fold.summary is not None:
            of_head = {name: mean_of_head(fold.summary, key, metric) for key, name in fold.summary.names.items()}
            means = [of_head.get(head) for head in heads]
        rows.append(
            [
                fold.name, _steps(fold), _duration(sum(record.seconds for record in fold.records)),
                None if last is None else last.train_loss, None if last is None else last.validation_loss, best,
                fold.summary.n_cases if fold.summary is not None else None, *(means or [None] * len(heads)),
            ]
        )  # fmt: skip
    columns = [
        "fold",
        "steps",
        "time",
        "last training loss",
        "last validation loss",
        "best online score",
        "validation cases",
    ]
    return facts(_score_facts(scores)) + table([*columns, *(f"mean {metric} {head}" for head in heads)], rows)


def _score_facts(scores: Scores | None) -> dict[str, object]:
    if scores is None:
        return {}
    return {f"validation {scores.metric_name}": scores.mean_text()}


def _warnings(folds: Sequence[FoldRun]) -> list[str]:
    lines = []
    for fold in folds:
        own = [] if fold.is_finished else [f"not finished: {_steps(fold)} steps"]
        skipped = sum(record.skipped for record in fold.records)
        if skipped:
            own.append(f"{counted(skipped, 'step')} left out, because the loss or the gradient was not finite")
        own += ["its validation cases are not scored yet"] * (fold.summary is None)
        own += summary_warnings(fold.summary) if fold.summary is not None else []
        lines += [f"fold {fold.name}: {line}" if len(folds) > 1 else line for line in own]
    return lines


def _curves(folds: Sequence[FoldRun]) -> list[str]:
    """Return the charts of losses, scores and learning rates; folds have colours if there are several."""
    several = len(folds) > 1
    losses, scores, classes, rates = [], [], [], []
    for index, fold in enumerate(folds):
        prefix, records = (f"fold {fold.name}, " if several else ""), fold.records
        second = index if several else 1
        losses.append(Curve(f"{prefix}training", [(r.iteration, r.train_loss) for r in records], index))
        losses.append(Curve(f"{prefix}validation", [(r.iteration, r.validation_loss) for r in records], second, 1))
        scores.append(Curve(f"{prefix}each line", [(r.iteration, r.dice) for r in records], index, 2))
        scores.append(Curve(f"{prefix}smoothed", [(r.iteration, r.dice_smooth) for r in records], second))
        names = list(records[-1].dice_per_head) if records else []
        for number, name in enumerate(names if 1 < len(names) <= MOST_CLASSES and not several else []):
            classes.append(Curve(name, [(r.iteration, r.dice_per_head.get(name)) for r in records], number, number % 3))
        rates.append(Curve(f"fold {fold.name}", [(r.iteration, r.learning_rate) for r in records], index, index % 3))
    lasts = [fold.records[-1] for fold in folds if fold.records]
    name = dice_name(lasts[0]) if lasts else "Dice"
    return [
        curves("loss", losses, x_label="step"),
        curves(f"{name} on validation patches", scores, x_label="step"),
        curves(f"{name} of each class on validation patches", classes, x_label="step"),
        curves("learning rate", rates, x_label="step"),
    ]


def _score_parts(summaries: dict[str, AnySummary], scores: Scores | None) -> tuple[str, ...]:
    if scores is None:
        return ()
    pooled = _pooled(list(summaries.values()))
    if pooled is not None:
        return (mean_part(pooled), box_part(scores))
    each = "".join(heading(f"fold {name}") + mean_part(summary) for name, summary in summaries.items())
    return (each, box_part(scores))


def _pooled(summaries: Sequence[AnySummary]) -> AnySummary | None:
    """Return one summary of the cases of all folds; None of several regressions, whose sums are not known."""
    if len(summaries) == 1:
        return summaries[0]
    of_classes = [summary for summary in summaries if isinstance(summary, Summary)]
    if len(of_classes) < len(summaries):
        return None
    cases = [case for summary in of_classes for case in summary.metric_per_case]
    tolerance = of_classes[0].tolerance_mm
    return summarise(cases, of_classes[0].names).model_copy(update={"tolerance_mm": tolerance})


def _validation(
    folds: dict[str, FoldRun], scores: Scores, places: Places, n_each: int
) -> tuple[list[Section], list[str]]:
    """Return the table of all validation cases, and the pictures of some."""
    files: dict[CaseKey, PictureFiles] = {}
    dataset: Dataset | None = None
    remarks: list[str] = []
    for name, fold in folds.items():
        references = {case.case: case.reference for case in scores.cases if case.fold == name}
        found = find_predictions(fold.folder / VALIDATION, places, references)
        dataset = dataset or found.dataset
        files |= {(name, case): own for case, own in found.cases.items()}
        remarks += found.remarks
    shown = [case for case in choose(ranked_keys(scores), n_each, ("worst", "median", "best")) if case.key in files]
    columns, rows = case_table(scores)
    keyed = {(case.fold, case.case): row for case, row in zip(scores.cases, rows, strict=True)}
    drawn, more = pictures(shown, files, dataset)
    remarks = list(dict.fromkeys([*remarks, *more]))
    return [
        Section("Cases of the validation", (case_rows("cases", columns, keyed, shown),)),
        Section("Worst, median and best cases", (warnings(remarks), *drawn)),
    ], remarks


def _settings(folds: Sequence[FoldRun]) -> str:
    """Return the settings that are not the defaults, with what set them."""
    settings = folds[0].settings
    rows: list[list[Cell]] = [
        [key, settings.changed.get(key), level] for key, level in sorted(settings.origins.items())
    ]
    other = note("The settings of the other folds are in their training.json.") if len(folds) > 1 else ""
    own = [[key, value] for key, value in (("loss", settings.loss), ("seed", settings.seed)) if value is not None]
    shown = table(["setting", "value", "set by"], rows)
    return shown + facts({str(key): value for key, value in own}) + (other if shown else "")


def _origins(fold: FoldRun, folds: Sequence[FoldRun]) -> list[Origin]:
    """Return the commands of a fold with the versions that ran at that time."""
    settings, prefix = fold.settings, f"fold {fold.name}" if len(folds) > 1 else ""
    commands = settings.commands or (None,)
    origins = []
    for command in commands:
        begin = 0 if command is None else command.iteration
        then = [item for item in settings.environments if item.iteration <= begin] or list(settings.environments)
        environment = then[-1] if then else None
        place = f"from step {begin}" if begin else ""
        origins.append(
            Origin(
                ", ".join(text for text in (prefix, place) if text),
                None if command is None else command.command,
                {} if environment is None else environment.versions,
                None if environment is None else environment.git,
                "" if environment is None else ", ".join(filter(None, (environment.device, environment.platform))),
            )
        )
    return origins


def _steps(fold: FoldRun) -> str:
    planned = fold.settings.iterations
    return f"{fold.iterations:,}" + (f" of {planned:,}" if planned is not None else "")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
