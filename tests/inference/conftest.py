"""A model whose prediction is known exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_models import make_checkpoint
from torch import nn

from autoseg.inference import Predictor
from autoseg.nn.checkpoint import save_checkpoint

THRESHOLD = 100.0


class Threshold(nn.Module):
    """Predicts class 1 exactly where the first channel is above THRESHOLD."""

    def forward(self, images):
        foreground = images[:, :1] - THRESHOLD
        return torch.cat((-foreground, foreground), dim=1)


@pytest.fixture
def threshold_predictor(tmp_path):
    """Return a maker of predictors that are right by construction: label 1 where the image is above 100."""

    def make(**options):
        folder = tmp_path / "threshold_model"
        save_checkpoint(folder / "fold_0" / "checkpoint_final.pt", make_checkpoint(**options))
        loaded = Predictor.load(folder, device="cpu")
        return replace(loaded, model=replace(loaded.model, networks=(Threshold(),)), autocast_dtype=None)

    return make
