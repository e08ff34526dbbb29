"""``autoseg_import_images IMAGES MASKS -o DATASET``: a data set from two folders, paired by name."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NoReturn

import typer

from autoseg.cli import common
from autoseg.cli.mask_options import LISTS, ChannelNamesOption, MaskSuffixOption, NamesOption
from autoseg.core.findings import counted

log = logging.getLogger("autoseg.import_images")


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(import_images, lists=LISTS)


def import_images(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of images.")],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="Folder of masks, named after the images.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    names: NamesOption = None,
    channel_names: ChannelNamesOption = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Values above 0 are numbers of objects: make a data set of instances.")
    ] = False,
    unlabelled: Annotated[
        int | None, typer.Option("--unlabelled", metavar="VALUE", help="Value of masks where nothing is labelled.")
    ] = None,
    mask_suffix: MaskSuffixOption = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy files instead of linking to them.")] = False,
    workers: common.WorkersOption = None,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Make a data set of images and masks whose names hold the same ID: 0001.tif with 0001_mask.png.

    Images may have any number of channels and any size. Masks are binary (0 and one other value, such as 255), hold a
    value for each class, or numbers of objects. Files are linked, not copied, where their content need not change.
    """
    from autoseg.interop.image_folder import check_new
    from autoseg.interop.import_images import prepare_import, write_import

    common.set_up_logging(verbose=verbose, quiet=quiet)
    check_new(output)
    n_workers = common.n_workers(workers)
    with TemporaryDirectory(prefix="autoseg_") as scratch:
        with common.progress("read", quiet=quiet) as progress:
            prepared = prepare_import(
                images, masks, Path(scratch), names=tuple(names) if names else None, unlabelled=unlabelled,
                are_instances=instances, mask_suffix=mask_suffix, workers=n_workers, progress=progress,
            )  # fmt: skip
        for line in prepared.remarks:
            log.warning("%s", line)
        with common.progress("write", quiet=quiet) as progress:
            dataset = write_import(
                prepared, output, channel_names=tuple(channel_names) if channel_names else None, copy=copy,
                workers=n_workers, progress=progress,
            )  # fmt: skip
    log.info(
        "%s: %s, masks named %s, classes %s", output, counted(len(dataset.cases), "image"),
        prepared.mask_names.around("<image>"), ", ".join(dataset.labels.class_names),
    )  # fmt: skip
    log.info("next: autoseg_plan_and_preprocess %s", output)


if __name__ == "__main__":
    main()
