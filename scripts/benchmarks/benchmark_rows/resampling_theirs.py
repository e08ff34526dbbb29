"""The other side of the resampling rows: skimage, batchgenerators and nnU-Net's own resampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def image_skimage(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """``skimage.transform.resize`` as nnU-Net calls it."""
    from skimage.transform import resize

    values, shape = np.load(folder / "image.npy"), tuple(settings["after"])
    keywords = {"order": 3, "mode": "edge", "anti_aliasing": False, "clip": True, "preserve_range": True}
    return lambda: resize(values[0], shape, **keywords)[None]


def image_separate(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Resample as nnU-Net's path for one coarse axis does."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    values, shape, axis = np.load(folder / "image.npy"), tuple(settings["after"]), settings["axis"]
    return lambda: resample_data_or_seg(
        values, shape, is_seg=False, axis=axis, order=3, do_separate_z=True, order_z=0, dtype_out=np.float32
    )


def codes(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """``batchgenerators.augmentations.utils.resize_segmentation`` at order 1."""
    from batchgenerators.augmentations.utils import resize_segmentation

    values, shape = np.load(folder / "codes.npy"), tuple(settings["after"])
    repeats = range(settings.get("repeats", 1))
    return lambda: [resize_segmentation(values, shape, order=1) for _ in repeats][-1]
