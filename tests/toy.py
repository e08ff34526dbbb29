"""A toy data set for tests that need whole files: two blobs in noise, sparse or dense, 2-D or 3-D."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from autoseg.core.geometry import Geometry
from autoseg.io.images import write_labels

IGNORE = 3


def write_toy_dataset(
    folder: Path, *, n_cases: int = 5, shape: tuple[int, int, int] = (12, 20, 18), sparse: bool = True, seed: int = 0
) -> Path:
    """Write imagesTr, labelsTr (every third slice, else ignore), labelsTr_dense and dataset.json; return the folder.

    A shape with one slice gives 2-D PNG files. Intensities tell the classes apart, so that a few steps suffice.
    """
    is_2d = shape[0] == 1
    ending = ".png" if is_2d else ".nii.gz"
    geometry = Geometry(spacing=(999.0, 1.0, 1.0) if is_2d else (2.0, 1.0, 1.0), ndim=2 if is_2d else 3)
    for kind in ("imagesTr", "labelsTr", "labelsTr_dense"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for index in range(n_cases):
        image, truth = toy_case(shape, seed * 1000 + index)
        labels = truth.copy()
        if sparse and is_2d:
            labels[:, ::3] = IGNORE
        elif sparse:
            labels[np.arange(shape[0]) % 3 != index % 3] = IGNORE
        name = f"toy_{index:03d}"
        write_labels(folder / "imagesTr" / f"{name}_0000{ending}", image, geometry)
        write_labels(folder / "labelsTr" / f"{name}{ending}", labels, geometry)
        write_labels(folder / "labelsTr_dense" / f"{name}{ending}", truth, geometry)
    labels_section = {"background": 0, "bright": 1, "brighter": 2} | ({"ignore": IGNORE} if sparse else {})
    content = {
        "channel_names": {"0": "MR"},
        "labels": labels_section,
        "numTraining": n_cases,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def toy_case(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (z, y, x) uint8 and its dense labels: two balls of radius about a fifth of the volume."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(edge, dtype=float) for edge in shape), indexing="ij"))
    extent = np.array(shape, dtype=float).reshape(3, 1, 1, 1)
    truth = np.zeros(shape, dtype=np.uint8)
    for label, centre in ((1, 0.3), (2, 0.7)):
        middle = extent * (centre + rng.uniform(-0.05, 0.05, (3, 1, 1, 1)))
        if shape[0] == 1:
            middle[0] = 0
        radius = np.maximum(extent * 0.22, 1)
        truth[(((grid - middle) / radius) ** 2).sum(0) < 1] = label
    image = 60 + 70.0 * truth + rng.normal(0, 12, shape)
    return np.clip(np.rint(image), 1, 255).astype(np.uint8), truth


def as_mhd(folder: Path, *, compress: bool) -> None:
    """Rewrite the volumes of a data set as headers beside their data (``.mhd`` with ``.raw`` or ``.zraw``)."""
    import SimpleITK as sitk  # noqa: N813 (large, and other tests do without)

    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    ending = content["file_ending"]
    for path in sorted(folder.rglob(f"*{ending}")):
        target = path.with_name(path.name.removesuffix(ending) + ".mhd")
        sitk.WriteImage(sitk.ReadImage(str(path)), str(target), compress)
        path.unlink()
    (folder / "dataset.json").write_text(json.dumps(content | {"file_ending": ".mhd"}), encoding="utf-8")
