"""Make a data set of one volume that is as large as you like and takes a few megabytes of disk.

python scripts/make_tile_volume.py -o raw/Dataset300_Tiles --gb 40 --missing 3

The volume is described by a tile JSON over one block of 16 x 1024 x 1024 voxels that is repeated along all axes without
a seam: cells of two kinds in noise. Labels are tiles of the same grid, dense, or unlabelled in most sections.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from autoseg.cli import common
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import DATASET_JSON
from autoseg.io.images import write_labels

log = logging.getLogger("autoseg.make_tile_volume")

DEPTH = 16
"""Sections of the block that is repeated."""
UNLABELLED = 255
FLAT = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(make_tile_volume)


def make_tile_volume(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    *,
    gb: Annotated[float, typer.Option(min=0.001, help="Size of the volume in GB: voxels of one byte.")] = 40.0,
    tile: Annotated[int, typer.Option(min=16, help="Edge of a tile in voxels.")] = 1024,
    depth: Annotated[int, typer.Option(min=1, help="Number of sections.")] = 400,
    missing: Annotated[int, typer.Option(min=0, help="Number of tiles of the image that are missing.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Every how many sections one is labelled.")] = 1,
    spacing: Annotated[tuple[float, float, float], typer.Option(help="Voxel size (z, y, x) in mm.")] = (
        3e-5,
        1e-5,
        1e-5,
    ),
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quiet: common.QuietOption = False,
) -> None:
    """Write the tiles, image.json, labels.json and dataset.json."""
    common.set_up_logging(quiet=quiet)
    if (output / DATASET_JSON).exists():
        raise ConfigError(f"{output}: found a data set, expected a new folder. Delete it, or choose another -o.")
    edge = max(1, round(math.sqrt(gb * 1e9 / depth) / tile))
    if missing > depth * edge * edge:
        raise ConfigError(f"--missing {missing}: expected at most {depth * edge * edge}, all tiles of the volume.")
    image, labels = repeated_block(tile, seed)
    for index in range(DEPTH):
        write_labels(output / "tiles" / f"image_{index:02d}.png", image[index : index + 1], FLAT)
        write_labels(output / "tiles" / f"labels_{index:02d}.png", labels[index : index + 1], FLAT)
    write_labels(output / "tiles" / "unlabelled.png", np.full((1, tile, tile), UNLABELLED, np.uint8), FLAT)
    paths = [f"tiles/image_{z % DEPTH:02d}.png" for z in range(depth)]
    leave_out_tiles(output, image, paths, missing, edge)
    drawn = [f"tiles/labels_{z % DEPTH:02d}.png" if z % every == 0 else "tiles/unlabelled.png" for z in range(depth)]
    size = {"depth": depth, "height": edge * tile, "width": edge * tile, "tile_size": tile, "spacing": list(spacing)}
    write_json(output / "image.json", {"image": paths, **size})
    write_json(output / "labels.json", {"image": drawn, **size, "dtype": "uint8"})
    content = {
        "channel_names": {"0": "EM"},
        "labels": {"background": 0, "dark": 1, "bright": 2},
        "unlabelled": UNLABELLED,
        "numTraining": 1,
        "boxes": {"volume": {"image": "image.json", "label": "labels.json"}},
    }
    write_json(output / DATASET_JSON, content)
    log.info(
        "%s: %d x %d x %d voxels, %.3g GB", output, depth, edge * tile, edge * tile, depth * (edge * tile) ** 2 / 1e9
    )


def repeated_block(tile: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return intensities and labels (16, tile, tile) of a block without a seam to its neighbours."""
    rng = np.random.default_rng(seed)
    axes = [np.arange(edge) * (2 * np.pi / edge) for edge in (DEPTH, tile, tile)]
    field = np.zeros((DEPTH, tile, tile), dtype=np.float32)
    for _ in range(12):
        waves = rng.integers([-1, -24, -24], [2, 25, 25])
        z, y, x = (wave * axis for wave, axis in zip(waves, axes, strict=True))
        phase = z[:, None, None] + y[:, None] + x + rng.uniform(0, 2 * np.pi)
        field += np.cos(phase).astype(np.float32)
    labels = np.zeros(field.shape, dtype=np.uint8)
    labels[field > 3] = 2
    labels[field < -3] = 1
    level = np.array([128, 90, 170], dtype=np.float32)[labels]
    image = np.clip(level + rng.normal(0, 12, field.shape), 0, 255)
    return image.astype(np.uint8), labels


def leave_out_tiles(output: Path, image: NDArray[np.uint8], paths: list[str], missing: int, edge: int) -> None:
    """Give as many sections as needed, from the middle on, tiles of their own, of which the first are not written."""
    left = missing
    for step in range(math.ceil(missing / edge**2)):
        z = (len(paths) // 2 + step) % len(paths)
        paths[z] = f"section_{z:04d}/{{row}}_{{column}}.png"
        for number in range(edge**2):
            if left:
                left -= 1
                continue
            name = paths[z].replace("{row}", str(number // edge)).replace("{column}", str(number % edge))
            write_labels(output / name, image[z % DEPTH : z % DEPTH + 1], FLAT)


if __name__ == "__main__":
    main()
