"""``autoseg_convert_elektronn``: a data set from the HDF5 cubes that ELEKTRONN trains on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from autoseg.cli import common

log = logging.getLogger("autoseg.convert_elektronn")

LISTS = ("--images", "--labels", "--names", "--case-names", "--priorities", "--channel-names")


def main() -> NoReturn:
    """Entry point of the command."""
    common.run(convert_elektronn, lists=dict.fromkeys(LISTS, r"[^-].*"))


def convert_elektronn(
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    images: Annotated[
        list[str], typer.Option("--images", metavar="FILE:KEY ...", help="Image cubes, as in ELEKTRONN's d_files.")
    ],
    labels: Annotated[
        list[str], typer.Option("--labels", metavar="FILE:KEY ...", help="Their labels in the same order (l_files).")
    ],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names", metavar="NAME ...", help="Classes 0, 1, ..., first background (default: class_1, ...)."
        ),
    ] = None,
    priorities: Annotated[
        list[float] | None,
        typer.Option("--priorities", metavar="NUMBER ...", help="Sampling weights of the cubes (cube_prios)."),
    ] = None,
    case_names: Annotated[
        list[str] | None,
        typer.Option("--case-names", metavar="NAME ...", help="Of the cubes (default: those of the image files)."),
    ] = None,
    channel_names: Annotated[
        list[str] | None, typer.Option("--channel-names", metavar="NAME ...", help="Of the image (default: EM).")
    ] = None,
    axes: Annotated[
        str, typer.Option("--axes", help="Order in the files: xyz, or zxy for zchxy_order; c names channels.")
    ] = "xyz",
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            "--spacing", metavar="X Y Z", help="Edges of a voxel, mm, which HDF5 files do not hold (default: 1 1 1)."
        ),
    ] = None,
    anisotropic_data: Annotated[
        bool,
        typer.Option("--anisotropic-data", help="The cubes are stacks of 2-D images: each slice along z is a case."),
    ] = False,
    ending: Annotated[
        str, typer.Option("--ending", help="Of the new files: .nii.gz, .nii, .nrrd or .mha.")
    ] = ".nii.gz",
    verbose: common.VerboseOption = False,
    quiet: common.QuietOption = False,
) -> None:
    """Write cubes of ELEKTRONN as a data set: -1 becomes the ignore label, info becomes entries of dataset.json.

    The key may be omitted if a file has one data set only. Labels smaller than their image lie in its centre. All cubes
    are checked before anything is written; every fault is named.
    """
    from autoseg.interop.elektronn import convert
    from autoseg.interop.elektronn_cubes import ConversionSettings, pair_cubes

    common.set_up_logging(verbose=verbose, quiet=quiet)
    x, y, z = spacing or (1.0, 1.0, 1.0)
    settings = ConversionSettings(
        tuple(names) if names else None, tuple(channel_names) if channel_names else None, axes, (z, y, x), ending,
        anisotropic_data,
    )  # fmt: skip
    if spacing is None:
        log.warning("--spacing is missing: voxels of 1 x 1 x 1 mm are assumed. Network and patch size depend on it.")
    cubes = pair_cubes(images, labels, priorities, case_names, lambda key: f"--{key.replace('_', '-')}")
    with common.progress("convert", quiet=quiet) as report:
        written = convert(cubes, output, settings, progress=report)
    shares = written.annotated_fraction
    log.info(
        "%s: %d cases of the classes %s, %.1f %% of the voxels labelled", output, len(written.cases),
        ", ".join(written.class_names), 100 * sum(shares.values()) / len(shares),
    )  # fmt: skip


if __name__ == "__main__":
    main()
