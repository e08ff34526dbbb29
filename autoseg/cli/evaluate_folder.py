"""``autoseg_evaluate_folder``: score predictions against dense or sparse references."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from autoseg.cli import common

if TYPE_CHECKING:
    from autoseg.evaluation import AnySummary

log = logging.getLogger("autoseg.evaluate_folder")


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(evaluate_folder)


def evaluate_folder(
    reference: Annotated[Path, typer.Argument(help="Folder of reference label maps, dense or sparse.")],
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted label maps.")],
    *,
    dataset_json: Annotated[
        Path | None,
        typer.Option("-d", "--dataset-json", help="dataset.json (default: beside the predictions or references)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Summary to write (default: PREDICTIONS/summary.json).")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Also write one row per case and class, and NAME_means.csv.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Folder of other predictions: show the paired difference to them.")
    ] = None,
    surface: Annotated[
        bool, typer.Option("--surface", help="Also HD95, ASSD and normalised surface Dice, of surfaces in mm.")
    ] = False,
    tolerance_mm: Annotated[
        float, typer.Option("--tolerance-mm", min=0, help="Distance that the surface Dice accepts, mm.")
    ] = 1.0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse missing and extra files, other shapes and other geometries.")
    ] = False,
    workers: common.WorkersOption = None,
    cluster: common.ClusterOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Score PREDICTIONS against REFERENCE: Dice, IoU, counts and volumes per class or region and case.

    Only voxels that the reference decides count. Dense and sparse references are scored separately; means have 95 %
    intervals by bootstrap over cases. Of a regression: RMSE, MAE, Pearson and R2 on known voxels. Missing and extra
    predictions are named. A case that cannot be scored does not stop the others and makes the exit code 1 (with
    --strict: 2, and nothing is written).
    """
    from autoseg.core.environment import command_line
    from autoseg.evaluation import score_folder  # readers of image formats would slow down --help
    from autoseg.evaluation.summary import means_path

    common.set_up_logging(verbose=verbose, quiet=quiet)
    folders = [reference, predictions, *([] if against is None else [against])]
    with (
        common.workers_of(workers, cluster, folders) as given,
        common.progress("evaluate", quiet=quiet) as report,
    ):
        summary = score_folder(
            reference,
            predictions,
            dataset_json,
            against=against,
            workers=common.n_workers(given),
            strict=strict,
            tolerance_mm=tolerance_mm if surface else None,
            progress=report,
        )
    summary = summary.model_copy(update={"command": command_line()})
    written = output or predictions / "summary.json"
    summary.write(written)
    paths = [written]
    if csv is not None:
        summary.to_csv(csv)
        paths += [csv, means_path(csv)]
    _show(summary, as_json=json_, quiet=quiet)
    log.info("written: %s", ", ".join(map(str, paths)))
    if summary.faults:
        named = "it is" if len(summary.faults) == 1 else "they are"
        raise common.IncompleteError(f"{len(summary.faults)} of the cases could not be scored; {named} named above.")


def _show(summary: AnySummary, *, as_json: bool, quiet: bool) -> None:
    """Log warnings and faults to stderr; print the result to stdout."""
    from autoseg.cli.evaluation_table import print_tables
    from autoseg.evaluation import NumberSummary
    from autoseg.evaluation.evaluator import unmatched_lines

    comparison = None if isinstance(summary, NumberSummary) else summary.comparison
    left_out = () if comparison is None else comparison.left_out
    compared = [f"--against: cases in one folder only are not compared: {', '.join(left_out)}."] if left_out else []
    for line in (*unmatched_lines(summary.missing, summary.extra), *summary.warnings, *compared):
        log.warning("%s", line)
    for line in summary.faults:
        log.error("%s", line)
    if as_json:
        common.print_json(summary.as_json())
    elif not quiet:
        print_tables(summary)


if __name__ == "__main__":
    main()
