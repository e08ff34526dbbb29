"""``autoseg_complete``: dense label maps of the training cases themselves, and a review of their annotation."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autoseg.assist.trained_model import trained_model
from autoseg.cli import common
from autoseg.core.findings import listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autoseg.assist.complete import CompletionReport
    from autoseg.evaluation.disagreement import Disagreement

log = logging.getLogger("autoseg.complete")

ROWS_SHOWN = 20


def complete(
    dataset: common.DatasetArgument,
    *,
    configuration: common.ModelConfigurationOption = None,
    name: common.NameOption = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the new data set (default: ROOT/raw/completed_*).")
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="Also list where the model disagrees with the annotation.")
    ] = False,
    seen: Annotated[
        bool, typer.Option("--seen", help="If no fold left a case out, take a model that was trained on it.")
    ] = False,
    tta: common.MirrorOption = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Complete again the cases that are complete.")] = False,
    device: common.DeviceOption = "auto",
    workers: common.WorkersOption = None,
    root: common.RootOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Write a new data set with the images of DATASET and dense labels: annotation stays, the rest is predicted.

    Each case is predicted by a fold that did not train on it, nor started from weights that did. Voxels with several
    possible classes (coarse labels, classes absent from a case) get the most probable of these. Every fold must be
    trained. An interrupted run continues where it stopped. A case that cannot be completed is named at the end, and the
    exit code is 1. With --seen, the output names the cases that the model was trained on.

    With --review, review.csv, review.png and a table list the annotated places where the model predicts another class,
    likely faults of the annotation first. Their annotation is kept; review/ holds the prediction without regard to
    annotation.
    """
    common.set_up_logging(verbose=verbose, quiet=quiet)
    space = common.workspace(root)
    source = common.load_dataset(space, dataset)
    target = space.raw(f"completed_{source.name}") if output is None else output
    model_folder = trained_model(space, source, configuration, name)  # a mistake is reported before torch is imported
    from autoseg.assist.complete import CompletionOptions
    from autoseg.assist.complete_run import complete_cases

    options = CompletionOptions(device, tta, review, overwrite, workers=common.n_workers(workers))
    stages = common.stages(quiet=quiet)
    result = complete_cases(space, source, target, model_folder, options, allow_seen=seen, stages=stages)
    _conclude(result, target, as_json=json_, quiet=quiet)


def main() -> None:
    """Entry point of the command."""
    common.run(complete)


def _conclude(result: CompletionReport, output: Path, *, as_json: bool, quiet: bool) -> None:
    """Report the result; raise ``IncompleteError`` if a case could not be completed."""
    from autoseg.assist.complete_run import REVIEW_TABLE

    groups = result.disagreements
    if as_json:
        rows = None if groups is None else [group.model_dump() for group in groups]
        common.print_json(
            {
                "output": str(output),
                "done": result.done,
                "kept": result.kept,
                "failed": dict(result.failed),
                "folds": dict(result.folds),
                "seen": result.seen_cases,
                "disagreements": rows,
            }
        )
    elif groups is not None and not quiet:
        _print_table(groups)
    kept = f", {len(result.kept)} were complete already (--overwrite completes them again)" if result.kept else ""
    log.info("%s: %d cases completed%s", output, len(result.done), kept)
    if result.seen_cases:
        log.warning(
            "%d cases were predicted by a model that was trained on them: %s",
            len(result.seen_cases),
            listed(result.seen_cases),
        )
    if groups is not None:
        log.info("%s: %d places where the model disagrees", output / REVIEW_TABLE, len(groups))
    if result.failed:
        lines = "\n  ".join(f"{name}: {reason}" for name, reason in result.failed.items())
        raise common.IncompleteError(f"{len(result.failed)} cases could not be completed or reviewed:\n  {lines}")


def _print_table(groups: Sequence[Disagreement]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"where the model disagrees with the annotation: {min(len(groups), ROWS_SHOWN)} of {len(groups)} places",
        title_justify="left",
        caption=(
            "probability: of the predicted class, mean over the place; predicted Dice: of the model's classes in this "
            "case; likely faults of the annotation first; voxels are counted from 0"
        ),
    )
    for column in ("case", "voxel (z, y, x)", "annotated", "predicted"):
        table.add_column(column)
    for column in ("mean probability", "predicted Dice", "voxels"):
        table.add_column(column, justify="right")
    for group in groups[:ROWS_SHOWN]:
        seen = " (trained on)" if group.seen_in_training else ""
        table.add_row(
            escape(group.case) + seen, f"{group.z}, {group.y}, {group.x}", escape(group.drawn),
            escape(group.predicted), f"{group.mean_probability:.3f}",
            "" if group.predicted_dice is None else f"{group.predicted_dice:.2f}", str(group.n_voxels),
        )  # fmt: skip
    Console(highlight=False, width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    main()
