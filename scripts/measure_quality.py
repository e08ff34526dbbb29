"""Measure predicted quality: against the true Dice, and as a detector of images unlike those of the training.

python scripts/measure_quality.py PREDICTIONS --references LABELS
python scripts/measure_quality.py PREDICTIONS_OF_OTHER_IMAGES ... --model MODEL_FOLDER
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import spearmanr

from autoseg.cli import common
from autoseg.core.errors import ConfigError
from autoseg.evaluation import evaluate_folder
from autoseg.evaluation.likeness import fit_likeness
from autoseg.evaluation.quality import CaseQuality, HeadQuality, read_records
from autoseg.inference.calibration import read_calibration

Row = tuple[HeadQuality, float]
"""Predicted quality of a class in a case, and its true Dice."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(measure)


def measure(
    predictions: Annotated[list[Path], typer.Argument(help="Folders of predictions with quality/.")],
    *,
    references: Annotated[Path | None, typer.Option("--references", help="Labels of the predicted cases.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Model folder: how far apart are its own cases and these?")
    ] = None,
) -> None:
    """Print one table for the predicted Dice (--references), and one for the likeness (--model)."""
    if references is None and model is None:
        raise ConfigError("arguments: found neither --references nor --model, expected one of them. Add it.")
    if references is not None:
        for folder in predictions:
            print(f"{folder}\n{dice_table(rows_of(folder, references))}")
    if model is not None:
        print(likeness_table(own_scores(model), {folder.name: scores_in(folder) for folder in predictions}))


def rows_of(predictions: Path, references: Path) -> dict[str, list[Row]]:
    """Return the name of a class -> its rows, for the cases in which it has a Dice."""
    summary = evaluate_folder(references, predictions)
    records = {record.case: record for record in read_records(predictions)}
    rows: dict[str, list[Row]] = {}
    for case in summary.metric_per_case:
        for key, scores in case.metrics.items():
            head = records[case.case].head(summary.names[key]) if case.case in records else None
            if head is not None and scores.Dice is not None:
                rows.setdefault(head.name, []).append((head, scores.Dice))
    return rows


def dice_table(rows: dict[str, list[Row]]) -> str:
    """Return a table: per class rank correlations with the true Dice, error and coverage of the prediction."""
    lines = [
        "| class | cases | Dice | predicted | error | coverage | half width | rho SDC | rho predicted | rho pairwise |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    everything = [row for own in rows.values() for row in own]
    for name, own in (*rows.items(), ("all", everything)):
        dice = [true for _, true in own]
        known = [(head, true) for head, true in own if head.predicted_dice is not None]
        errors = [abs(float(head.predicted_dice or 0) - true) for head, true in known]
        inside = [float(head.low or 0) <= true <= float(head.high or 0) for head, true in known]
        widths = [(float(head.high or 0) - float(head.low or 0)) / 2 for head, _ in known]
        cells = (np.mean(dice), _mean([head.predicted_dice for head, _ in known]), _mean(errors), _mean(inside))
        measures = ("soft_dice_confidence", "predicted_dice", "pairwise_dice")
        rho = (_rank([getattr(head, measure) for head, _ in own], dice) for measure in measures)
        numbers = " | ".join("-" if value is None else f"{value:.3f}" for value in (*cells, _mean(widths), *rho))
        lines.append(f"| {name} | {len(own)} | {numbers} |")
    return "\n".join(lines)


def own_scores(model: Path) -> list[float]:
    """Return the score of each training case of a model, by the likeness to the others."""
    quality = read_calibration(model).quality
    if quality is None:
        raise ConfigError(f"{model}: found no quality in calibration.json, expected one. Train its folds again.")
    records = [record for fold in sorted(model.glob("fold_*/validation")) for record in read_records(fold)]
    features = {record.case: record.features for record in records}
    scores = []
    for case, own in features.items():
        others = {name: item for name, item in features.items() if name != case}
        verdict = fit_likeness(others, quality.likeness.channels).judge(own)
        if verdict is not None:
            scores.append(verdict.score)
    return scores


def scores_in(folder: Path) -> list[float]:
    """Return the scores of predicted cases."""
    records: Sequence[CaseQuality] = read_records(folder)
    return [record.verdict.score for record in records if record.verdict is not None]


def likeness_table(own: Sequence[float], others: dict[str, list[float]]) -> str:
    """Return a table: for each folder the share of flagged cases, and how well scores tell it from the own cases."""
    lines = ["| images | cases | median score | flagged | AUROC |", "|---|---|---|---|---|"]
    lines.append(f"| own, each against the others | {len(own)} | {np.median(own):.2f} | {_share(own)} | - |")
    together = [score for scores in others.values() for score in scores]
    for name, scores in (*others.items(), ("all others", together)):
        area = np.mean([(score > mine) + 0.5 * (score == mine) for score, mine in product(scores, own)])
        lines.append(f"| {name} | {len(scores)} | {np.median(scores):.2f} | {_share(scores)} | {area:.3f} |")
    return "\n".join(lines)


def _share(scores: Sequence[float]) -> str:
    return f"{sum(score > 1 for score in scores)} of {len(scores)}"


def _mean(values: Sequence[float | None]) -> float | None:
    return float(np.mean([value for value in values if value is not None])) if values else None


def _rank(values: Sequence[float | None], dice: Sequence[float]) -> float | None:
    """Return the rank correlation; None if a value is unknown or all are the same."""
    if any(value is None for value in values) or len(set(values)) < 2:
        return None
    return float(spearmanr(values, dice).statistic)


if __name__ == "__main__":
    main()
