"""``autoseg_fuse_experts IN -o OUT``: one label map for each image from the masks of several experts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autoseg.cli import common
from autoseg.cli.mask_options import LISTS, ChannelNamesOption, InstancesOption, MaskSuffixOption, NamesOption
from autoseg.core.findings import counted, listed

if TYPE_CHECKING:
    from autoseg.interop.expert_tables import Agreement

log = logging.getLogger("autoseg.fuse_experts")


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(fuse_experts, lists=LISTS)


def fuse_experts(
    masks: Annotated[Path, typer.Argument(metavar="IN", help="Folder that holds a folder of masks for each expert.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="New folder for the results.", file_okay=False)],
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Folder of the images: the result is a data set, ready for training."),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="staple, majority, or sets: a voxel may be any class that an expert named.")
    ] = "staple",
    undecided: Annotated[
        str,
        typer.Option("--undecided", metavar="ignore|CLASS", help="Of voxels without a single best class."),
    ] = "ignore",
    soft: Annotated[
        bool, typer.Option("--soft", help="A voxel counts in training as much as its class is probable.")
    ] = False,
    instances: InstancesOption = False,
    unlabelled: Annotated[
        int | None, typer.Option("--unlabelled", metavar="VALUE", help="Value where an expert labelled nothing.")
    ] = None,
    names: NamesOption = None,
    channel_names: ChannelNamesOption = None,
    mask_suffix: MaskSuffixOption = None,
    copy: common.CopyOption = False,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="A picture for each image.")] = True,
    workers: common.WorkersOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Fuse the masks of several experts, and report how well they agree.

    Masks of one image have the same name in the folders of all experts who made one; experts may lack some. Masks are
    binary (0 and one other value), or hold a value for each class. The result: fused label maps, a picture of each,
    experts.csv (Dice, estimated sensitivity and specificity per image and expert), experts_mean.csv, agreement.csv
    (experts with each other), and all tables as experts.json; with --images a whole data set with its dataset.json.
    """
    from autoseg.core.environment import Environment, command_line
    from autoseg.interop.expert_tables import report, write_tables
    from autoseg.interop.fused_dataset import FusionRequest, prepare, write

    common.set_up_logging(verbose=verbose, quiet=quiet)
    request = FusionRequest(
        masks, output, images, method, undecided, soft, instances, unlabelled, tuple(names) if names else None,
        tuple(channel_names) if channel_names else None, mask_suffix, copy, pictures, common.n_workers(workers),
    )  # fmt: skip
    with TemporaryDirectory(prefix="autoseg_") as scratch:
        with common.progress("read", quiet=quiet) as progress:
            prepared = prepare(request, Path(scratch), progress)
        for line in prepared.remarks:
            log.warning("%s", line)
        with common.progress("fuse", quiet=quiet) as progress:
            written = write(request, prepared, progress)
    agreements, classes = written.agreements, prepared.settings.names
    settings: dict[str, Any] = {
        "masks": str(masks), "method": method, "undecided": undecided, "soft": soft, "values": written.values,
        "command": command_line(), "versions": Environment.of("").versions,
    }  # fmt: skip
    write_tables(output, agreements, classes, settings)
    unsettled = [item.name for item in agreements if not item.is_settled]
    if unsettled:
        log.warning("%s: STAPLE ended before its estimate had settled. Look at these images", listed(unsettled))
    if json_:
        common.print_json(report(agreements, classes, settings))
    elif not quiet:
        _print_table(agreements, classes)
    log.info("%s: %s fused", output, counted(len(agreements), "image"))
    if images is not None:
        log.info("next: autoseg_plan_and_preprocess %s", output)


def _print_table(agreements: Sequence[Agreement], classes: Sequence[str]) -> None:
    """Print one row for each expert: number of images, Dice with the fused labels, Dice with the others."""
    from rich.console import Console
    from rich.table import Table

    from autoseg.interop.expert_tables import agreement_matrix, mean_rows

    experts, matrix = agreement_matrix(agreements)
    table = Table(title="experts, means over their images", title_justify="left")
    table.add_column("expert")
    for column in ("images", "Dice with fused", "Dice with others", "sensitivity", "specificity"):
        table.add_column(column, justify="right")
    for row, name in zip(mean_rows(agreements, classes), experts, strict=True):
        index = experts.index(name)
        others = [value for other, value in enumerate(matrix[index]) if other != index and value == value]
        table.add_row(
            name, str(row["images"]), _shown(row["mean_dice"]), _shown(sum(others) / len(others)) if others else "-",
            *(_shown(_foreground(row, score, classes)) for score in ("sensitivity", "specificity")),
        )  # fmt: skip
    Console(highlight=False).print(table)


def _foreground(row: dict[str, Any], score: str, classes: Sequence[str]) -> float:
    """Return the mean of a score over the foreground classes."""
    values: list[float] = [row[f"{score}_{name}"] for name in classes[1:]]
    return sum(values) / len(values)


def _shown(value: float) -> str:
    return f"{value:.3f}" if value == value else "-"


if __name__ == "__main__":
    main()
