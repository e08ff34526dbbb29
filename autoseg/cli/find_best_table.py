"""Tables of the comparison of models and of post-processing steps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.evaluation.postprocessing import step_text

if TYPE_CHECKING:
    from autoseg.assist.find_best import FindBest
    from autoseg.evaluation.comparison import Difference
    from autoseg.evaluation.model_choice import RankedModel


def print_tables(result: FindBest) -> None:
    """Print the ranking, the steps that were tried, and the models that were left out."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(_ranking(result))
    if result.decisions:
        console.print(_decisions(result))
    for name, reason in result.left_out.items():
        console.print(escape(f"left out: {name}: {reason}"), soft_wrap=True)


def _ranking(result: FindBest) -> Table:
    choice = result.choice
    sparse = "" if choice.scored_on == "dense" else " (annotated voxels)"
    measure = f"{choice.measure}{sparse}"
    table = Table(
        title=f"{result.dataset}: {measure} of {choice.n_cases} cases, each by the fold that left it out",
        title_justify="left",
        caption="intervals: 95 %, bootstrap over cases; * chosen",
    )
    for column in ("", "model"):
        table.add_column(column)
    heads = list(choice.ranking[0].heads)
    for column in ("foreground", "interval", *map(escape, heads), "against the best single model"):
        table.add_column(column, justify="right")
    for model in choice.ranking:
        table.add_row(
            "*" if model.members == choice.chosen else "", escape(" + ".join(model.members)),
            _number(model.foreground), _interval(model), *(_number(model.heads[head]) for head in heads),
            _difference(model.against_best_single),
        )  # fmt: skip
    return table


def _decisions(result: FindBest) -> Table:
    table = Table(
        title="post-processing that was tried on the chosen model", title_justify="left",
        caption="Dice: mean over the cases whose references decide every voxel, and over classes or regions; * chosen",
    )  # fmt: skip
    for column in ("", "step", "cases", "Dice before", "after", "reason"):
        table.add_column(column, justify="right" if column in ("cases", "Dice before", "after") else "left")
    for decision in result.decisions:
        table.add_row(
            "*" if decision.accepted else "", escape(step_text(decision.step)), str(decision.n_cases),
            _number(decision.dice_before), _number(decision.dice_after), escape(decision.reason),
        )  # fmt: skip
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(model: RankedModel) -> str:
    return "-" if model.interval is None else "{:.4f} to {:.4f}".format(*model.interval)


def _difference(difference: Difference | None) -> str:
    if difference is None or difference.mean is None:
        return "-"
    interval = "" if difference.interval is None else " ({:+.4f} to {:+.4f})".format(*difference.interval)
    return f"{difference.mean:+.4f}{interval}"
