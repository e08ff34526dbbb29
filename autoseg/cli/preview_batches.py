"""``autoseg_preview_batches DATASET``: a picture of real training patches, as the network gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import common, preview

NO_AUGMENTATION = ("augmentation=none", "mirror=false")


def preview_batches(
    dataset: preview.DatasetArgument,
    *,
    configuration: preview.ConfigurationOption = None,
    fold: preview.FoldOption = "0",
    number: preview.NumberOption = 12,
    iteration: preview.IterationOption = 0,
    no_augmentation: Annotated[
        bool, typer.Option("--no-augmentation", help="Show the same patches without augmentation.")
    ] = False,
    seed: preview.SeedOption = None,
    config: common.ConfigOption = None,
    settings: preview.SettingsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="PNG file (default: ROOT/results/DATASET/preview_batches__CONFIG.png)."),
    ] = None,
    root: common.RootOption = None,
    workers: Annotated[
        int, typer.Option("-j", "--workers", min=0, help="Worker processes; the patches are the same.")
    ] = 0,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Draw training patches of DATASET, which must be preprocessed: image, labels, and labels over the image.

    These are the patches that autoseg_train with the same -c, fold, --seed, --config and --set gives to the network.
    They show whether labels lie on their structures, what is annotated, and what augmentation does. Unannotated voxels
    are hatched, voxels with several possible classes striped. --json lists everything but the voxels on stdout.
    """
    common.set_up_logging(verbose=verbose, quiet=quiet)
    chosen = (*(settings or ()), *(NO_AUGMENTATION if no_augmentation else ()))
    options = preview.PreviewOptions(
        dataset, configuration, fold, number, iteration, seed, config, chosen, output, root, json_, workers
    )
    preview.draw_preview("batches", options)


def main() -> None:
    """Entry point of the command."""
    common.run(preview_batches, lists=preview.LISTS)


if __name__ == "__main__":
    main()
