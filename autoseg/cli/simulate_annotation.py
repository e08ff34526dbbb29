"""``autoseg_simulate_annotation DATASET -o NEW``: a sparse copy of a densely labelled data set."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from autoseg.cli import common
from autoseg.core.findings import listed

if TYPE_CHECKING:
    from autoseg.simulation.styles import Style
    from autoseg.simulation.write import Simulation

log = logging.getLogger("autoseg.simulate_annotation")

PICTURES = "pictures"


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(simulate_annotation)


def simulate_annotation(
    dataset: common.DatasetArgument,
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    scribbles: Annotated[
        bool, typer.Option("--scribbles", help="Per slice and class a curve inside and one along the border.")
    ] = False,
    slices: Annotated[
        float | None, typer.Option(metavar="FRACTION", help="Whole slices, evenly spread; scribbled with --scribbles.")
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="First slice, as a share of their distance (default: random in each case)."),
    ] = None,
    patches: Annotated[int, typer.Option(metavar="N", help="Boxes per case, half of them around foreground.")] = 0,
    points: Annotated[
        int, typer.Option(metavar="N", help="Voxels per case, balanced over the classes (at least as many).")
    ] = 0,
    drop_classes: Annotated[
        int, typer.Option("--drop-classes", metavar="N", help="Number of classes that are not annotated in each case.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same copy.")] = 0,
    thickness: Annotated[int, typer.Option(help="Thickness of scribbles in pixels.")] = 3,
    patch_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="Z Y X", help="Size of boxes in voxels (default: a quarter of each edge)."),
    ] = None,
    axis: Annotated[
        int | None, typer.Option(help="Axis of the slices, 0 1 2 for z y x (default: the one whose spacing differs).")
    ] = None,
    copy: common.CopyOption = False,
    pictures: Annotated[int, typer.Option(min=0, metavar="N", help="Cases to draw into NEW/pictures.")] = 3,
    root: common.RootOption = None,
    workers: common.WorkersOption = None,
    json_: common.JsonOption = False,
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Copy the dense DATASET with only a part of it annotated, as people with little time would do.

    Several kinds of annotation can be combined. Unannotated voxels get the ignore label. Repeat an interrupted run with
    the same command; dataset.json is written last.
    """
    from autoseg.preprocessing.volume_size import refuse_large
    from autoseg.simulation.styles import Style
    from autoseg.simulation.write import annotation_report, check_output, finish, plan_simulation, write_cases

    common.set_up_logging(verbose=verbose, quiet=quiet)
    style = Style(
        scribbles=scribbles, slices=slices, start=start, patches=patches, points=points,
        thickness=thickness, patch_size=patch_size, axis=axis,
    )  # fmt: skip
    check_output(output)
    source = common.load_dataset(common.workspace(root), dataset)
    for case in source.cases:
        refuse_large(case)
    processes = common.n_workers(workers)
    with common.progress("check", quiet=quiet) as report:
        simulation = plan_simulation(
            source, style, n_dropped=drop_classes, seed=seed, workers=processes, progress=report
        )
    with common.progress("labels", quiet=quiet) as report:
        shares = write_cases(simulation, output, copy=copy, workers=processes, progress=report)
    draw_pictures(simulation, output, pictures)
    result = annotation_report(simulation, shares)
    finish(simulation, output, result)
    if json_:
        common.print_json(result)
    elif not quiet:
        print_shares(result)
    say_what_is_not_annotated(result, style, source.labels.n_classes)
    log.info("written: %s", output)


def say_what_is_not_annotated(report: dict[str, Any], style: Style, n_classes: int) -> None:
    """Warn about classes that occur in cases but were not annotated there."""
    without: dict[str, list[str]] = report["without_annotation"]
    for name, cases in without.items():
        log.warning("class %r occurs without any annotation in %d cases: %s", name, len(cases), listed(cases))
    if without and 0 < style.points < n_classes:
        log.warning(
            "--points %d: there are %d classes; with %d points each class gets one in every case that has it",
            style.points,
            n_classes,
            n_classes,
        )


def draw_pictures(simulation: Simulation, output: Path, n: int) -> None:
    """Write pictures of ``n`` cases, evenly spread over the data set: simulated annotation beside dense labels."""
    import numpy as np

    from autoseg.core.geometry import slice_axis
    from autoseg.dataset.dataset import Dataset
    from autoseg.io.images import read_image, read_labels, written_ending
    from autoseg.io.png import write_png
    from autoseg.report.overlay import Layer, draw_overlay
    from autoseg.simulation.styles import even_slices

    source = simulation.source
    labels = Dataset.from_json(simulation.content, name=output.name, folder=output).labels
    n_cases = len(source.cases)
    for index in even_slices(n_cases, min(1.0, n / n_cases)) if n else ():
        case = source.cases[index]
        image, geometry = read_image(case.images)
        shape, fixed = image.shape[1:], simulation.style.axis
        axis = slice_axis(shape, geometry.spacing) if fixed is None else fixed
        files = (case.label or Path(), output / "labelsTr" / f"{case.name}{written_ending(source.file_ending)}")
        dense, sparse = (np.moveaxis(read_labels(path)[0], axis, 0) for path in files)
        z, y, x = (geometry.spacing[other] for other in (axis, *(other for other in range(3) if other != axis)))
        layers = [Layer("dense labels", dense), Layer("simulated", sparse)]
        picture = draw_overlay(np.moveaxis(image, 1 + axis, 1), layers, labels, (z, y, x), title=case.name)
        write_png(output / PICTURES / f"{case.name}.png", picture)


def print_shares(report: dict[str, Any]) -> None:
    """Print the annotated share of each class as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"annotated voxels, {len(report['cases'])} cases", title_justify="left")
    table.add_column("class")
    rows = {**report["classes"], "all": report["all"]}
    is_narrowed = any(row["narrowed_share"] for row in rows.values())
    for column in ("voxels", "annotated", "share, %", *(["only narrowed, %"] if is_narrowed else [])):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = [f"{row['voxels']:,}", f"{row['annotated']:,}", _percent(row["share"])]
        table.add_row(escape(name), *cells, *([_percent(row["narrowed_share"])] if is_narrowed else []))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


if __name__ == "__main__":
    main()
