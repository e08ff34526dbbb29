"""``autoseg_preview_batches DATASET``: a picture of real training patches, as the network gets them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autoseg.cli import common

if TYPE_CHECKING:
    from autoseg.sampling.patch_view import PatchView
    from autoseg.training.request import FoldRequest

log = logging.getLogger("autoseg.preview_batches")

NO_AUGMENTATION = ("augmentation=none", "mirror=false")


def preview_batches(
    dataset: Annotated[
        str,
        typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, nnU-Net's id, or a run's .toml."),
    ],
    *,
    configuration: Annotated[
        str | None,
        typer.Option("-c", help="As in plans.json: 2d, 3d_fullres ... (default: 3d_fullres, otherwise 2d)."),
    ] = None,
    fold: Annotated[str, typer.Option("--fold", help="Number of the fold, or 'all'.")] = "0",
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="Number of patches.")] = 12,
    iteration: Annotated[
        int, typer.Option("--iteration", min=0, metavar="I", help="First iteration whose batch is shown.")
    ] = 0,
    no_augmentation: Annotated[
        bool, typer.Option("--no-augmentation", help="Show the same patches without augmentation.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="As given to autoseg_train.")] = None,
    config: common.ConfigOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="As given to autoseg_train.")
    ] = None,
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
    space = common.workspace(root)
    data = common.load_dataset(space, dataset)  # a mistake is reported before torch is imported
    from autoseg.training.prepare import prepare_fold
    from autoseg.training.preview_picture import draw_patches
    from autoseg.training.run_config import RunOptions

    chosen = [*(settings or []), *(NO_AUGMENTATION if no_augmentation else ())]
    files = common.config_files(space, data, dataset, config)
    options = RunOptions(
        fold, configuration, seed=seed, settings=chosen, workers=workers, device="cpu", user_file=files.user,
        run_file=files.run,
    )  # fmt: skip
    request = prepare_fold(space, data, options)
    path = output or space.model(data.name, request.configuration.name).parent / (
        f"preview_batches__{request.configuration.name}.png"
    )
    views = draw_patches(request, number, iteration, path)
    if json_:
        common.print_json(listing(request, views, path))
    log.info("written: %s", path)


def main() -> None:
    """Entry point of the command."""
    common.run(preview_batches, lists={"--set": r"[A-Za-z_][\w.]*=.*"})


def listing(request: FoldRequest, views: list[PatchView], path: Path) -> dict[str, Any]:
    """Return the settings and the shown patches, without voxels, as plain JSON values."""
    labels = request.dataset.labels
    return {
        "picture": str(path),
        "dataset": request.dataset.name,
        "configuration": request.configuration.name,
        "fold": request.fold,
        "seed": request.config.seed,
        "augmentation": request.config.augmentation.name,
        "spacing_mm": list(request.configuration.spacing),
        "patches": [view.as_json(labels) for view in views],
    }


if __name__ == "__main__":
    main()
