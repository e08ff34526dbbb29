"""``autoseg_preview_augmentation DATASET``: a picture of augmented training patches beside their originals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import common, preview


def preview_augmentation(
    dataset: preview.DatasetArgument,
    *,
    configuration: preview.ConfigurationOption = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            "--augmentation",
            metavar="NAME",
            help="Recipe: nnunet, em, or package.module:attribute (default: that of the run).",
        ),
    ] = None,
    fold: preview.FoldOption = "0",
    number: preview.NumberOption = 8,
    iteration: preview.IterationOption = 0,
    seed: preview.SeedOption = None,
    config: common.ConfigOption = None,
    settings: preview.SettingsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="PNG file (default: ROOT/results/DATASET/preview_augmentation__CONFIG.png)."
        ),
    ] = None,
    root: common.RootOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Draw training patches of DATASET, which must be preprocessed, before and after augmentation, with labels.

    Each patch is that which autoseg_train with the same --seed, --config and --set gives to the network; beside it
    lies what is around the same point without augmentation. Of 3-D patches there is also a cut across the sections.
    Unannotated voxels are hatched, such as those that entered from outside of the image (these are background if every
    voxel of the data set is annotated). --json lists the patches and how they were moved on stdout.
    To see one operation alone, switch off the others, or set its probability to 1.
    """
    common.set_up_logging(verbose=verbose, quiet=quiet)
    chosen = (*(settings or ()), *((f"augmentation={augmentation}",) if augmentation else ()))
    options = preview.PreviewOptions(
        dataset, configuration, fold, number, iteration, seed, config, chosen, output, root, json_
    )
    preview.draw_preview("augmentation", options)


def main() -> None:
    """Entry point of the command."""
    common.run(preview_augmentation, lists=preview.LISTS)


if __name__ == "__main__":
    main()
