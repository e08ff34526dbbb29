"""The other side of the row on electron microscopy: the patches are read from HDF5, compressed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmark_rows.em_ours import places

CHUNK = (8, 64, 64)


def reading(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Write the volume as bytes in gzipped chunks, as such volumes are shared; return what reads all patches.

    Image and codes are read, the image as float32. Chunks are not kept between patches.
    """
    image, codes = (np.load(folder / f"case_0_{kind}.npy") for kind in ("image", "codes"))
    least, most = image.min(), image.max()
    path = folder / "volume.h5"
    with h5py.File(path, "w") as file:
        for name, volume in (("image", 255 * (image[0] - least) / (most - least)), ("codes", codes)):
            chunk = tuple(min(edge, size) for edge, size in zip(CHUNK, volume.shape, strict=True))
            file.create_dataset(name, data=volume.astype(np.uint8), chunks=chunk, compression="gzip")
    opened = h5py.File(path, rdcc_nbytes=0)
    half = (np.array(settings["patch"]) - 1) / 2

    def run() -> int:
        total = 0
        for centre in places(settings):
            corner = (centre - half).astype(int).tolist()
            box = tuple(slice(low, low + edge) for low, edge in zip(corner, settings["patch"], strict=True))
            total += opened["image"][box].astype(np.float32).size + opened["codes"][box].size
        return total

    return run
