"""Which augmentations a training run applies, how often and how strongly; a value that a user can set."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Generator, Tensor, contiguous_format

from autoseg.augmentation.intensity import (
    adjust_contrast_,
    adjust_gamma_,
    blur_,
    lower_resolution_,
    multiply_brightness_,
    noise_,
)
from autoseg.core.plan import Configuration

Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]

ANISOTROPY_IN_PLANE = 3
"""Patches whose longest edge is more than this many times the first axis are rotated and scaled in the plane only."""
ELONGATED_2D = 1.5
"""2-D patches longer than this ratio are rotated only a little, or much of them would come from outside."""


class Recipe(BaseModel):
    """Probabilities (per sample unless said) and ranges of every augmentation; the defaults are nnU-Net's for 3-D.

    Source: nnU-Net 2.8.1 ``nnUNetTrainer.get_training_transforms``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation_probability: Probability = 0.2
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Angles are uniform in plus or minus this, one per rotation axis."""
    scaling_probability: Probability = 0.2
    scaling_range: Range = (0.7, 1.4)
    """Source voxels per patch voxel, the same for all axes; above 1 objects get smaller."""
    in_plane: bool = False
    """Rotate and scale within the last two axes only (thick slices)."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    """Patch axes that may be flipped."""
    mirror_probability: Probability = 0.5
    """Per axis."""
    noise_probability: Probability = 0.1
    noise_sigma_range: Range = (0.0, 0.1)
    """One standard deviation for all channels of a sample, in units of the normalised image."""
    blur_probability: Probability = 0.2
    blur_channel_probability: Probability = 0.5
    blur_sigma_range: Range = (0.5, 1.0)
    """Voxels, per channel and axis."""
    brightness_probability: Probability = 0.15
    brightness_range: Range = (0.75, 1.25)
    """Factor per channel: half of the draws below 1, half above."""
    contrast_probability: Probability = 0.15
    contrast_range: Range = (0.75, 1.25)
    """Factor per channel around its mean: half of the draws below 1, half above."""
    low_resolution_probability: Probability = 0.25
    low_resolution_channel_probability: Probability = 0.5
    low_resolution_range: Range = (0.5, 1.0)
    """Size of the coarse grid relative to the patch, per channel, the same for all axes (not axis 0 if in plane)."""
    gamma_inverted_probability: Probability = 0.1
    gamma_probability: Probability = 0.3
    gamma_range: Range = (0.7, 1.5)
    """Exponent per channel: half of the draws below 1, half above."""
    masked_channels: tuple[int, ...] = ()
    """Channels normalised over their non-zero part: where they are 0 they stay 0."""

    @field_validator(
        "scaling_range", "noise_sigma_range", "blur_sigma_range", "brightness_range", "contrast_range",
        "low_resolution_range", "gamma_range",
    )  # fmt: skip
    @classmethod
    def _ascending_and_not_negative(cls, value: Range) -> Range:
        if not 0 <= value[0] <= value[1]:
            raise ValueError(f"found {value}, expected two numbers with 0 <= low <= high. Write the lower one first.")
        return value

    @field_validator("scaling_range", "low_resolution_range", "blur_sigma_range", "gamma_range")
    @classmethod
    def _positive(cls, value: Range) -> Range:
        if value[0] <= 0:
            raise ValueError(f"found {value}, expected numbers above 0. To switch it off set its probability to 0.")
        return value


def nnunet_recipe(configuration: Configuration) -> Recipe:
    """Return nnU-Net's recipe for a configuration: rotation range and axes follow the patch's shape.

    3-D: within +-30 degrees about each axis, or +-180 in the plane when the longest patch edge exceeds 3 times axis 0.
    2-D: +-180 degrees, or +-15 when the patch is longer than 1.5 times its width.
    Source: nnU-Net ``configure_rotation_dummyDA_mirroring_and_inital_patch_size``.
    """
    patch = configuration.patch_size
    if configuration.is_2d:
        in_plane = False
        degrees = 15.0 if max(patch) / min(patch) > ELONGATED_2D else 180.0
    else:
        in_plane = max(patch) / patch[0] > ANISOTROPY_IN_PLANE
        degrees = 180.0 if in_plane else 30.0
    masked = tuple(channel for channel, is_masked in enumerate(configuration.use_mask_for_norm) if is_masked)
    return Recipe(
        rotation_degrees=degrees,
        in_plane=in_plane,
        mirror_axes=tuple(range(len(patch))),
        masked_channels=masked,
    )


def no_augmentation() -> Recipe:
    """Return a recipe that changes nothing."""
    return Recipe(
        rotation_probability=0,
        scaling_probability=0,
        mirror_axes=(),
        noise_probability=0,
        blur_probability=0,
        brightness_probability=0,
        contrast_probability=0,
        low_resolution_probability=0,
        gamma_inverted_probability=0,
        gamma_probability=0,
    )


def augment_intensity(images: Tensor, recipe: Recipe, generator: Generator) -> Tensor:
    """Return the batch with intensities changed as :func:`augment_intensity_` does; ``images`` stays as it is."""
    changed = images.clone(memory_format=contiguous_format)
    augment_intensity_(changed, recipe, generator)
    return changed


def augment_intensity_(images: Tensor, recipe: Recipe, generator: Generator) -> None:
    """Change noise, blur, brightness, contrast, resolution and gamma of the batch in place, in nnU-Net's order.

    Parameters
    ----------
    images
        (B, C, *P) float32, contiguous, on any device.
    recipe
        Probabilities and ranges. ``masked_channels`` stay 0 where ``images`` is 0.
    generator
        On the CPU: parameters are the same on every device, and drawing them does not wait for the device.

    Notes
    -----
    Source: nnU-Net 2.8.1 ``nnUNetTrainer.get_training_transforms``. Differs in that "outside" of a masked channel is
    where the image itself is 0, not where the label map says so; and mirroring has happened before.
    """
    outside = [(channel, images[:, channel] == 0) for channel in recipe.masked_channels]
    noise_(images, recipe.noise_probability, recipe.noise_sigma_range, generator)
    blur_(images, recipe.blur_probability, recipe.blur_channel_probability, recipe.blur_sigma_range, generator)
    multiply_brightness_(images, recipe.brightness_probability, recipe.brightness_range, generator)
    adjust_contrast_(images, recipe.contrast_probability, recipe.contrast_range, generator)
    lower_resolution_(
        images,
        recipe.low_resolution_probability,
        recipe.low_resolution_channel_probability,
        recipe.low_resolution_range,
        generator,
        fixed_axes=(0,) if recipe.in_plane else (),
    )
    adjust_gamma_(images, recipe.gamma_inverted_probability, recipe.gamma_range, generator, inverted=True)
    adjust_gamma_(images, recipe.gamma_probability, recipe.gamma_range, generator, inverted=False)
    for channel, mask in outside:
        images[:, channel].masked_fill_(mask, 0)
