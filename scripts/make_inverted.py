"""Copy a dense data set of one foreground class with foreground and background exchanged.

python scripts/make_inverted.py DATASET -o NEW --name cell

For measurements on data whose foreground fills most of the image, which anatomy seldom gives.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from autoseg.cli import common
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.dataset.schema import BACKGROUND
from autoseg.io.images import read_labels, write_labels
from autoseg.io.raw_layout import put_images

log = logging.getLogger("autoseg.make_inverted")


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(make_inverted)


def make_inverted(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder with a dataset.json, or such a file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    name: Annotated[str, typer.Option("--name", help="What the former background is called.")],
    *,
    quiet: common.QuietOption = False,
) -> None:
    """Copy DATASET with foreground and background exchanged; the images are linked."""
    common.set_up_logging(quiet=quiet)
    if (output / DATASET_JSON).exists():
        raise ConfigError(f"{output}: found a data set, expected a new folder. Delete it, or choose another -o.")
    dataset = Dataset.load(source)
    if dataset.labels.n_classes != 2 or not dataset.labels.is_dense:
        raise ConfigError(
            f"{dataset.name}: found the classes {', '.join(dataset.labels.class_names)}, expected background and one "
            "more, densely drawn. Choose another data set."
        )
    put_images(dataset.cases, dataset.file_ending, output / "imagesTr")
    (output / "labelsTr").mkdir(parents=True, exist_ok=True)
    share = []
    for case in dataset.cases:
        if case.label is not None:
            labels, geometry = read_labels(case.label)
            inverted = (labels == 0).astype(np.uint8)
            share.append(inverted.mean())
            write_labels(output / "labelsTr" / f"{case.name}{dataset.file_ending}", inverted, geometry)
    content = {key: value for key, value in dataset.json.items() if key != "dataset"}
    write_json(output / DATASET_JSON, content | {"labels": {BACKGROUND: 0, name: 1}})
    log.info("%s: %d cases, %.0f %% of the voxels are %s", output, len(share), 100 * np.mean(share), name)


if __name__ == "__main__":
    main()
