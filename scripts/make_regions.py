"""Copy a data set with its classes turned into overlapping regions; the label files stay as they are.

python scripts/make_regions.py DATASET -o NEW --regions whole=1,2 anterior=1
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from autoseg.cli import common
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.schema import BACKGROUND, IGNORE
from autoseg.io.raw_layout import put_file, put_images

log = logging.getLogger("autoseg.make_regions")

REFUSED = ("annotation_protocol", "cases", "label_sets", "valid_mask_folder", "unlabelled")
"""Keys of dataset.json that name classes, which are no more, or files beside it."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(make_regions, lists={"--regions": r"[^-=][^=]*=\d+(,\d+)*"})


def make_regions(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder with a dataset.json, or such a file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    regions: Annotated[
        list[str], typer.Option("--regions", metavar="NAME=VALUES ...", help="As whole=1,2 anterior=1.")
    ],
    *,
    copy: Annotated[bool, typer.Option("--copy", help="Copy images and labels instead of linking to them.")] = False,
    quiet: common.QuietOption = False,
) -> None:
    """Copy DATASET with regions instead of classes. Its label files, and so its references, still fit.

    Large regions come first: each is painted over the ones before it.
    """
    common.set_up_logging(quiet=quiet)
    if (output / DATASET_JSON).exists():
        raise ConfigError(f"{output}: found a data set, expected a new folder. Delete it, or choose another -o.")
    dataset = Dataset.load(source)
    content = regions_json(dataset, parse_regions(regions))
    put_images(dataset.cases, dataset.file_ending, output / "imagesTr", copy=copy)
    (output / "labelsTr").mkdir(parents=True, exist_ok=True)
    for case in dataset.cases:
        if case.label is not None:
            put_file(case.label, output / "labelsTr" / f"{case.name}{dataset.file_ending}", copy=copy)
    write_json(output / DATASET_JSON, content)
    made = Dataset.load(output)
    log.info("%s: %d cases, regions %s", output, len(made.cases), ", ".join(head.name for head in made.labels.heads))


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


def regions_json(dataset: Dataset, regions: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the dataset.json of the copy; raise ``ConfigError`` if the source says more than its labels."""
    found = [key for key in REFUSED if key in dataset.json]
    if found:
        raise ConfigError(
            f"{dataset.name}: found {' and '.join(found)} in its {DATASET_JSON}, expected labels only. "
            "Write the regions into a copy of that file by hand."
        )
    content = {key: value for key, value in dataset.json.items() if key != "dataset"}
    content["regions_class_order"] = paint_values(regions, dataset.labels.class_values[1:])
    labels = {BACKGROUND: 0} | {name: item[0] if len(item) == 1 else list(item) for name, item in regions.items()}
    ignore = dataset.labels.ignore
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


if __name__ == "__main__":
    main()
