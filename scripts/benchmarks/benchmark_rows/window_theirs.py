"""nnU-Net's side of the sliding window: its predictor, from preprocessed data to logits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmark_rows.pointwise import AllButNetworks, folds


def logits(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Predict ``image.npy`` with ``nnUNetPredictor.predict_logits_from_preprocessed_data``."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ.setdefault(name, str(folder))
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(settings.get("threads", 1))
    image, patch = torch.from_numpy(np.load(folder / "image.npy")), settings["patch"]
    networks = folds(settings["folds"], settings["heads"])
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.network = networks[0]
    predictor.list_of_parameters = [
        {key: value.clone() for key, value in item.state_dict().items()} for item in networks
    ]
    predictor.allowed_mirroring_axes = tuple(range(len(patch)))
    predictor.configuration_manager = SimpleNamespace(patch_size=tuple(patch))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=settings["heads"])
    return AllButNetworks(lambda: predictor.predict_logits_from_preprocessed_data(image).numpy(), networks)
