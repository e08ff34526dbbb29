"""Stacks of slices, and models of 2-D images that predict each slice by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tiny_models import make_checkpoint
from torch import nn

from autoseg.core.geometry import FLAT_SPACING
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import save_checkpoint

FLAT = (FLAT_SPACING, 1.0, 1.0)
KINDS = {
    "classes": {"labels": {"background": 0, "organ": 1}},
    "regions": {"labels": {"background": 0, "organ": [1, 2], "tumour": 2}, "regions_class_order": [1, 2]},
    "instances": {"task": "instances", "labels": {"background": 0, "cell": 1}, "unlabelled": 65535},
}


def write_model(folder, kind="classes", *, folds=("0", "1"), spacing=(FLAT_SPACING, 1.3, 1.3), **plan_options):
    """Write a model of 2-D images, whose normalisation depends on the image, on another grid than theirs."""
    for fold in folds:
        made = make_checkpoint(fold, n_dims=2, ending=".png", spacing=spacing, **plan_options)
        configuration = made.plan.configurations["2d"].model_copy(
            update={"normalization": ("zscore",), "use_mask_for_norm": (True,)}
        )
        plan = made.plan.model_copy(
            update={"configurations": {"2d": configuration}, "original_median_shape": (1, 16, 16)}
        )
        dataset = {**{key: value for key, value in made.dataset.items() if key != "labels"}, **KINDS[kind]}
        weights = build_network(configuration.topology, 1, 3 if kind == "instances" else 2).state_dict()
        checkpoint = replace(made, plan=plan, dataset=dataset, weights=weights)
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", checkpoint)
    return folder


def stack(n_slices=5):
    """Slices with a border of another width and other grey values each; the second is empty."""
    rng = np.random.default_rng(0)
    values = np.zeros((n_slices, 21, 18), np.uint8)
    for index in range(n_slices):
        inside = rng.integers(1, 60 * (index % 3 + 1), (18 - index, 17 - 2 * index))
        values[index, 1 + index : -2, index : 17 - index] = inside
    values[1] = 0
    return values


class Bright(nn.Module):
    """Predicts the class where the normalised image is above its mean; a third output, of boundaries, nowhere."""

    def __init__(self, n_outputs):
        super().__init__()
        self.n_outputs = n_outputs

    def forward(self, images):
        nowhere = torch.full_like(images, -20.0)
        return torch.cat((-images, images, nowhere), dim=1)[:, : self.n_outputs]
