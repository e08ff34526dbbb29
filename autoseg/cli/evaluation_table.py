"""Tables of an evaluation for a terminal: means per class, reasons for missing scores, cases with the lowest Dice."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.cli.number_table import number_table
from autoseg.core.boxes import box_of
from autoseg.evaluation import AnySummary, NumberSummary
from autoseg.evaluation.bootstrap import Interval
from autoseg.evaluation.cases import CaseMetrics, ScoredOn
from autoseg.evaluation.comparison import CASES_FOR_A_VERDICT, Comparison, Difference
from autoseg.evaluation.instance_scores import MATCH_SCORES, PARTITION_SCORES
from autoseg.evaluation.scores import Scores
from autoseg.evaluation.summary import FOREGROUND, Summary, score_name

WORST = 5
"""Number of cases in the table of the lowest Dice."""
VOLUMES: dict[ScoredOn, tuple[str, str]] = {
    "dense": ("mean reference volume", "mean predicted volume"),
    "annotated voxels": ("mean annotated volume", "mean volume predicted there"),
}
"""Titles of the columns with reference and predicted volume."""


def print_tables(summary: AnySummary, console: Console | None = None) -> None:
    """Print the tables of an evaluation."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 150) if console is None else console
    if not isinstance(summary, NumberSummary):
        _print_classes(summary, out)
        return
    out.print(number_table(summary))
    _print_remarks(summary, out)


def _print_classes(summary: Summary, out: Console) -> None:
    """Print means per class or region, separately for dense references and annotated voxels, and further tables.

    These are: the reasons for classes without a score, false positives of absent classes, the difference to other
    predictions if there is a comparison and, for more than one case, the cases with the lowest Dice.
    """
    for kind, scores in summary.groups.items():
        out.print(mean_table(summary, kind, scores))
        if kind in summary.surface:
            out.print(surface_table(summary, kind))
    for kind in summary.instances:
        out.print(instance_table(summary, kind))
        out.print(partition_table(summary, kind))
    _print_remarks(summary, out)
    if summary.absent:
        out.print(absent_table(summary))
    if summary.comparison is not None:
        out.print(f"compared with {escape(summary.comparison.against)}:", soft_wrap=True)
        for kind in summary.comparison.groups:
            out.print(comparison_table(summary, summary.comparison, kind))
    if summary.n_cases > 1:
        out.print(worst_table(summary))


def _print_remarks(summary: AnySummary, out: Console) -> None:
    """Print what the scores are not of: new cases, whole volumes; and the reasons for missing scores."""
    if summary.seen_in_training:
        cases = escape(", ".join(summary.seen_in_training))
        out.print(f"the model was trained on these cases, so their scores are too high: {cases}", soft_wrap=True)
    for remark in () if isinstance(summary, NumberSummary) else summary.box_remarks():
        out.print(escape(remark), soft_wrap=True)
    for reason in summary.not_scored.values():
        out.print(f"not scored: {escape(reason)}", soft_wrap=True)


def surface_table(summary: Summary, kind: ScoredOn) -> Table:
    """Return one row per class or region: means of its surface scores on ``kind`` of reference."""
    title = f"surfaces, scored on {_scored_on(summary, kind)}"
    caption = "one-sided: only reference or only prediction has a surface; no distance, surface Dice 0"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("class")
    shown = ("HD95, mm", "ASSD, mm", f"surface Dice at {summary.tolerance_mm:g} mm", "cases", "one-sided")
    for column in shown:
        table.add_column(column, justify="right")
    for key, means in summary.surface[kind].items():
        numbers = (means.HD95, means.ASSD, means.NSD)
        texts = ["-" if number is None else f"{number:.4g}" for number in numbers]
        table.add_row(escape(summary.names[key]), *texts, str(means.n_cases), str(means.n_one_sided))
    return table


def instance_table(summary: Summary, kind: ScoredOn) -> Table:
    """Return one row per class: scores on ``kind`` of reference of the objects of all cases together, and per case."""
    caption = "AP50: TP / (TP + FP + FN) at an overlap (IoU) of 0.5; AP: mean of 0.5 to 0.95; PQ: panoptic quality"
    shown = ["AP50", "AP", "PQ", "predicted", "reference", "cases", "AP50 per case", "AP per case", "PQ per case"]
    title = f"objects of all cases together, and means over cases, scored on {_scored_on(summary, kind)}"
    table = _table(title, ["class"], shown, caption)
    for key, scores in summary.instances[kind].items():
        pooled, mean = scores.pooled, scores.mean
        counts = (_number(pooled.n_pred), _number(pooled.n_ref), str(scores.n_cases))
        pooled_scores = (_score(pooled.AP50), _score(pooled.AP), _score(pooled.PQ))
        table.add_row(_class(summary, key), *pooled_scores, *counts, *(_score(mean[name]) for name in MATCH_SCORES))
    return table


def partition_table(summary: Summary, kind: ScoredOn) -> Table:
    """Return two rows per class: scores of the division of voxels, over all cases together, and means over cases."""
    caption = "VI: variation of information, bits; Rand error: 1 - F of pairs of voxels; both 0 at best"
    shown = ["VI split", "VI merge", "Rand error", "Rand precision", "Rand recall"]
    title = f"division of voxels into objects, scored on {_scored_on(summary, kind)}"
    table = _table(title, ["class", "over"], shown, caption)
    for key, scores in summary.instances[kind].items():
        pooled = [_score(getattr(scores.pooled, name)) for name in PARTITION_SCORES]
        table.add_row(_class(summary, key), "all voxels", *pooled)
        table.add_row("", "cases", *(_score(scores.mean[name]) for name in PARTITION_SCORES))
    return table


def mean_table(summary: Summary, kind: ScoredOn, scores: Scores) -> Table:
    """Return one row per class or region scored on ``kind``, and the foreground mean."""
    title = f"{_cases(scores.n_cases)}, scored on {_scored_on(summary, kind)}"
    if summary.seen_in_training:
        title += f"; the weights were trained on {len(summary.seen_in_training)} of {summary.n_cases}"
    few = f" (too narrow: fewer than {CASES_FOR_A_VERDICT} cases)" if scores.n_cases < CASES_FOR_A_VERDICT else ""
    caption = f"95 %: bootstrap over cases{few}; volumes in mm³, areas of 2-D images in mm²"
    dice, iou = score_name("Dice", kind), score_name("IoU", kind)
    numbers = ("95 %", iou, "cases", "voxels decided", *VOLUMES[kind])
    table = _table(title, ["class"], [dice, *numbers], caption)
    for key, mean in scores.mean.items():
        table.add_row(
            _class(summary, key),
            _score(mean["Dice"]),
            _interval(scores.mean_interval[key]["Dice"]),
            _score(mean["IoU"]),
            str(scores.n_cases_per_head[key]),
            _number(scores.n_decided_per_head[key]),
            _volume(mean["ref_volume_mm3"]),
            _volume(mean["pred_volume_mm3"]),
        )
    table.add_section()
    foreground, interval = scores.foreground_mean, scores.foreground_mean_interval["Dice"]
    table.add_row(FOREGROUND, _score(foreground["Dice"]), _interval(interval), _score(foreground["IoU"]))
    return table


def absent_table(summary: Summary) -> Table:
    """Return the false positives of classes in the cases that do not have them."""
    numbers = ["cases without it", "with false positives", "mean voxels", "mean volume mm³", "ml"]
    table = _table("false positives of classes that dataset.json declares absent", ["class"], numbers)
    for key, scores in summary.absent.items():
        volume = scores.mean_volume_mm3
        counts = (str(scores.n_cases), str(scores.n_cases_with_false_positives))
        table.add_row(
            _class(summary, key), *counts, _number(scores.mean_voxels), _volume(volume), f"{volume / 1000:.3g}"
        )
    return table


def comparison_table(summary: Summary, comparison: Comparison, kind: ScoredOn) -> Table:
    """Return the differences to other predictions, class by class."""
    group = comparison.groups[kind]
    title = f"difference, the same {_cases(group.foreground_mean.n_cases)}"
    caption = f"paired bootstrap; a verdict needs {CASES_FOR_A_VERDICT} cases and an interval without 0"
    numbers = [f"difference of {score_name('Dice', kind)}", "95 %", "cases", "verdict"]
    table = _table(title, ["class"], numbers, caption)
    for key, difference in group.mean.items():
        table.add_row(_class(summary, key), *_difference(difference))
    table.add_section()
    table.add_row(FOREGROUND, *_difference(group.foreground_mean))
    return table


def worst_table(summary: Summary) -> Table:
    """Return the cases with the lowest mean Dice, lowest first; cases without Dice are left out."""
    rows = {kind: _ranked(summary, kind) for kind in summary.groups}
    table = _table("lowest Dice", ["case", "scored on"], ["mean Dice", "lowest class", "its Dice"])
    seen = set(summary.seen_in_training)
    for kind, ranked in rows.items():
        for dice, case in ranked[:WORST]:
            lowest, key = min((value, key) for value, key in _dices(case, kind))
            name = case.case + (f" {box_of(summary.boxes[case.case])}" if case.case in summary.boxes else "")
            name = escape(name) + (" (trained on)" if case.case in seen else "")
            table.add_row(name, kind, _score(dice), _class(summary, key), _score(lowest))
    return table


def _ranked(summary: Summary, kind: ScoredOn) -> list[tuple[float, CaseMetrics]]:
    ranked: list[tuple[float, CaseMetrics]] = []
    for case in summary.metric_per_case:
        scores = [dice for dice, _ in _dices(case, kind)]
        if scores:
            ranked.append((sum(scores) / len(scores), case))
    return sorted(ranked, key=lambda pair: pair[0])


def _dices(case: CaseMetrics, kind: ScoredOn) -> Iterator[tuple[float, str]]:
    for key, metrics in case.metrics.items():
        if metrics.Dice is not None and case.scored_on[key] == kind:
            yield metrics.Dice, key


def _table(title: str, texts: list[str], numbers: list[str], caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", caption=caption)
    for column in texts:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _scored_on(summary: Summary, kind: ScoredOn) -> str:
    if kind == "annotated voxels":
        whole = "" if summary.scored_on == "mixed" else f" ({summary.decided_fraction:.1%} of all)"
        return f"annotated voxels only{whole}"
    partly = any(kind in case.scored_on.values() and case.decided_fraction < 1 for case in summary.metric_per_case)
    return "dense references" + (" of the completely annotated classes" if partly else "")


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


def _class(summary: Summary, key: str) -> str:
    return escape(f"{summary.names[key]} {key}")


def _difference(difference: Difference) -> tuple[str, ...]:
    mean = "-" if difference.mean is None else f"{difference.mean:+.4f}"
    interval = "-" if difference.interval is None else "{:+.4f} to {:+.4f}".format(*difference.interval)
    verdict = ("better" if (difference.mean or 0) > 0 else "worse") if difference.is_clear else "not clear"
    return mean, interval, str(difference.n_cases), "-" if difference.mean is None else verdict


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(interval: Interval | None) -> str:
    return "-" if interval is None else "{:.4f} to {:.4f}".format(*interval)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _volume(value: float | None) -> str:
    """Return a volume in mm³ (area in mm²), with three digits below 100: in microscopy it is far below 1."""
    return f"{value:.3g}" if value is not None and 0 < value < 100 else _number(value)
