"""Resampling of images and of label maps: separable matrix products against splines, votes against a pass per label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmark_rows.row import Finding, Row, Settings, Variant

TOLERANCE = 1e-5
"""Of the data range."""
IDENTICAL = 0.9999


def make_image(folder: Path, settings: Settings) -> None:
    """Write ``image.npy``, (1, *S) float32: smooth structure, noise and an offset, like a CT."""
    rng = np.random.default_rng(settings.get("seed", 0))
    shape = tuple(settings["before"])
    coarse = rng.normal(size=[max(2, edge // 12) for edge in shape])
    smooth = ndimage.zoom(coarse, [edge / small for edge, small in zip(shape, coarse.shape, strict=True)], order=1)
    image = 400 * smooth[tuple(slice(edge) for edge in shape)] + rng.normal(scale=30, size=shape)
    image = image + settings.get("offset", -300)
    np.save(folder / "image.npy", image[None].astype(np.float32))


def make_codes(folder: Path, settings: Settings) -> None:
    """Write ``codes.npy``, (*S) uint8 with ``labels`` codes: smooth organs, or the crumbs of a thresholded noise.

    With ``file`` it is the label map of that file.
    """
    if "file" in settings:
        np.save(folder / "codes.npy", _compact(settings["file"]))
        return
    rng = np.random.default_rng(settings.get("seed", 0))
    shape = tuple(settings["before"])
    codes = np.zeros(shape, dtype=np.uint8)
    if settings.get("kind") == "crumbs":
        noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
        edges = np.quantile(noise, np.linspace(0, 1, settings["labels"] + 1)[1:-1])
        codes = np.digitize(noise, edges).astype(np.uint8)
    else:
        grid = np.ogrid[tuple(slice(edge) for edge in shape)]
        for label in range(1, settings["labels"]):
            centre = [rng.uniform(0.2, 0.8) * edge for edge in shape]
            radius = [rng.uniform(0.06, 0.2) * edge for edge in shape]
            distance = sum(((axis - middle) / r) ** 2 for axis, middle, r in zip(grid, centre, radius, strict=True))
            codes[np.asarray(distance) < 1] = label
    np.save(folder / "codes.npy", codes)


def _compact(path: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the label map of a NIfTI file with its values renumbered from 0."""
    import nibabel

    values = np.asarray(nibabel.load(path).dataobj).T.astype(np.int64)  # type: ignore[attr-defined]
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.uint8)


def check_image(folder: Path, settings: Settings) -> Finding:
    """Largest difference, in shares of the data range."""
    image, ours, theirs = (np.load(folder / f"{name}.npy") for name in ("image", "ours", "theirs"))
    error = float(np.abs(ours - theirs).max() / (image.max() - image.min()))
    return Finding(f"largest difference {error:.1e} of the range", ours.shape == theirs.shape and error < TOLERANCE)


def check_codes(folder: Path, settings: Settings) -> Finding:
    """Share of identical voxels."""
    ours, theirs = np.load(folder / "ours.npy"), np.load(folder / "theirs.npy")
    same = float((ours == theirs).mean())
    return Finding(f"{100 * same:.4f} % identical", ours.shape == theirs.shape and same >= IDENTICAL)


CT_UP = {"before": [200, 267, 246], "after": [284, 288, 265]}
CUBE = {"before": [150, 150, 150], "after": [180, 170, 160]}
FRAGMENTED = {"labels": 3, "kind": "crumbs", "repeats": 4}  # milliseconds each
CRUMBS = {"before": [90] * 3, "after": [110] * 3, **FRAGMENTED}
EXAMPLE = {"file": "totalseg_examples/example_seg.nii.gz"}

IMAGE = Row(
    title="order-3 image resampling, beside skimage.transform.resize",
    variants=(
        Variant("150^3 to 180x170x160", CUBE, floor=11),
        Variant("200x267x246 to 284x288x265", CT_UP, floor=14),
        Variant("150^3 to 180x170x160, offset 1e4", {**CUBE, "offset": 1e4}, floor=11),
        Variant("2-D, 1200x1000 to 1500x1300", {"before": [1200, 1000], "after": [1500, 1300]}),
    ),
    make=make_image,
    ours="resampling_ours:image",
    theirs="resampling_theirs:image_skimage",
    is_foreign=False,
    check=check_image,
    limit="one product of a band matrix with the volume per axis: 2 x 24 multiplications per voxel and axis",
    rounds=2,
)
ANISOTROPIC = Row(
    title="anisotropic image resampling, beside nnU-Net's separate-axis path",
    variants=(
        Variant("40x300x300 to 60x360x360", {"before": [40, 300, 300], "after": [60, 360, 360], "axis": 0}, floor=20),
        Variant("150x150x150 to 180x170x160, axis 0", {**CUBE, "axis": 0}, floor=9),
    ),
    make=make_image,
    ours="resampling_ours:image",
    theirs="resampling_theirs:image_separate",
    check=check_image,
    limit="as above, on two axes, of the chosen slices only",
    rounds=2,
)
CODES = Row(
    title="label resampling, beside batchgenerators' pass per label (as nnU-Net calls it)",
    variants=(
        Variant("4 smooth organs, CT size", {**CT_UP, "labels": 5}, floor=30),
        Variant("21 smooth organs, CT size", {**CT_UP, "labels": 22}, floor=100),
        Variant("example segmentation, 3 to 1.5 mm", {**EXAMPLE, "after": [60, 202, 244]}, floor=25),
    ),
    make=make_codes,
    ours="resampling_ours:codes",
    theirs="resampling_theirs:codes",
    is_foreign=False,
    check=check_codes,
    limit="one read of the map, one write; a vote of 8 voxels where they differ",
    rounds=2,
)
FRAGMENTS = Row(
    title="resampling of small fragmented label maps, beside the same pass per label",
    variants=(
        Variant("crumbs of 2 classes, 90^3", {**CRUMBS, "labels": 2}, floor=6),
        Variant("crumbs of 3 classes, 90^3", {**CRUMBS, "labels": 3}, floor=6),
        Variant("crumbs of 3 classes, 90^3 to 60^3", {**CRUMBS, "labels": 3, "after": [60] * 3}, floor=6),
        Variant("crumbs of 8 classes, 90^3", {**CRUMBS, "labels": 8}, floor=6),
        Variant("crumbs of 3 classes, 2-D", {"before": [500] * 2, "after": [700] * 2, **FRAGMENTED}, floor=6),
    ),
    make=make_codes,
    ours="resampling_ours:codes",
    theirs="resampling_theirs:codes",
    is_foreign=False,
    check=check_codes,
    limit="one linear interpolation in float32 per label but the last; only near ties are counted exactly",
    rounds=3,
)
