"""Our side of the sliding window."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.core.plan import Configuration, Topology
from autoseg.inference.window import predict_logits
from benchmark_rows.pointwise import AllButNetworks, folds


def configuration(patch: list[int]) -> Configuration:
    """Return a configuration of which the sliding window uses the patch alone."""
    ones = (1,) * len(patch)
    topology = Topology(
        kind="plain", features=(1,), strides=(ones,), kernels=(ones,), encoder_blocks=(1,), decoder_blocks=()
    )
    return Configuration(
        name="2d" if len(patch) == 2 else "3d_fullres",
        spacing=tuple(map(float, ones)),
        patch_size=tuple(patch),
        batch_size=2,
        median_shape=tuple(map(float, patch)),
        normalization=("none",),
        use_mask_for_norm=(False,),
        topology=topology,
        batch_dice=False,
    )


def logits(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Predict ``image.npy``."""
    torch.set_num_threads(settings.get("threads", 1))
    image, patch = np.load(folder / "image.npy"), settings["patch"]
    networks = folds(settings["folds"], settings["heads"])
    axes = tuple(range(len(patch)))
    return AllButNetworks(lambda: predict_logits(networks, image, configuration(patch), mirror_axes=axes), networks)
