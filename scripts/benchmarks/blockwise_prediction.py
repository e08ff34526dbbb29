"""Blockwise prediction of a generated volume beside prediction in memory: time, and the most memory of the process.

python scripts/benchmarks/blockwise_prediction.py [--sizes 0.25 0.5 1 2] [--beside 0.25] [--rounds 3] [--memory-gb 2]
    [--pointwise]

The volume is a Zarr of uint8 noise, of which a small piece is repeated; a size of 1 is 10^9 voxels. The network is a
U-Net of two stages with 4 and 8 features, which costs as little as a network may, so that everything else shows; with
``--pointwise`` it is a convolution of single voxels, for which only the memory is of interest. Each
prediction runs in a process of its own and writes the label map as Zarr; what is timed begins after the model is
loaded. Seconds are those of one processor, of all threads, whatever else the machine does.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer

from autoseg.cli import common
from autoseg.core.boxes import Box
from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Plan, Topology
from autoseg.inference import Predictor
from autoseg.inference.predict_volume import predict_volume
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.volume_arrays import Layout
from autoseg.inference.volume_options import VolumeOptions
from autoseg.io.arrays import open_array
from autoseg.io.zarr_writer import create_zarr
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, save_checkpoint
from autoseg.preprocessing.read_case import read_unlabelled

PATCH = (32, 128, 128)
DEPTH = 128
"""Planes of a volume."""
BLOCKWISE, IN_MEMORY = "blockwise", "memory"


@dataclass(frozen=True)
class Result:
    """One prediction."""

    seconds: float
    wall_s: float
    peak_gb: float


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(blockwise_prediction, lists={"--sizes": r"[\d.]+"})


def blockwise_prediction(
    *,
    sizes: Annotated[list[float] | None, typer.Option(help="Sizes of volumes in 10^9 voxels.")] = None,
    beside: Annotated[float, typer.Option(help="Size that is also predicted in memory.")] = 0.25,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of predictions of that size; the ratio is the median.")] = 3,
    step: Annotated[float, typer.Option(help="Distance of windows as a share of the patch.")] = 0.5,
    memory_gb: Annotated[float, typer.Option(help="Memory that blockwise prediction may take.")] = 2.0,
    pointwise: Annotated[bool, typer.Option(help="A network of single voxels, to measure memory quickly.")] = False,
    one: Annotated[str | None, typer.Option(hidden=True, help="Predict in this process: KIND FOLDER SIZE.")] = None,
    json_: common.JsonOption = False,
) -> None:
    """Measure, and print a table."""
    if one is not None:
        kind, folder = one.split(" ", 1)
        print(json.dumps(vars(predicted(kind, Path(folder), step, memory_gb))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), is_pointwise=pointwise)
        for size in sizes or [0.25, 0.5, 1.0, 2.0]:
            write_volume(Path(folder) / "v.zarr", size)
            n_rounds = rounds if size == beside else 1
            results = {kind: [] for kind in ((BLOCKWISE, IN_MEMORY) if size == beside else (BLOCKWISE,))}
            for _ in range(n_rounds):
                for kind, of_kind in results.items():
                    of_kind.append(measured(kind, folder, step, memory_gb))
            if size == beside:
                check(Path(folder))
            rows += [row(size, kind, of_kind, results.get(IN_MEMORY)) for kind, of_kind in results.items()]
            clear(Path(folder))
    if json_:
        common.print_json(rows)
    else:
        print("\n".join(table(rows)))


def row(size: float, kind: str, results: list[Result], others: list[Result] | None) -> dict[str, float | str | None]:
    """Return the medians of predictions, and the ratio of their throughput to that in memory, pair by pair."""
    pairs = zip(results, others or [], strict=False)
    ratios = [other.seconds / own.seconds for own, other in pairs] if kind == BLOCKWISE and others else []
    return {
        "size": size,
        "kind": kind,
        "seconds": median(item.seconds for item in results),
        "wall_s": median(item.wall_s for item in results),
        "peak_gb": max(item.peak_gb for item in results),
        "ratio": median(ratios) if ratios else None,
    }


def table(rows: list[dict[str, float | str | None]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| 10^9 voxels | prediction | s of a processor | s | peak, GB | throughput beside memory |"]
    lines.append("|---:|---|---:|---:|---:|---:|")
    for item in rows:
        ratio = "-" if item["ratio"] is None else f"{item['ratio']:.2f}"
        cells = f"{item['seconds']:.0f} | {item['wall_s']:.0f} | {item['peak_gb']:.2f} | {ratio}"
        lines.append(f"| {item['size']:g} | {item['kind']} | {cells} |")
    return lines


def measured(kind: str, folder: str, step: float, memory_gb: float) -> Result:
    """Return what a prediction in a process of its own took."""
    clear(Path(folder), kind)
    command = [
        sys.executable,
        __file__,
        "--one",
        f"{kind} {folder}",
        "--step",
        str(step),
        "--memory-gb",
        str(memory_gb),
    ]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(done.stderr)
    result = Result(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{kind}: {result}", file=sys.stderr, flush=True)
    return result


def predicted(kind: str, folder: Path, step: float, memory_gb: float) -> Result:
    """Predict ``v.zarr`` in this process."""
    torch.set_num_threads(1)
    loaded = Predictor.load(folder / "model", device="cpu", mirror=False, step=step)
    group = PredictorGroup((replace(loaded, autocast_dtype=None),))
    volume, wall, start = folder / "v.zarr", time.perf_counter(), time.process_time()
    if kind == BLOCKWISE:
        predict_volume(group, (str(volume),), folder / kind, VolumeOptions(memory_gb=memory_gb))
    else:
        predict_at_once(group, volume, folder / kind / "v.zarr")
    seconds, wall_s = time.process_time() - start, time.perf_counter() - wall
    return Result(seconds, wall_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def predict_at_once(group: PredictorGroup, volume: Path, output: Path) -> None:
    """Predict a volume that is read whole, and write its label map in the same shards."""
    labels = group.label_map(group.prepare(read_unlabelled("v", [volume], [])))
    layout = Layout.of(labels.shape, 0)
    output.parent.mkdir(parents=True, exist_ok=True)
    writer = create_zarr(
        output, (1, *labels.shape), labels.dtype, open_array(volume).geometry, chunk=layout.chunk, shard=layout.shard,
        levels=layout.n_levels, reduction="majority",
    )  # fmt: skip
    for box in writer.pending():
        writer.write(box, np.ascontiguousarray(labels[(None, *box.slices)]))
    writer.finish()


def check(folder: Path) -> None:
    """Raise ``RuntimeError`` unless both label maps agree but for a few ties."""
    one, other = (open_array(folder / kind / "v.zarr") for kind in (BLOCKWISE, IN_MEMORY))
    differ = 0
    for first in range(0, one.spatial_shape[0], 32):
        box = Box((first, 0, 0), (first + 32, *one.spatial_shape[1:]))
        differ += int((one.read(box) != other.read(box)).sum())
    if differ > 1e-5 * one.spatial_shape[0] * one.spatial_shape[1] * one.spatial_shape[2]:
        raise RuntimeError(f"{differ} voxels differ between the two predictions")


def clear(folder: Path, *kinds: str) -> None:
    """Remove the predictions, without ``kinds`` also the volume."""
    for name in kinds or (BLOCKWISE, IN_MEMORY, "v.zarr"):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_volume(path: Path, size: float) -> None:
    """Write a volume of ``size`` 10^9 voxels."""
    edge = round((size * 1e9 / DEPTH) ** 0.5 / 64) * 64
    piece = np.random.default_rng(0).integers(0, 256, (1, DEPTH, 512, 512), dtype=np.uint8)
    writer = create_zarr(
        path, (1, DEPTH, edge, edge), "uint8", Geometry(spacing=(1.0, 1.0, 1.0)), chunk=(64, 64, 64),
        shard=(DEPTH, 512, 512),
    )  # fmt: skip
    for box in writer.pending():
        z, y, x = box.shape
        writer.write(box, piece[:, :z, :y, :x])
    writer.finish()


def write_model(folder: Path, *, is_pointwise: bool = False) -> None:
    """Write a model of random weights."""
    topology = Topology(
        kind="plain", features=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3),) * 2, encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )  # fmt: skip
    if is_pointwise:
        topology = Topology(
            kind="plain", features=(1,), strides=((1, 1, 1),), kernels=((1, 1, 1),), encoder_blocks=(1,),
            decoder_blocks=(), normalization="none",
        )  # fmt: skip
    configuration = Configuration(
        name="3d_fullres", spacing=(1.0, 1.0, 1.0), patch_size=PATCH, batch_size=2, median_shape=(128.0,) * 3,
        normalization=("zscore",), use_mask_for_norm=(False,), topology=topology, batch_dice=False,
    )  # fmt: skip
    statistics = IntensityProperties(mean=0, median=0, std=1, min=0, max=1, percentile_99_5=1, percentile_00_5=0)
    plan = Plan(
        dataset_name="Noise", planner="small", transpose_forward=(0, 1, 2), transpose_backward=(0, 1, 2),
        original_median_spacing=(1.0, 1.0, 1.0), original_median_shape=(128, 512, 512), channel_names=("EM",),
        intensities=(statistics,), configurations={"3d_fullres": configuration}, crop=False,
    )  # fmt: skip
    torch.manual_seed(0)
    dataset = {
        "channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "file_ending": ".zarr", "numTraining": 1,
        "name": "Noise",
    }  # fmt: skip
    checkpoint = Checkpoint(
        weights=build_network(topology, 1, 2).state_dict(), plan=plan, configuration="3d_fullres", dataset=dataset,
        mirror_axes=(), fold="0",
    )  # fmt: skip
    save_checkpoint(folder / "model" / "fold_0" / "checkpoint_final.pt", checkpoint)


if __name__ == "__main__":
    main()
