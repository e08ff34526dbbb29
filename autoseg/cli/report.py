"""``autoseg_report RUN_OR_PREDICTIONS``: one HTML page: curves, scores, cases in pictures, commands and versions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from autoseg.cli import common

log = logging.getLogger("autoseg.report")


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(report)


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_PREDICTIONS",
            help="Folder of a fold or a model, of predictions, or the output of autoseg_fuse_experts.",
        ),
    ],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="HTML file to write (default: report.html in the folder).")
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", help="Scores of predictions (default: summary.json in the folder).")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("-i", "--images", help="Folder of the images (default: where they were read).")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option("-r", "--references", help="Folder of the references (default: where they were scored)."),
    ] = None,
    dataset_json: Annotated[
        Path | None,
        typer.Option("-d", "--dataset-json", help="dataset.json (default: beside predictions or references)."),
    ] = None,
    cases: Annotated[
        int, typer.Option("-n", "--cases", help="Worst, median and best cases in pictures, of each so many.")
    ] = 3,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Write one HTML page that opens in any browser, from a file and without a network.

    Of a run: learning curves, scores of the validation, settings. Of predictions: scores if they were evaluated
    (autoseg_evaluate_folder), predicted quality and uncertainty if they were saved. Of fused masks: the agreement of
    the experts. Always: tables that sort and filter, worst, median and best cases in pictures, commands and versions.
    """
    from autoseg.report.prediction_files import Places
    from autoseg.report.write_report import write_report

    common.set_up_logging(verbose=verbose, quiet=quiet)
    places = Places(images, references, dataset_json)
    made = write_report(folder, output, summary=summary, places=places, n_each=cases)
    for line in made.remarks:
        log.warning("%s", line)
    if json_:
        common.print_json({"path": str(made.path), "kind": made.kind, "remarks": made.remarks})
    elif not quiet:
        print(made.path)


if __name__ == "__main__":
    main()
