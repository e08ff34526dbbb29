"""A task with one output more than there are classes: the last class has two, by the parity of a voxel's first axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.dataset.labels import Labels
from autoseg.tasks.dice import dice_per_head
from autoseg.tasks.semantic import Semantic

EVEN, ODD = 1, 2


class Parity:
    """Even voxels of the last class are the class's own output, odd ones the further output."""

    def __init__(self, n_classes: int) -> None:
        even = np.eye(n_classes, n_classes + 1, dtype=bool)
        odd = even.copy()
        odd[-1] = np.arange(n_classes + 1) == n_classes
        self.sets = np.stack([even | odd, even, odd])

    def rules(self, codes: Tensor, label_sets: Tensor, objects: Tensor | None = None) -> Tensor:
        is_single = (label_sets.sum(2) == 1).gather(1, codes.flatten(1).long()).view(codes.shape)
        parity = torch.arange(codes.shape[1]).view(1, -1, *(1,) * (codes.ndim - 2)) % 2
        return torch.where(is_single, EVEN + parity, 0)


class Split:
    """Semantic segmentation of the same labels, one output wider."""

    is_exclusive = True
    regions = None

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.outputs = (*Semantic(labels).outputs, "odd")
        self.refinement = Parity(labels.n_classes)

    def scores(self, logits: Tensor) -> Tensor:
        return torch.cat([logits[:, :-2], torch.logaddexp(logits[:, -2:-1], logits[:, -1:])], 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        return self.scores(logits).softmax(1)

    def score(self, counts: Tensor) -> list[float | None]:
        return dice_per_head(counts)

    def decode(self, logits: np.ndarray) -> np.ndarray:
        return self.labels.decode(self.scores(torch.from_numpy(logits)[None])[0].numpy())

    def finish(self, label_map: Any) -> Any:
        return label_map


class Finished(Semantic):
    """A task with a last word: the value 1 becomes 0 on the first plane of a case."""

    def finish(self, label_map: Any) -> Any:
        changed = label_map.copy()
        changed[0][changed[0] == 1] = 0
        return changed


def split_logits(logits: np.ndarray, share: float = 0.25) -> np.ndarray:
    """Return (K + 1, *S) logits of ``Split`` with the probabilities of (K, *S), the last class divided by ``share``."""
    last = logits[-1:]
    return np.concatenate([logits[:-1], last + np.log(share), last + np.log(1 - share)]).astype(np.float32)
