"""``autoseg_preview_augmentation DATASET``: a picture of augmented training patches beside their originals."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from autoseg.cli import common

log = logging.getLogger("autoseg.preview_augmentation")


def preview_augmentation(
    dataset: Annotated[
        str,
        typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, nnU-Net's id, or a run's .toml."),
    ],
    *,
    configuration: Annotated[
        str | None,
        typer.Option("-c", help="As in plans.json: 2d, 3d_fullres ... (default: 3d_fullres, otherwise 2d)."),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            "--augmentation",
            metavar="NAME",
            help="Recipe: nnunet, em, or package.module:attribute (default: that of the run).",
        ),
    ] = None,
    fold: Annotated[str, typer.Option("--fold", help="Number of the fold, or 'all'.")] = "0",
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Number of patches.")] = 8,
    iteration: Annotated[
        int, typer.Option("--iteration", min=0, metavar="I", help="First iteration whose batch is shown.")
    ] = 0,
    seed: Annotated[int | None, typer.Option(min=0, help="As given to autoseg_train.")] = None,
    config: common.ConfigOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="As given to autoseg_train.")
    ] = None,
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
    Unannotated voxels are hatched, such as those that entered from outside of the image. --json lists the patches and
    how they were moved on stdout. To see one operation alone, switch off the others, or set its probability to 1.
    """
    common.set_up_logging(verbose=verbose, quiet=quiet)
    space = common.workspace(root)
    data = common.load_dataset(space, dataset)  # a mistake is reported before torch is imported
    from autoseg.cli.preview_batches import listing
    from autoseg.training.prepare import prepare_fold
    from autoseg.training.preview_picture import draw_augmentation
    from autoseg.training.run_config import RunOptions

    chosen = [*(settings or []), *((f"augmentation={augmentation}",) if augmentation else ())]
    files = common.config_files(space, data, dataset, config)
    options = RunOptions(
        fold, configuration, seed=seed, settings=chosen, workers=0, device="cpu", user_file=files.user,
        run_file=files.run,
    )  # fmt: skip
    request = prepare_fold(space, data, options)
    path = output or space.model(data.name, request.configuration.name).parent / (
        f"preview_augmentation__{request.configuration.name}.png"
    )
    views = draw_augmentation(request, number, iteration, path)
    if json_:
        common.print_json(listing(request, views, path))
    log.info("written: %s", path)


def main() -> None:
    """Entry point of the command."""
    common.run(preview_augmentation, lists={"--set": r"[A-Za-z_][\w.]*=.*"})


if __name__ == "__main__":
    main()
