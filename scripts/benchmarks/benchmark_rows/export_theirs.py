"""nnU-Net's side of the export row."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmark_rows.export import SPACING, file_spacing


def labels(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Convert ``logits.npy`` (in half precision, as its predictor hands them over, near ties would be lost)."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, str(folder))
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    logits = torch.from_numpy(np.load(folder / "logits.npy"))
    resample = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    manager = LabelManager({"background": 0, **{str(value): value for value in range(1, settings["heads"])}}, None)
    shape = tuple(settings["after"])
    properties = {
        "spacing": file_spacing(settings),
        "shape_after_cropping_and_before_resampling": shape,
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, edge] for edge in shape],
    }
    return lambda: convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2]),
        SimpleNamespace(spacing=[SPACING] * 3, resampling_fn_probabilities=resample),
        manager,
        properties,
        num_threads_torch=settings.get("threads", 1),
    )
