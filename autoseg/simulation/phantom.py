"""Phantom: a small artificial data set, with which the whole pipeline can be tried and tested without real data.

A case is a body with two organs that no threshold separates: vessels have the intensity of the kidney, and nodules that
of the liver; texture, noise and a bias field make the remaining intensities overlap. The annotation is about one minute
of work: in each slice two lines inside each organ, parts of a line around the organs, and a few lines elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array, Shape3
from autoseg.simulation.shapes import Spacing, Volume, blob, millimetres, smooth_field
from autoseg.simulation.styles import scribble_slice

CLASSES = {"background": 0, "liver": 1, "kidney": 2}
IGNORE = 3
"""File value of voxels without a scribble."""
CHANNEL = "MR"

_BODY, _LIVER, _KIDNEY = 300.0, 440.0, 580.0
_NOISE = 36.0


@dataclass(frozen=True, slots=True)
class Phantom:
    """One artificial case."""

    image: Float32Array
    """(1, z, y, x) float32, in arbitrary units like MR: air near 0, tissue 200 to 800."""
    truth: NDArray[np.uint8]
    """(z, y, x), values of ``CLASSES`` at every voxel."""
    scribbles: NDArray[np.uint8]
    """(z, y, x), values of ``truth`` at annotated voxels (a few percent), ``IGNORE`` at all others."""
    spacing: Spacing
    """mm, (z, y, x)."""


def phantom_case(seed: int) -> Phantom:
    """Return a random case with 24 to 32 slices of 64 to 80 pixels squared. The same seed gives the same case."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(24, 33)), int(rng.integers(64, 81)), int(rng.integers(64, 81)))
    in_plane = float(np.round(rng.uniform(0.9, 1.1), 2))
    spacing = (float(np.round(rng.uniform(2.2, 2.8), 1)), in_plane, in_plane)
    body, truth = _anatomy(rng, shape, spacing)
    image = _image(rng, body, truth, spacing)
    return Phantom(image[None].astype(np.float32), truth, _scribbles(rng, body, truth), spacing)


def _anatomy(rng: np.random.Generator, shape: Shape3, spacing: Spacing) -> tuple[BoolArray, NDArray[np.uint8]]:
    """Return a mask (z, y, x) of the body, and a label map (z, y, x) with a liver and a bent kidney beside it."""
    z, y, x = millimetres(shape, spacing)
    half_y, half_x = 0.46 * shape[1] * spacing[1], 0.46 * shape[2] * spacing[2]
    body = np.broadcast_to((y / half_y) ** 2 + (x / half_x) ** 2 < 1, shape)
    lateral = rng.uniform(8, 11)
    centre = (rng.uniform(-5, 5), rng.uniform(-4, 4), lateral)
    radii = (rng.uniform(19, 25), rng.uniform(13, 17), rng.uniform(11, 14))
    liver = blob(rng, (z, y, x), centre, radii, shape, spacing)
    centre = (rng.uniform(-6, 6), rng.uniform(-5, 5), -lateral - rng.uniform(3, 5))
    radii = (rng.uniform(14, 19), rng.uniform(9, 12), rng.uniform(7, 9))
    dent = ((y - centre[1]) / 5) ** 2 + ((x - centre[2] - 7) / 5) ** 2 + ((z - centre[0]) / 9) ** 2
    kidney = blob(rng, (z, y, x), centre, radii, shape, spacing) & (dent > 1)
    truth = np.zeros(shape, dtype=np.uint8)
    truth[body & liver] = CLASSES["liver"]
    truth[body & kidney & ~liver] = CLASSES["kidney"]
    return body, truth


def _image(rng: np.random.Generator, body: BoolArray, truth: NDArray[np.uint8], spacing: Spacing) -> Volume:
    """Return the intensities (z, y, x) for ``body`` and ``truth`` (z, y, x).

    They contain distractors (vessels, nodules), texture, a bias field and noise. ``spacing`` in mm.
    """
    shape: Shape3 = truth.shape
    tissue = np.where(body, _BODY, 0.0)
    background = body & (truth == 0)
    tissue[background & _vessels(rng, shape, spacing)] = _KIDNEY
    tissue[background & _nodules(rng, shape, spacing)] = _LIVER
    tissue[truth == CLASSES["liver"]] = _LIVER
    tissue[truth == CLASSES["kidney"]] = _KIDNEY
    tissue += body * 25.0 * smooth_field(rng, shape, spacing, 10.0)
    tissue += (truth == CLASSES["liver"]) * 25.0 * smooth_field(rng, shape, spacing, 4.0)
    bias = 1 + 0.09 * smooth_field(rng, shape, spacing, 40.0)
    gain = rng.uniform(0.8, 1.25)
    return gain * (tissue * np.clip(bias, 0.75, 1.3) + rng.normal(0.0, _NOISE, shape))


def _scribbles(rng: np.random.Generator, body: BoolArray, truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the annotation (z, y, x) for ``body`` and ``truth`` (z, y, x).

    In every slice there are lines inside each organ and along its border, beside the organs, elsewhere, and in the air.
    """
    scribbles = np.full(truth.shape, IGNORE, dtype=np.uint8)
    air = len(CLASSES)
    for labels, inside, drawn in zip(truth, body, scribbles, strict=True):
        tissue = np.where(inside, labels, air)
        for zones, is_wanted in ((labels, True), (tissue, True), (tissue, ~inside)):
            marked = scribble_slice(rng, zones, thickness=1) & is_wanted
            drawn[marked] = labels[marked]
    return scribbles


def _vessels(rng: np.random.Generator, shape: Shape3, spacing: Spacing) -> BoolArray:
    """Return a mask (z, y, x) of three winding tubes of 2 to 3 mm radius through all slices."""
    z, y, x = millimetres(shape, spacing)
    tubes = np.zeros(shape, dtype=bool)
    reach_y, reach_x = 0.35 * shape[1] * spacing[1], 0.35 * shape[2] * spacing[2]
    for _ in range(3):
        phase, period = rng.uniform(0, 2 * np.pi, 2), rng.uniform(40, 80, 2)
        path_y = rng.uniform(-reach_y, reach_y) + 4 * np.sin(2 * np.pi * z / period[0] + phase[0])
        path_x = rng.uniform(-reach_x, reach_x) + 4 * np.sin(2 * np.pi * z / period[1] + phase[1])
        tubes |= (y - path_y) ** 2 + (x - path_x) ** 2 < rng.uniform(2, 3) ** 2
    return tubes


def _nodules(rng: np.random.Generator, shape: Shape3, spacing: Spacing) -> BoolArray:
    """Return a mask (z, y, x) of five balls of 3 to 5 mm radius at random places."""
    position = millimetres(shape, spacing)
    half = [0.4 * n * edge for n, edge in zip(shape, spacing, strict=True)]
    balls = np.zeros(shape, dtype=bool)
    for _ in range(5):
        centre = [rng.uniform(-h, h) for h in half]
        squares = sum((p - c) ** 2 for p, c in zip(position, centre, strict=True))
        balls |= np.asarray(squares) < rng.uniform(3, 5) ** 2
    return balls
