"""Models that know the affinities of objects exactly, because the numbers of objects are their image."""

from __future__ import annotations

from dataclasses import replace

import torch
from tiny_models import make_checkpoint
from torch import nn

from autoseg import Dataset
from autoseg.inference import Predictor
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.tasks.separation import SeparationSettings

FLAT = ((0, -1, 0), (0, 0, -1), (0, 0, 3), (0, -2, 0))
DEEP = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (2, 0, 0), (0, -2, 0), (0, 0, 3))
MUTEX = SeparationSettings(method="mutex", min_size=0)


class Exact(nn.Module):
    """Gives the exact affinities of the numbers of objects in its image; 0 where there is no pair."""

    def __init__(self, offsets: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__()
        self.offsets = offsets

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        own = images[:, 0]
        outputs = [torch.where(own > 0, 5.0, -5.0)]
        for offset in self.offsets:
            other = torch.full_like(own, -1)
            here, there = [slice(None)], [slice(None)]
            for step, edge in zip(offset[4 - own.ndim :], own.shape[1:], strict=True):
                here.append(slice(max(0, -step), edge - max(0, step)))
                there.append(slice(max(0, step), edge - max(0, -step)))
            other[tuple(here)] = own[tuple(there)]
            outputs.append(torch.where((own == other) & (own > 0), 5.0, -5.0).masked_fill(other < 0, 0))
        return torch.stack(outputs, 1)


def predictor(folder, n_dims, offsets=None, **options):
    """Return a predictor of a model folder whose only network gives exact affinities of the objects in its image."""
    spacing = (999.0, 1.0, 1.0) if n_dims == 2 else (1.0, 1.0, 1.0)
    checkpoint = make_checkpoint(n_dims=n_dims, spacing=spacing, ending=".nii.gz")
    save_checkpoint(folder / "fold_0" / "checkpoint_final.pt", checkpoint)
    chosen = (FLAT if n_dims == 2 else DEEP) if offsets is None else offsets
    affinities = {"affinities": [list(offset) for offset in chosen]} if chosen else {}
    content = {
        **checkpoint.dataset, "task": "instances", "labels": {"background": 0, "cell": 1}, "unlabelled": 65535,
        **affinities,
    }  # fmt: skip
    dataset = Dataset.from_json(content, name="d", folder=None)
    loaded = Predictor.load(folder, device="cpu")
    model = replace(loaded.model, dataset=dataset, networks=(Exact(tuple(chosen)),), **options)
    return replace(loaded, model=model, autocast_dtype=None)
