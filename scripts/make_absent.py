"""Copy a dense data set with few dense cases, and some for which dataset.json only declares a class absent.

python scripts/make_absent.py DATASET -o NEW --class Posterior --dense 20 --lazy 10

A lazy case is cut so that the class does not lie in it: to the larger of the two parts of its longest axis beside the
class. The other cases are for testing: whole in ``imagesTs`` and ``labelsTs``, and cut likewise in ``imagesTs_cut`` and
``labelsTs_cut``, where every voxel of the class that is found is a false positive.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from autoseg.cli import common
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import DATASET_JSON, CaseFiles, Dataset
from autoseg.dataset.schema import IGNORE
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.io.volumes import write_volume

log = logging.getLogger("autoseg.make_absent")


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(make_absent)


def make_absent(
    source: Annotated[Path, typer.Argument(metavar="DATASET", help="Folder with a dataset.json, or such a file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    name: Annotated[str, typer.Option("--class", help="The class that the lazy cases do not show.")],
    *,
    dense: Annotated[int, typer.Option(min=1, help="Cases with dense labels.")] = 20,
    lazy: Annotated[int, typer.Option(min=0, help="Cases of which only this is said.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="The same seed chooses the same cases.")] = 0,
    quiet: common.QuietOption = False,
) -> None:
    """Copy DATASET with some cases lazily labelled, some densely, and all others for testing."""
    common.set_up_logging(quiet=quiet)
    if (output / DATASET_JSON).exists():
        raise ConfigError(f"{output}: found a data set, expected a new folder. Delete it, or choose another -o.")
    dataset = Dataset.load(source)
    labels = dataset.labels
    if name not in labels.class_names[1:] or not labels.is_dense or len(dataset.cases) <= dense + lazy:
        raise ConfigError(
            f"{dataset.name}: found {len(dataset.cases)} cases of {', '.join(labels.class_names)}, expected dense "
            f"labels, a class {name} and more than {dense + lazy} cases. Choose other options."
        )
    value = labels.class_values[labels.class_names.index(name)]
    order = np.random.default_rng(seed).permutation(len(dataset.cases))
    cases = [dataset.cases[index] for index in order]
    ignore = max(labels.class_values) + 1
    for case in cases[:dense]:
        _write(case, output, "Tr", dataset.file_ending)
    for case in cases[dense : dense + lazy]:
        _write(case, output, "Tr", dataset.file_ending, without=value, ignore=ignore)
    for case in cases[dense + lazy :]:
        _write(case, output, "Ts", dataset.file_ending)
        _write(case, output, "Ts_cut", dataset.file_ending, without=value)
    content = {key: item for key, item in dataset.json.items() if key != "dataset"}
    content |= {"labels": {**dataset.json["labels"], IGNORE: ignore}, "numTraining": dense + lazy}
    content["cases"] = {case.name: {"absent": [name]} for case in cases[dense : dense + lazy]}
    write_json(output / DATASET_JSON, content)
    log.info("%s: %d dense cases, %d without %s, %d to test", output, dense, lazy, name, len(cases) - dense - lazy)


def _write(
    case: CaseFiles, output: Path, part: str, ending: str, *, without: int | None = None, ignore: int | None = None
) -> None:
    """Write image and labels of a case; cut to where a value does not occur, and with nothing drawn, if asked for."""
    if case.label is None or len(case.images) != 1:
        raise ConfigError(f"case {case.name}: found no label file or several channels, expected one of each.")
    image, geometry = read_image(case.images)
    labels, _ = read_labels(case.label)
    box = (slice(None),) * 3 if without is None else box_without(labels, without)
    drawn = labels[box] if ignore is None else np.full_like(labels[box], ignore)
    cut = moved(geometry, [part.start or 0 for part in box])
    for folder in ("images", "labels"):
        (output / f"{folder}{part}").mkdir(parents=True, exist_ok=True)
    write_volume(output / f"images{part}" / f"{case.name}_0000{ending}", image[0][box], cut)
    write_labels(output / f"labels{part}" / f"{case.name}{ending}", drawn, cut)


def box_without(labels: NDArray[np.integer], value: int) -> tuple[slice, slice, slice]:
    """Return the larger part of the longest axis in which ``value`` does not occur, beside where it does."""
    axis = int(np.argmax(labels.shape))
    found = np.flatnonzero((labels == value).any(axis=tuple(other for other in range(3) if other != axis)))
    box = [slice(None)] * 3
    if len(found):
        before, after = slice(0, int(found[0])), slice(int(found[-1]) + 1, labels.shape[axis])
        box[axis] = max(before, after, key=lambda part: part.stop - part.start)
    return box[0], box[1], box[2]


def moved(geometry: Geometry, first: Sequence[int]) -> Geometry:
    """Return the geometry of a part that begins at voxel ``first`` (z, y, x)."""
    steps = np.array(first[::-1]) * np.array(geometry.spacing[::-1])
    direction = np.array(geometry.direction).reshape(3, 3)
    origin = np.array(geometry.origin) + direction @ steps
    return Geometry(spacing=geometry.spacing, origin=tuple(origin.tolist()), direction=geometry.direction)


if __name__ == "__main__":
    main()
