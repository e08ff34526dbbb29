"""Make an artificial CT data set with 15 organs, densely labelled: for measurements that need Hounsfield units.

python scripts/make_ct_phantom.py -o raw/Dataset200_CtPhantom --cases 20 --seed 1

Organs differ in size by a factor of several hundred; their intensities overlap with each other, with muscle, bowel and
vessels, so that neither a threshold nor statistics over the whole image (air, fat, bone) tell them apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import SimpleITK
import typer
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.cli import common
from autoseg.core.arrays import BoolArray, Shape3
from autoseg.core.atomic import atomic_path, write_json
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.geometry import Geometry
from autoseg.core.parallel import map_unordered
from autoseg.dataset.dataset import DATASET_JSON, Dataset
from autoseg.io.images import write_labels
from autoseg.simulation.shapes import Spacing, Volume, blob, millimetres, smooth_field, tube
from autoseg.simulation.styles import case_rng

log = logging.getLogger("autoseg.make_ct_phantom")

Position = tuple[Volume, Volume, Volume]


@dataclass(frozen=True)
class Organ:
    """An ellipsoid, or a tube if it has a path; mm in a body 160 high, 132 deep and 176 wide, z up, y back, x left."""

    value: int
    hounsfield: float
    size: Spacing | float
    """Radii of the ellipsoid, or the radius of the tube."""
    at: tuple[Spacing, ...]
    """Centre, or control points of the path."""
    contrast: float = 0.0
    """How much of the contrast agent's effect it takes up."""


ORGANS: Mapping[str, Organ] = {
    "aorta": Organ(8, 150, 8.0, ((-90, 22, 6), (-30, 18, 4), (30, 20, 8), (90, 22, 6)), 1.0),
    "postcava": Organ(9, 130, 9.0, ((-90, 16, -14), (-30, 18, -16), (30, 8, -14), (90, 6, -12)), 0.8),
    "right_adrenal": Organ(11, 65, 3.2, ((18, 26, -26), (27, 22, -20), (32, 28, -30)), 0.4),
    "left_adrenal": Organ(12, 65, 3.2, ((16, 24, 24), (26, 20, 20), (31, 26, 32)), 0.4),
    "esophagus": Organ(5, 45, 5.5, ((90, 12, 2), (66, 10, 8), (44, -6, 18)), 0.2),
    "gallbladder": Organ(4, 14, (14, 9, 8), ((0, -34, -32),)),
    "pancreas": Organ(10, 88, 7.5, ((4, 4, -18), (18, -22, -2), (16, -4, 22), (28, 12, 44)), 0.5),
    "duodenum": Organ(13, 50, 6.5, ((10, -20, -12), (6, -16, -50), (-44, 4, -34), (-26, 10, 8)), 0.2),
    "right_kidney": Organ(2, 165, (28, 14, 13), ((-10, 30, -42),), 1.2),
    "left_kidney": Organ(3, 165, (29, 13, 14), ((-2, 28, 44),), 1.2),
    "prostate": Organ(15, 52, (9, 10, 13), ((-72, 8, 0),), 0.3),
    "bladder": Organ(14, 8, (15, 18, 24), ((-54, -20, 2),)),
    "spleen": Organ(1, 112, (28, 20, 15), ((34, 22, 60),), 0.6),
    "stomach": Organ(7, 40, (24, 20, 24), ((30, -26, 34),), 0.1),
    "liver": Organ(6, 104, (46, 44, 44), ((30, -6, -36),), 0.5),
}
"""By name, in painting order: an organ leaves alone what was painted before."""

AIR, FAT, MUSCLE, BONE = -1000.0, -100.0, 55.0, 420.0
SPACING = (2.5, 1.5, 1.5)
HALF_BODY = (80.0, 66.0, 88.0)
"""mm, (z, y, x), of the body that the organs' places refer to."""


def main() -> None:
    """Run the command on the process's arguments."""
    common.run(make_ct_phantom)


def make_ct_phantom(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the new data set.", file_okay=False)],
    *,
    cases: Annotated[int, typer.Option(min=1)] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cases.")] = 1,
    shape: Annotated[tuple[int, int, int], typer.Option(metavar="Z Y X", help="Voxels.")] = (64, 128, 128),
    workers: common.WorkersOption = None,
    quiet: common.QuietOption = False,
) -> None:
    """Write a data set of artificial abdominal CTs with 15 organs and dense labels."""
    common.set_up_logging(quiet=quiet)
    if (output / DATASET_JSON).exists():
        raise ConfigError(f"{output}: found a data set, expected a new folder. Delete it, or choose another -o.")
    if min(shape) < 16:
        raise ConfigError(f"--shape: found {shape}, expected at least 16 voxels along each axis. Choose a larger one.")
    names = [f"ct_{number:03d}" for number in range(cases)]
    write = partial(write_case, folder=output, seed=seed, shape=shape)
    with common.progress("cases", quiet=quiet) as report:
        for done, (index, result) in enumerate(map_unordered(write, names, workers=common.n_workers(workers)), 1):
            if isinstance(result, AutosegError):
                raise result
            report(done, cases, names[index])
    values = {name: organ.value for name, organ in ORGANS.items()}
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0} | dict(sorted(values.items(), key=lambda item: item[1])),
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "description": f"Artificial. make_ct_phantom.py --cases {cases} --seed {seed} --shape {shape}",
    }
    write_json(output / DATASET_JSON, content)
    log.info("%s: %d cases", output, len(Dataset.load(output).cases))


def write_case(name: str, *, folder: Path, seed: int, shape: Shape3) -> None:
    """Write image and labels of one case."""
    image, labels = ct_case(case_rng(seed, name, "ct"), shape)
    write_labels(folder / "labelsTr" / f"{name}.nii.gz", labels, Geometry(spacing=SPACING))
    stored = SimpleITK.GetImageFromArray(image)
    stored.SetSpacing(SPACING[::-1])
    with atomic_path(folder / "imagesTr" / f"{name}_0000.nii.gz") as temporary:
        SimpleITK.WriteImage(stored, str(temporary), useCompression=True, compressionLevel=1)


def ct_case(rng: np.random.Generator, shape: Shape3) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return the image in Hounsfield units and its labels, both (z, y, x)."""
    place = body_position(rng, shape)
    depth = (place[1] / HALF_BODY[1]) ** 2 + (place[2] / HALF_BODY[2]) ** 2 + np.zeros_like(place[0])
    labels = paint_organs(rng, place, depth < 0.8, shape)
    tissue = paint_body(rng, place, depth, labels)
    contrast = rng.uniform(-30, 30)
    for organ in ORGANS.values():
        tissue[labels == organ.value] = organ.hounsfield + organ.contrast * contrast + rng.normal(0, 5)
    tissue += (labels > 0) * 8.0 * smooth_field(rng, shape, SPACING, 9.0)
    tissue = ndimage.gaussian_filter(tissue, 0.5)  # partial volume
    noise = ndimage.gaussian_filter(rng.normal(size=shape), (0, 0.6, 0.6))
    tissue += rng.uniform(14, 22) / noise.std() * noise
    return np.clip(np.rint(tissue), -1024, 3071).astype(np.int16), labels


def body_position(rng: np.random.Generator, shape: Shape3) -> Position:
    """Return where each voxel lies in the standard body, mm; bodies differ in size and place."""
    extent = 0.5 * np.array(shape) * SPACING
    filled = (1.0, rng.uniform(0.86, 0.94), rng.uniform(0.9, 0.97))
    shift = (rng.uniform(-6, 6), rng.uniform(-3, 3), rng.uniform(-3, 3))
    z, y, x = (
        axis * half / (part * edge) + by
        for axis, half, part, edge, by in zip(
            millimetres(shape, SPACING), HALF_BODY, filled, extent, shift, strict=True
        )
    )
    return z, y, x


def paint_organs(rng: np.random.Generator, place: Position, allowed: BoolArray, shape: Shape3) -> NDArray[np.uint8]:
    """Return the labels of all organs, each moved, scaled and dented at random."""
    labels = np.zeros(shape, dtype=np.uint8)
    for organ in ORGANS.values():
        move = rng.normal(0, (4, 2.5, 2.5))
        scale = rng.uniform(0.88, 1.12)
        path = [(z + move[0], y + move[1], x + move[2]) for z, y, x in organ.at]
        if isinstance(organ.size, tuple):
            z, y, x = organ.size
            inside = blob(rng, place, path[0], (scale * z, scale * y, scale * x), shape, SPACING)
        else:
            bent = [tuple(at + rng.normal(0, 2, 3)) for at in path]
            inside = tube(place, bent, scale * organ.size)
        pieces, n = ndimage.label(inside & allowed & (labels == 0))
        if n:
            labels[pieces == 1 + np.argmax(np.bincount(pieces.reshape(-1))[1:])] = organ.value
    return labels


def paint_body(rng: np.random.Generator, place: Position, depth: Volume, labels: NDArray[np.uint8]) -> Volume:
    """Return Hounsfield units of all that is no organ: air, skin fat, muscle, bowel with gas, spine and ribs.

    ``depth`` is the squared distance from the body's axis, 1 at the skin.
    """
    z, y, x = place
    shape: Shape3 = labels.shape
    tissue = np.where(depth < 1, FAT, AIR)
    is_muscle = (depth > 0.8) & (depth < 0.9)
    is_muscle |= (smooth_field(rng, shape, SPACING, 22.0) > 0.4) & (depth < 0.8)
    is_muscle |= (x / 40) ** 2 + ((y - 44) / 20) ** 2 < 1
    tissue[is_muscle] = MUSCLE
    for _ in range(16):
        centre = (rng.uniform(-70, 20), rng.uniform(-45, 5), rng.uniform(-55, 55))
        radii = tuple(rng.uniform(7, 13, 3))
        bowel = blob(rng, place, centre, radii, shape, SPACING) & (depth < 0.8)
        tissue[bowel] = rng.uniform(20, 110)
        if rng.random() < 0.3:
            tissue[bowel & (y < centre[1] - 3)] = -850.0
    spine = ((x / 15) ** 2 + ((y - 42) / 15) ** 2 + np.zeros_like(z)) < 1
    shell = ((x / 12) ** 2 + ((y - 42) / 12) ** 2 + np.zeros_like(z)) > 1
    tissue[spine] = BONE / 2
    tissue[spine & shell] = BONE
    ribs = (np.abs(depth - 0.84) < 0.035) & (np.sin(2 * np.pi * (z + 0.3 * y) / 26) > 0.35) & (z > -20)
    tissue[ribs] = BONE
    tissue += (depth < 1) * 12.0 * smooth_field(rng, shape, SPACING, 12.0)
    return tissue


if __name__ == "__main__":
    main()
