"""Prediction of a volume of uint8 by a network of single voxels: ``python memory_of_volume.py MODEL FOLDER Z Y X GB``.

Prints the bytes that the process had before it began, and the most that it had.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from autoseg.core.geometry import Geometry
from autoseg.inference import Predictor, predictor
from autoseg.inference.predict_volume import predict_volume
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.volume_memory import resident_memory
from autoseg.inference.volume_options import VolumeOptions
from autoseg.io.zarr_writer import create_zarr

PATCH = (16, 128, 128)


def write(path, shape):
    """Write a volume of noise."""
    chunk = (64, 64, 64)
    writer = create_zarr(
        path, (1, *shape), "uint8", Geometry(spacing=(2.0, 1.0, 1.0)), chunk=chunk, shard=(64, 512, 512)
    )
    noise = np.random.default_rng(0).integers(0, 256, (1, 64, 512, 512), dtype=np.uint8)
    for box in writer.pending():
        z, y, x = box.shape
        writer.write(box, noise[:, :z, :y, :x])
    writer.finish()


def main(model, folder, z, y, x, memory_gb):
    volume = Path(folder) / "v.zarr"
    write(volume, (int(z), int(y), int(x)))
    predictor.choose_dtype = lambda *arguments: None
    loaded = Predictor.load(model, device="cpu", mirror=False, step=1.0)
    wide = loaded.model.configuration.model_copy(update={"patch_size": PATCH})
    loaded = replace(loaded, model=replace(loaded.model, configuration=wide, networks=(nn.Conv3d(1, 2, 1).eval(),)))
    before = resident_memory()
    options = VolumeOptions(memory_gb=float(memory_gb))
    predict_volume(PredictorGroup((loaded,)), (str(volume),), Path(folder) / "out", options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(f"{before} {peak}")


if __name__ == "__main__":
    main(*sys.argv[1:])
