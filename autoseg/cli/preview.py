"""Options that the commands of pictures of training patches share, and the way from them to the picture."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autoseg.cli import common

if TYPE_CHECKING:
    from autoseg.sampling.patch_view import PatchView
    from autoseg.training.request import FoldRequest

log = logging.getLogger("autoseg.preview")

LISTS = {"--set": r"[A-Za-z_][\w.]*=.*"}
"""Options that take several values, for ``common.run``."""

DatasetArgument = Annotated[
    str, typer.Argument(help="Folder with a dataset.json, a name under ROOT/raw, nnU-Net's id, or a run's .toml.")
]
ConfigurationOption = Annotated[
    str | None, typer.Option("-c", help="As in plans.json: 2d, 3d_fullres ... (default: 3d_fullres, otherwise 2d).")
]
FoldOption = Annotated[str, typer.Option("--fold", help="Number of the fold, or 'all'.")]
NumberOption = Annotated[int, typer.Option("-n", "--number", min=1, help="Number of patches.")]
IterationOption = Annotated[
    int, typer.Option("--iteration", min=0, metavar="I", help="First iteration whose batch is shown.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, help="As given to autoseg_train.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE ...", help="As given to autoseg_train.")
]


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """The run whose patches are drawn, which of them, and where to."""

    dataset: str
    configuration: str | None
    fold: str
    number: int
    iteration: int
    seed: int | None
    config: Path | None
    settings: tuple[str, ...]
    output: Path | None
    root: Path | None
    json: bool
    workers: int = 0


def draw_preview(kind: Literal["batches", "augmentation"], options: PreviewOptions) -> None:
    """Draw the patches of a run to a PNG file, by default ``ROOT/results/DATASET/preview_<kind>__<configuration>.png``.

    A mistake in the data set or in the files with settings is reported before torch is imported.
    """
    common.check_picture(options.output)
    space = common.workspace(options.root)
    data = common.load_dataset(space, options.dataset)
    from autoseg.training.prepare import prepare_fold
    from autoseg.training.preview_picture import draw_augmentation, draw_patches
    from autoseg.training.run_config import RunOptions

    files = common.config_files(space, data, options.dataset, options.config)
    run = RunOptions(
        options.fold, options.configuration, seed=options.seed, settings=[*options.settings], workers=options.workers,
        device="cpu", user_file=files.user, run_file=files.run,
    )  # fmt: skip
    request = prepare_fold(space, data, run)
    name = request.configuration.name
    path = options.output or space.model(data.name, name).parent / f"preview_{kind}__{name}.png"
    draw = draw_patches if kind == "batches" else draw_augmentation
    views = draw(request, options.number, options.iteration, path)
    if options.json:
        common.print_json(_listing(request, views, path))
    log.info("written: %s", path)


def _listing(request: FoldRequest, views: list[PatchView], path: Path) -> dict[str, Any]:
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
