"""Recipes: which augmentations a training run applies, in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch import Generator, Tensor, contiguous_format

from autoseg.augmentation.blur import Blur
from autoseg.augmentation.brightness import Brightness
from autoseg.augmentation.contrast import Contrast
from autoseg.augmentation.gamma import Gamma
from autoseg.augmentation.low_resolution import LowResolution
from autoseg.augmentation.mirror import Mirror
from autoseg.augmentation.noise import Noise
from autoseg.augmentation.rotate import Rotate
from autoseg.augmentation.scale import Scale
from autoseg.augmentation.warp import Warp, identity
from autoseg.core.components import resolve
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Configuration

ANISOTROPY_IN_PLANE = 3
"""Patches whose longest edge is more than this many times the first axis are rotated and scaled in the plane only."""
ELONGATED_2D = 1.5
"""2-D patches longer than this ratio are rotated only a little, or much of them would come from outside."""


@runtime_checkable
class Geometric(Protocol):
    """An operation that moves voxels: it adds to the warp of a sample before the sample is read."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before`` with what this operation draws for a patch of 2 or 3 axes."""


@runtime_checkable
class Intensity(Protocol):
    """An operation that changes the images of a whole batch in place, on any device."""

    def change_(self, images: Tensor, generator: Generator) -> None:
        """Change images (B, C, *P) float32; draws come from ``generator``, which is on the CPU."""


Operation: TypeAlias = Geometric | Intensity


@dataclass(frozen=True, slots=True)
class Recipe:
    """The operations of a run, in their order: first all that move voxels, then all that change intensities."""

    operations: tuple[Operation, ...]
    masked_channels: tuple[int, ...] = ()
    """Channels normalised over their non-zero part: where they are 0 they stay 0."""

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Patch axes that may be flipped, ascending: prediction averages over the same mirrored copies."""
        axes = {axis for operation in self.operations if isinstance(operation, Mirror) for axis in operation.axes}
        return tuple(sorted(axes))

    def without_mirroring(self) -> Recipe:
        """Return the recipe with no axis to be flipped."""
        return replace(
            self,
            operations=tuple(
                operation.model_copy(update={"axes": ()}) if isinstance(operation, Mirror) else operation
                for operation in self.operations
            ),
        )


def draw_warp(recipe: Recipe, patch: Sequence[int], rng: np.random.Generator) -> Warp:
    """Draw the warp of one sample, for a patch of 2 or 3 axes, from all operations that move voxels."""
    warp = identity(len(patch))
    for operation in recipe.operations:
        if isinstance(operation, Geometric):
            warp = operation.warp(warp, patch, rng)
    return warp


def augment_intensity(images: Tensor, recipe: Recipe, generator: Generator) -> Tensor:
    """Return the batch with intensities changed as :func:`augment_intensity_` does; ``images`` stays as it is."""
    changed = images.clone(memory_format=contiguous_format)
    augment_intensity_(changed, recipe, generator)
    return changed


def augment_intensity_(images: Tensor, recipe: Recipe, generator: Generator) -> None:
    """Apply the recipe's intensity operations to a batch in place.

    Parameters
    ----------
    images
        (B, C, *P) float32, contiguous, on any device.
    recipe
        The operations. ``masked_channels`` stay 0 where ``images`` is 0.
    generator
        On the CPU: parameters are the same on every device, and drawing them does not wait for the device.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``nnUNetTrainer.get_training_transforms``. Differs in that "outside" of a masked channel is
    where the image itself is 0, not where the label map says so; and mirroring has happened before.
    """
    outside = [(channel, images[:, channel] == 0) for channel in recipe.masked_channels]
    for operation in recipe.operations:
        if isinstance(operation, Intensity):
            operation.change_(images, generator)
    for channel, mask in outside:
        images[:, channel].masked_fill_(mask, 0)


def nnunet_recipe(configuration: Configuration) -> Recipe:
    """Return nnU-Net's recipe for a configuration: rotation range and axes follow the patch's shape.

    3-D: within +-30 degrees about each axis, or +-180 in the plane when the longest patch edge exceeds 3 times axis 0.
    2-D: +-180 degrees, or +-15 when the patch is longer than 1.5 times its width.
    Source: nnU-Net 2.8.1 ``configure_rotation_dummyDA_mirroring_and_inital_patch_size``, ``get_training_transforms``.
    """
    patch = configuration.patch_size
    if configuration.is_2d:
        in_plane = False
        degrees = 15.0 if max(patch) / min(patch) > ELONGATED_2D else 180.0
    else:
        in_plane = max(patch) / patch[0] > ANISOTROPY_IN_PLANE
        degrees = 180.0 if in_plane else 30.0
    return Recipe(
        operations=(
            Rotate(degrees=degrees, in_plane=in_plane),
            Scale(in_plane=in_plane),
            Mirror(axes=tuple(range(len(patch)))),
            Noise(),
            Blur(),
            Brightness(),
            Contrast(),
            LowResolution(fixed_axes=(0,) if in_plane else ()),
            Gamma(probability=0.1, inverted=True),
            Gamma(),
        ),
        masked_channels=tuple(
            channel for channel, is_masked in enumerate(configuration.use_mask_for_norm) if is_masked
        ),
    )


def no_augmentation(configuration: Configuration | None = None) -> Recipe:
    """Return the recipe without an operation."""
    return Recipe(())


RECIPES: dict[str, Callable[[Configuration], Recipe]] = {"nnunet": nnunet_recipe, "none": no_augmentation}
"""Built-in recipes by the name in the run's configuration."""


def named_recipe(name: str, configuration: Configuration) -> Recipe:
    """Return the recipe ``name`` for a configuration: built in, an entry point, or ``package.module:attribute``.

    Raises ``ConfigError`` if there is no such recipe, or if what is named makes none.
    """
    recipe = resolve("augmentation", name, RECIPES)(configuration)
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"augmentation {name!r}: found {type(recipe).__name__}, expected a function that returns an autoseg."
            "augmentation.recipes.Recipe. See docs/extending.md for an example."
        )
    return recipe
