"""Dice while training: counted on annotated voxels of validation patches, and unharmed by epochs that decide nothing.

It is no estimate of the Dice on dense references: what is predicted where nobody annotated does not enter it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.dataset.painting import Painting

EMA_DECAY = 0.9
"""Weight of the past in the smoothed Dice. Source: nnU-Net ``nnunet_logger.py``."""


def count_heads(
    logits: Tensor, codes: Tensor, label_sets: Tensor, regions: Tensor | None, painting: Painting | None = None
) -> Tensor:
    """Count true positives, false positives and false negatives per head on decided voxels.

    Parameters
    ----------
    logits
        (B, H, *P).
    codes
        (B, *P) integers.
    label_sets
        (B, N, K) bool.
    regions
        (R, K) bool, or None for a softmax over classes.
    painting
        How regions become one class per voxel, where that can lose a region that is predicted: then a region counts
        as predicted where the class is in it that a label map shows.

    Returns
    -------
    Tensor
        (3, H) int64. All 0 for a head without a decided voxel.
    """
    heads = torch.eye(label_sets.shape[2], dtype=torch.bool, device=logits.device) if regions is None else regions
    overlap = label_sets.float() @ heads.float().T  # (B, N, H)
    positive = overlap == label_sets.float().sum(2, keepdim=True)
    negative = overlap == 0
    winner = logits.argmax(1) if regions is None else None
    shown = None if painting is None else painted_classes(logits, painting)
    index = codes.flatten(1).long()
    counts = []
    for head in range(heads.shape[0]):
        if shown is not None:
            predicted = heads[head][shown].flatten(1)
        else:
            predicted = (logits[:, head] > 0 if winner is None else winner == head).flatten(1)
        is_positive = positive[:, :, head].gather(1, index)
        is_negative = negative[:, :, head].gather(1, index)
        counts.append(
            torch.stack(
                [(predicted & is_positive).sum(), (predicted & is_negative).sum(), (~predicted & is_positive).sum()]
            )
        )
    return torch.stack(counts, 1)


def painted_classes(logits: Tensor, painting: Painting) -> Tensor:
    """Return the class (B, *P) int64 that a label map shows for logits (B, H, *P); see ``dataset.painting.paint``."""
    tables, classes = painting.steps
    painted = torch.zeros_like(logits[:, 0], dtype=torch.long)
    states = torch.ones_like(painted)
    for head, (painted_class, table) in enumerate(zip(painting.order, tables, strict=True)):
        predicted = logits[:, head] > 0
        painted[predicted] = painted_class
        states = torch.from_numpy(table).to(logits.device).long()[2 * states + predicted]
    return torch.where(states > 0, torch.from_numpy(classes).to(logits.device)[states], painted)


def smooth(past: float | None, value: float | None) -> float | None:
    """Exponential mean. An epoch without a value leaves it as it is (nnU-Net's becomes NaN for ever)."""
    if value is None:
        return past
    return value if past is None else EMA_DECAY * past + (1 - EMA_DECAY) * value
