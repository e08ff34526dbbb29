"""Losses on label sets. See :mod:`autoseg.nn.losses.label_sets`."""

from autoseg.nn.losses.label_sets import (
    AllReduce,
    LabelSetLoss,
    VoxelLoss,
    label_set_bce,
    label_set_cross_entropy,
    label_set_dice,
)

__all__ = ["AllReduce", "LabelSetLoss", "VoxelLoss", "label_set_bce", "label_set_cross_entropy", "label_set_dice"]
