"""Recipes: the augmentation operations of a training run, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from torch import Generator, Tensor, contiguous_format

from autoseg.augmentation.blur import Blur
from autoseg.augmentation.brightness import Brightness
from autoseg.augmentation.contrast import Contrast
from autoseg.augmentation.em import DEFAULT_EM, EmOperations
from autoseg.augmentation.flip import Flip
from autoseg.augmentation.gamma import Gamma
from autoseg.augmentation.low_resolution import LowResolution
from autoseg.augmentation.mirror import Mirror
from autoseg.augmentation.noise import Noise
from autoseg.augmentation.patches import Patches
from autoseg.augmentation.rotate import Rotate
from autoseg.augmentation.scale import Scale
from autoseg.augmentation.warp import Warp, identity
from autoseg.core.components import call_component, is_own, resolve
from autoseg.core.errors import ConfigError
from autoseg.core.plan import Configuration

ANISOTROPY_IN_PLANE = 3
"""Ratio of the longest edge to axis 0 above which a 3-D patch is rotated and scaled in the plane only."""
ELONGATED_2D = 1.5
"""Ratio of the edges above which a 2-D patch is rotated by small angles only. Otherwise large parts of it would come
from outside the image."""


@runtime_checkable
class Geometric(Protocol):
    """An operation that moves voxels: it extends the warp of a sample before the sample is read."""

    def warp(self, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
        """Return ``before``, extended by the randomly drawn warp of this operation, for a patch of 2 or 3 axes."""


@runtime_checkable
class Intensity(Protocol):
    """An operation that changes the images of a whole batch in place, on any device."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place. All that is random in a sample comes from its own generator.

        ``generators`` (B,) are on the CPU.
        """


@runtime_checkable
class Joint(Protocol):
    """An operation that changes labels or mixes samples: it changes whole batches in place, on any device."""

    def change_patches_(self, patches: Patches, generators: Sequence[Generator]) -> None:
        """Change patches in place; ``generators`` (B,) are on the CPU, one for each sample."""


Operation: TypeAlias = Geometric | Intensity | Joint


@dataclass(frozen=True, slots=True)
class Recipe:
    """Operations of a run, in their order: first those that move voxels, then those that change intensities.

    Those that change whole batches come last.
    """

    operations: tuple[Operation, ...]
    masked_channels: tuple[int, ...] = ()
    """Channels normalised over their non-zero part. Their voxels with value 0 stay 0."""

    def __post_init__(self) -> None:
        """Raise ``ConfigError`` for an operation that would be ignored."""
        for operation in self.operations:
            if isinstance(operation, type):
                raise ConfigError(
                    f"operation {_name_of(operation)!r}: found a class, expected an object. Write "
                    f"{operation.__name__}()."
                )
            if not isinstance(operation, (Geometric, Intensity, Joint)):
                raise ConfigError(
                    f"operation {_name_of(type(operation))!r}: found neither warp nor change_ nor change_patches_, "
                    "expected one of them, without which an operation does nothing. docs/extending.md has examples."
                )

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Patch axes that may be flipped, ascending. Prediction averages over the same mirrored copies."""
        mirroring = [operation for operation in self.operations if isinstance(operation, (Mirror, Flip))]
        return tuple(sorted({axis for operation in mirroring for axis in operation.axes}))

    def without_mirroring(self) -> Recipe:
        """Return the recipe without flips, and without transpositions, which mirror as well."""
        still: dict[type, dict[str, Any]] = {
            Mirror: {"axes": ()},
            Flip: {"axes": (), "transpose": False, "z_transpose": False},
        }
        return replace(
            self,
            operations=tuple(
                operation.model_copy(update=still[type(operation)])
                if isinstance(operation, (Mirror, Flip))
                else operation
                for operation in self.operations
            ),
        )


def draw_warp(recipe: Recipe, patch: Sequence[int], rng: np.random.Generator, *, before: Warp | None = None) -> Warp:
    """Return the random warp of one sample, for a patch of 2 or 3 axes, drawn by all operations that move voxels.

    They extend ``before``; None is the warp that moves nothing.
    """
    warp = identity(len(patch)) if before is None else before
    for operation in recipe.operations:
        if isinstance(operation, Geometric):
            warp = _extended(operation, warp, patch, rng)
    return warp


def _name_of(kind: type) -> str:
    """Return ``package.module:Class``."""
    return f"{kind.__module__}:{kind.__qualname__}"


def _extended(operation: Geometric, before: Warp, patch: Sequence[int], rng: np.random.Generator) -> Warp:
    """Return ``before``, extended by ``operation``; raise ``ConfigError`` if a user's returns anything else."""
    if is_own(operation):
        return operation.warp(before, patch, rng)
    name = _name_of(type(operation))
    warp = call_component("operation", name, operation.warp, before, patch, rng)
    if not isinstance(warp, Warp):
        raise ConfigError(
            f"operation {name!r}: warp returned an object of {type(warp).__name__}, expected an autoseg.augmentation."
            "warp.Warp. Return before.displaced(...), before.after(...), or before itself."
        )
    expected = (len(patch), *patch)
    if warp.displacement is not None and warp.displacement.shape not in (expected, (2, *patch[-2:])):
        raise ConfigError(
            f"operation {name!r}: warp returned a displacement of shape {warp.displacement.shape}, expected "
            f"{expected}: one vector (axis, *patch) for each voxel of the patch. Correct the operation."
        )
    return warp


def augment_intensity(images: Tensor, recipe: Recipe, generators: Sequence[Generator]) -> Tensor:
    """Return a copy of ``images`` (B, C, *P), changed as by :func:`augment_intensity_`."""
    changed = images.clone(memory_format=contiguous_format)
    augment_intensity_(changed, recipe, generators)
    return changed


def augment_intensity_(images: Tensor, recipe: Recipe, generators: Sequence[Generator]) -> None:
    """Apply the recipe's intensity operations to a batch in place.

    Parameters
    ----------
    images
        (B, C, *P) float32, contiguous, on any device.
    recipe
        The operations. In ``masked_channels``, voxels with value 0 stay 0.
    generators
        One per sample, on the CPU. A sample therefore changes alike whatever lies beside it in the batch, parameters
        are the same on every device, and drawing them needs no synchronisation.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``nnUNetTrainer.get_training_transforms``. Differs: the zero part of a masked channel is taken
    from the image, not from the label map; and mirroring is done before.
    """
    zeros = [(channel, images[:, channel] == 0) for channel in recipe.masked_channels]
    for operation in recipe.operations:
        if isinstance(operation, Intensity):
            _change_(operation, images, generators)
    for channel, mask in zeros:
        images[:, channel].masked_fill_(mask, 0)


def _change_(operation: Intensity, images: Tensor, generators: Sequence[Generator]) -> None:
    """Let ``operation`` change images (B, C, *P); raise ``ConfigError`` if a user's returns others instead."""
    if is_own(operation):
        operation.change_(images, generators)
        return
    name, shape = _name_of(type(operation)), images.shape
    result: Any = call_component("operation", name, operation.change_, images, generators)
    if result is not None or images.shape != shape:
        found = f"returned an object of {type(result).__name__}" if result is not None else "changed their shape"
        raise ConfigError(
            f"operation {name!r}: change_ {found}, expected the images (B, C, *P) to be changed in place and None "
            "to be returned. Write for example images.mul_(2), not return images * 2."
        )


def augment_together_(patches: Patches, recipe: Recipe, generators: Sequence[Generator]) -> None:
    """Apply those of the recipe's operations to a batch in place that mix samples or change labels."""
    for operation in recipe.operations:
        if is_own(operation) and isinstance(operation, Joint):
            operation.change_patches_(patches, generators)
        elif isinstance(operation, Joint):
            name = _name_of(type(operation))
            result: Any = call_component("operation", name, operation.change_patches_, patches, generators)
            if result is not None:
                raise ConfigError(
                    f"operation {name!r}: change_patches_ returned an object of {type(result).__name__}, expected the "
                    "tensors of the patches to be changed in place and None to be returned."
                )


def nnunet_recipe(configuration: Configuration) -> Recipe:
    """Return nnU-Net's recipe for a configuration. Range and axes of rotations depend on the shape of the patch.

    3-D: +-30 degrees about each axis, or +-180 in the plane if the longest patch edge exceeds 3 times axis 0.
    2-D: +-180 degrees, or +-15 if the longer patch edge exceeds 1.5 times the shorter one.
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
        masked_channels=_masked_channels(configuration),
    )


def _masked_channels(configuration: Configuration) -> tuple[int, ...]:
    """Return the channels that are normalised over their non-zero part."""
    return tuple(channel for channel, is_masked in enumerate(configuration.use_mask_for_norm) if is_masked)


def em_recipe(configuration: Configuration, settings: EmOperations = DEFAULT_EM) -> Recipe:
    """Return the recipe for electron microscopy: the operations of ``settings`` that are enabled.

    Sections are the slices of axis 0. 2-D patches have no missing and no misaligned sections.
    Source: PyTorch Connectomics ``build_train_augmentor``; docs/em.md lists where we differ.

    Raises
    ------
    ConfigError
        If ``flip.z_transpose`` is asked for and the patch is not a cube along its first and last axis.
    """
    patch = configuration.patch_size
    if settings.flip.enabled and settings.flip.z_transpose and (len(patch) < 3 or patch[0] != patch[-1]):
        raise ConfigError(
            f"augmentation.flip.z_transpose: the patch has {' x '.join(map(str, patch))} voxels, expected 3 axes and "
            "as many voxels along z as along x. Leave it out, or set patch_size when planning."
        )
    return Recipe(
        settings.enabled_operations(len(patch)),
        masked_channels=_masked_channels(configuration),
    )


def no_augmentation(configuration: Configuration | None = None) -> Recipe:
    """Return the recipe without operations."""
    return Recipe(())


RECIPES: dict[str, Callable[[Configuration], Recipe]] = {
    "nnunet": nnunet_recipe,
    "em": em_recipe,
    "none": no_augmentation,
}
"""Name in the run's configuration -> built-in recipe."""


def named_recipe(name: str, configuration: Configuration) -> Recipe:
    """Return the recipe ``name`` for a configuration: built in, an entry point, or ``package.module:attribute``.

    Raises ``ConfigError`` if there is no such recipe, or if the named function does not return a recipe.
    """
    recipe = call_component(
        "augmentation", name, resolve("augmentation", name, RECIPES, needs=("__call__",)), configuration
    )
    if not isinstance(recipe, Recipe):
        raise ConfigError(
            f"augmentation {name!r}: found {type(recipe).__name__}, expected a function that returns an autoseg."
            "augmentation.recipes.Recipe. See docs/extending.md for an example."
        )
    return recipe
