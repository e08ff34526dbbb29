"""Make a sparse copy of a densely labelled data set: every n-th slice stays annotated, the rest becomes ``ignore``.

python scripts/make_sparse.py DATASET -o NEW --every-nth-slice 5 [--regions whole=1,2 anterior=1]
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from raw_layout import put_images

from autoseg.cli import common
from autoseg.core.atomic import write_json
from autoseg.core.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.core.errors import ConfigError, DatasetError, Fault
from autoseg.core.geometry import Geometry
from autoseg.core.label_json import BACKGROUND, IGNORE
from autoseg.io.images import read_labels, write_labels

log = logging.getLogger("autoseg.make_sparse")


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(make_sparse, lists={"--regions": r"[^-=][^=]*=\d+(,\d+)*"})


def make_sparse(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder with a dataset.json, or such a file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    every: Annotated[int, typer.Option("--every-nth-slice", min=1, help="1 keeps every slice annotated.")],
    *,
    axis: Annotated[int, typer.Option(min=0, max=2, help="Axis of the slices: 0, 1 or 2 for z, y or x.")] = 0,
    offset: Annotated[
        str, typer.Option(help="First annotated slice, or auto: as many slices before the first as after the last.")
    ] = "auto",
    regions: Annotated[
        list[str] | None, typer.Option("--regions", metavar="NAME=VALUES ...", help="As whole=1,2 anterior=1.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the images instead of linking to them.")] = False,
    quiet: common.QuietOption = False,
) -> None:
    """Copy DATASET with only every n-th slice annotated; the other voxels get the ignore label.

    The value of ignore is the highest label + 1, unless DATASET has one already. With --regions the labels become
    overlapping regions; the label files hold the same values as before, so the references of DATASET still fit.
    """
    common.set_up_logging(quiet=quiet)
    if (output / DATASET_JSON).exists():
        raise ConfigError(
            f"{output}: found a data set, expected a new or unfinished one. Delete it, or choose another -o."
        )
    dataset = Dataset.load(source)
    ignore = dataset.labels.ignore
    if ignore is None and every > 1:
        ignore = max(dataset.labels.file_values()) + 1
    content = sparse_json(dataset, ignore, parse_regions(regions) if regions else None)
    first = parse_offset(offset, every)
    put_images(dataset.cases, dataset.file_ending, output / "imagesTr", copy=copy)
    annotated: list[float] = []
    with common.progress("labels", quiet=quiet) as report:
        for done, case in enumerate(dataset.cases, 1):
            labels, geometry = read_case_labels(dataset, case)
            if every > 1 and ignore is not None:
                start = balanced_offset(labels.shape[axis], every) if first is None else first
                labels = thin(labels, every, axis=axis, offset=start, ignore=ignore, case=case.name)
            write_labels(output / "labelsTr" / f"{case.name}{dataset.file_ending}", labels, geometry)
            annotated.append(float(np.mean(labels != ignore)))
            report(done, len(dataset.cases), case.name)
    write_json(output / DATASET_JSON, content)
    Dataset.load(output)
    log.info("%s: %d cases, %.2f %% of the voxels annotated", output, len(annotated), 100 * float(np.mean(annotated)))


def parse_offset(text: str, every: int) -> int | None:
    """Return the number of the first annotated slice, or None for ``auto``."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) >= every:
        raise ConfigError(f"--offset: found {text!r}, expected auto or a number from 0 to {every - 1}. Write auto.")
    return int(text)


def parse_regions(assignments: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Turn ``whole=1,2`` into ``{"whole": (1, 2)}``; raise ``ConfigError`` on anything else."""
    regions: dict[str, tuple[int, ...]] = {}
    for assignment in assignments:
        name, _, listed = assignment.partition("=")
        parts = listed.split(",")
        if not name or name in (BACKGROUND, IGNORE, *regions) or not all(part.isdecimal() for part in parts):
            raise ConfigError(
                f"--regions {assignment}: expected a new name and label values. Write it as whole=1,2 anterior=1."
            )
        regions[name] = tuple(sorted({int(part) for part in parts}))
    return regions


def sparse_json(dataset: Dataset, ignore: int | None, regions: Mapping[str, tuple[int, ...]] | None) -> dict[str, Any]:
    """Return the dataset.json of the copy: the source's, with ignore, the regions, and without a list of files."""
    content = {key: value for key, value in dataset.json.items() if key != "dataset"}
    labels = {name: value for name, value in content["labels"].items() if name != IGNORE}
    if regions is not None:
        content["regions_class_order"] = paint_values(regions, dataset.labels.class_values[1:])
        labels = {BACKGROUND: 0} | {name: item[0] if len(item) == 1 else list(item) for name, item in regions.items()}
    content["labels"] = labels if ignore is None else labels | {IGNORE: ignore}
    content["numTraining"] = len(dataset.cases)
    return content


def paint_values(regions: Mapping[str, tuple[int, ...]], values: Collection[int]) -> list[int]:
    """Return ``regions_class_order``: per region the value that the fewest regions share.

    Raises ``ConfigError`` unless painting the regions in their order gives back every one of the label ``values``.
    """
    shared = {value: sum(value in members for members in regions.values()) for value in {*values}}
    unknown = sorted({value for members in regions.values() for value in members} - {*values})
    if unknown:
        raise ConfigError(f"--regions: found {unknown}, expected label values of the data set {sorted(values)}.")
    order = [min(members, key=lambda value: (shared[value], value)) for members in regions.values()]
    for value in values:
        painted = [own for own, members in zip(order, regions.values(), strict=True) if value in members]
        if not painted or painted[-1] != value:
            found = f"painted as {painted[-1]}" if painted else "in no region"
            raise ConfigError(
                f"--regions: found the label value {value} {found}, expected regions from which every value can be "
                "painted. List large regions first, and give each value a region of its own if need be."
            )
    return order


def read_case_labels(dataset: Dataset, case: CaseFiles) -> tuple[NDArray[np.uint16], Geometry]:
    """Read the labels (z, y, x) of a case; raise ``DatasetError`` if they hold values that are not declared."""
    declared = dataset.labels.file_values()
    found: list[int] = []
    if case.label is not None:
        labels, geometry = read_labels(case.label)
        found = sorted({*np.unique(labels).tolist()} - {*declared})
        if not found:
            return labels.astype(np.uint16), geometry
    fix = "Declare them in dataset.json: labels, or correct the file."
    raise DatasetError([Fault(f"labels of case {case.name!r}", f"values {found}", f"only {list(declared)}", fix)])


def balanced_offset(n_slices: int, every: int) -> int:
    """Return the first annotated slice for which as many slices lie before it as after the last one, or one fewer."""
    return (n_slices - 1) % every // 2


def thin(
    labels: NDArray[np.uint16], every: int, *, axis: int, offset: int, ignore: int, case: str
) -> NDArray[np.uint16]:
    """Return labels (z, y, x) where only the slices ``offset``, ``offset + every``, ... along ``axis`` keep theirs.

    Raises ``ConfigError`` if the axis has one slice only, or none would stay annotated.
    """
    n_slices = labels.shape[axis]
    if n_slices == 1 or offset >= n_slices:
        raise ConfigError(
            f"case {case!r}: found {n_slices} slices along axis {axis}, expected more than "
            f"{max(1, offset)}. Choose another --axis or --offset."
        )
    sparse = np.full(labels.shape, ignore, dtype=np.uint16)
    kept = (slice(None),) * axis + (slice(offset, None, every),)
    sparse[kept] = labels[kept]
    return sparse


if __name__ == "__main__":
    main()
