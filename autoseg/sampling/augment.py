"""Augmentation of a batch whose patches have been cut out: intensities, then what changes labels or mixes samples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from autoseg.augmentation.patches import Patches
from autoseg.augmentation.recipes import Joint, Recipe, augment_intensity_, augment_together_
from autoseg.cases.layers import OBJECTS
from autoseg.sampling.batch import Batch


def augment_batch_(batch: Batch, recipe: Recipe, generators: Sequence[Generator]) -> None:
    """Apply the operations of ``recipe`` that do not move voxels to a batch, in place.

    Parameters
    ----------
    batch
        With contiguous tensors, on any device.
    recipe
        The operations.
    generators
        (B,), on the CPU: one for each sample.
    """
    augment_intensity_(batch.images, recipe, generators)
    if any(isinstance(operation, Joint) for operation in recipe.operations):
        layers = {name: layer for name, layer in batch.layers.items() if name != OBJECTS}
        objects = batch.layers.get(OBJECTS)
        patches = Patches(batch.images, batch.codes, certain_foreground(batch), layers, objects)
        augment_together_(patches, recipe, generators)


def certain_foreground(batch: Batch) -> Tensor:
    """Return (B, *P) bool: annotated voxels that cannot be background (class 0)."""
    drawn = batch.table.drawn
    is_foreground = drawn.any(2) & ~drawn[..., 0]  # (B, N)
    flat = batch.codes.flatten(1).long()
    return is_foreground.gather(1, flat).view(batch.codes.shape)
