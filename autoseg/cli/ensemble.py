"""``autoseg_ensemble``: label maps of the mean of saved probabilities."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import common
from autoseg.cli.folder_report import conclude

log = logging.getLogger("autoseg.ensemble")

_NUMBER = r"[0-9.]+"


def ensemble(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders that autoseg_predict --save-probabilities wrote.")
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the label maps, <case><ending>.")],
    weights: Annotated[
        list[float] | None, typer.Option("--weights", help="Weight of each folder (default: all equal).")
    ] = None,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write <case>.npz with the mean probabilities.")
    ] = False,
    overwrite: common.OverwriteOption = False,
    workers: common.WorkersOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Combine predictions of the same images by several models: mean probabilities, and label maps of these.

    Classes or regions are matched by their names in each folder's dataset.json. File values, geometry, ending,
    dataset.json and plans.json are those of the first folder. Nothing is written if the folders differ in classes,
    cases or shapes.
    """
    from autoseg.evaluation.ensemble_folders import ensemble_folders  # readers of images would slow down --help

    common.set_up_logging(verbose=verbose, quiet=quiet)
    with common.progress("combine", quiet=quiet) as report:
        result = ensemble_folders(
            folders,
            output,
            weights=weights or None,
            save_probabilities=save_probabilities,
            overwrite=overwrite,
            workers=common.n_workers(workers),
            progress=report,
        )
    conclude(log, result, folders[0], output, "combined", as_json=json_)


def main() -> None:
    """Entry point of the command."""
    common.run(ensemble, lists={"--weights": _NUMBER})


if __name__ == "__main__":
    main()
