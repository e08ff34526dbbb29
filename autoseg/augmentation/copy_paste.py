"""Copy and paste: the foreground of a patch once more, turned, beside itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from autoseg.augmentation.draws import Probability, Switchable, draw_samples
from autoseg.augmentation.move_nearest import move_nearest
from autoseg.augmentation.patches import Patches
from autoseg.augmentation.sections import plane_rotation
from autoseg.augmentation.warp import Warp, embedded, move_image

ANGLES = tuple(math.radians(degrees) for degrees in range(0, 360, 30))
"""Rotations that are tried."""
SURROUNDINGS = 3
"""Width, in voxels, of the surroundings of the original that are not pasted over."""
COARSE_EDGE = 64
"""Edge of the plane, in voxels, on which rotations are compared."""


class CopyPaste(Switchable):
    """Paste the foreground of a patch, rotated in the plane by steps of 30 degrees and also reflected in z.

    Of all these, the one is taken that overlaps the original least, then the one nearest to it. Image, codes and
    further layers move together; nothing is pasted on the original and the voxels around it. Only voxels that are
    certainly foreground are copied, so nothing unknown is, and all other voxels stay as they are, known or not. Pasted
    objects have numbers of their own: the copy of an object is another one.
    Source: PyTorch Connectomics ``CopyPaste``. Differs: labels move with the image, where they stay there; rotations
    are compared on a coarser grid.
    """

    enabled: bool = False
    """Whether the recipe em has the operation."""
    probability: Probability = 0.8
    """Probability of a sample."""
    aug_thres: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Largest share of foreground of a patch that is changed."""

    def change_patches_(self, patches: Patches, generators: Sequence[Generator]) -> None:
        """Change images, codes and layers of ``patches`` in place. On a GPU this waits for the device."""
        for sample, _ in draw_samples(self.probability, generators):
            foreground = patches.foreground[sample]
            if not 0 < float(foreground.float().mean()) <= self.aug_thres:
                continue
            warp = best_turn(foreground)
            centre = [(edge - 1) / 2 for edge in foreground.shape]
            whole = warp, centre, tuple(foreground.shape)
            pasted = move_nearest(foreground.to(torch.uint8), *whole, outside=0).bool()
            pasted &= ~dilated(foreground, SURROUNDINGS)
            image = patches.images[sample]
            image.copy_(torch.where(pasted, move_image(image, *whole), image))
            for layer in (patches.codes[sample], *(layer[sample] for layer in patches.layers.values())):
                channels = layer.view(-1, *foreground.shape)
                for channel in channels:
                    channel.copy_(torch.where(pasted, move_nearest(channel, *whole, outside=0), channel))
            if patches.objects is not None:
                numbers = patches.objects[sample]
                numbers.copy_(_with_pasted(numbers, pasted, move_nearest(numbers, *whole, outside=0)))


def _with_pasted(numbers: Tensor, pasted: Tensor, moved: Tensor) -> Tensor:
    """Return numbers of objects (*P) with those of ``moved`` where ``pasted`` is True, each as another object.

    Objects are numbered 1 to n, pasted ones n + 1 to 2 n; numbers up to 0, which are no objects, stay.
    """
    known: Tensor = torch.unique(numbers[numbers > 0])
    first, later = (
        torch.where(part > 0, torch.searchsorted(known, part.contiguous()) + start, part)
        for part, start in ((numbers, 1), (moved, len(known) + 1))
    )
    return torch.where(pasted, later, first)


def best_turn(foreground: Tensor) -> Warp:
    """Return the rotation and reflection of ``foreground`` (*P) bool that overlaps it least, of several the nearest."""
    step = max(1, min(foreground.shape[-2:]) // COARSE_EDGE)
    coarse = foreground[..., ::step, ::step].to(torch.uint8)
    if not coarse.any():  # thin things fall between the voxels of the coarse grid
        coarse = foreground.to(torch.uint8)
    centre = [(edge - 1) / 2 for edge in coarse.shape]
    middle = _middle(coarse)

    def badness(warp: Warp) -> tuple[bool, float, float]:
        moved = move_nearest(coarse, warp, centre, tuple(coarse.shape), outside=0)
        is_outside = not bool(moved.any())
        distance = math.inf if is_outside else float((_middle(moved) - middle).norm())
        return is_outside, float((moved & coarse).sum()), distance

    return min(_turns(foreground.ndim), key=badness)


def dilated(mask: Tensor, iterations: int) -> Tensor:
    """Return ``mask`` (*P) bool, grown by so many voxels, counted in steps along axes."""
    for _ in range(iterations):
        grown = mask.clone()
        for axis, edge in enumerate(mask.shape):
            grown.narrow(axis, 1, edge - 1).logical_or_(mask.narrow(axis, 0, edge - 1))
            grown.narrow(axis, 0, edge - 1).logical_or_(mask.narrow(axis, 1, edge - 1))
        mask = grown
    return mask


def _turns(n_axes: int) -> Iterator[Warp]:
    """Yield all warps that are tried, but for the identity."""
    for reflects in (False, True)[: n_axes - 1]:
        for angle in ANGLES:
            if angle or reflects:
                rotation = embedded(plane_rotation(angle), n_axes)
                yield Warp(tuple(map(tuple, rotation.tolist())), (reflects, *(False,) * (n_axes - 1)))


def _middle(mask: Tensor) -> Tensor:
    """Return (n,): mean position of the voxels of ``mask`` (*P) that are not 0; at least one is."""
    return mask.nonzero().double().mean(0)
