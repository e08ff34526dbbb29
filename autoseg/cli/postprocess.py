"""``autoseg_postprocess``: label maps without small components and holes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import common
from autoseg.cli.folder_report import conclude

log = logging.getLogger("autoseg.postprocess")


def postprocess(
    inputs: Annotated[Path, typer.Argument(metavar="IN", help="Folder of label maps, as autoseg_predict writes them.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the processed label maps.")],
    steps: Annotated[
        Path, typer.Option("-p", "--postprocessing", help="postprocessing.json, as autoseg_find_best writes it.")
    ],
    dataset_json: Annotated[
        Path | None, typer.Option("-d", "--dataset-json", help="dataset.json (default: that in IN).")
    ] = None,
    overwrite: common.OverwriteOption = False,
    workers: common.WorkersOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Remove small components and fill holes of classes or regions, step by step as postprocessing.json says.

    Removed voxels become background or, of a region, the class of what encloses it. IN is not changed.
    """
    from autoseg.evaluation.postprocess_folder import postprocess_folder  # readers of images would slow down --help
    from autoseg.evaluation.postprocessing import load_postprocessing, step_text

    common.set_up_logging(verbose=verbose, quiet=quiet)
    postprocessing = load_postprocessing(steps)
    with common.progress("process", quiet=quiet) as report:
        result = postprocess_folder(
            inputs,
            output,
            postprocessing,
            dataset_json=dataset_json,
            overwrite=overwrite,
            workers=common.n_workers(workers),
            progress=report,
        )
    for step in postprocessing.steps:
        log.info("%s", step_text(step))
    if not postprocessing.steps:
        log.warning("%s: found no steps: label maps are copied as they are", steps)
    conclude(log, result, inputs, output, "processed", as_json=json_)


def main() -> None:
    """Entry point of the command."""
    common.run(postprocess)


if __name__ == "__main__":
    main()
