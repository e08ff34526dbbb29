"""Plan: the decisions that preprocessing, training and prediction share. It holds no paths, devices or workers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import Shape3
from autoseg.core.errors import PlanError
from autoseg.core.fingerprint import IntensityProperties, TargetProperties
from autoseg.core.geometry import Direction, Geometry
from autoseg.core.orientation import VoxelOrder, order_towards

Normalization = Literal["ct", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"]
Activation = Literal["leaky_relu", "relu", "elu", "gelu", "silu"]
FeatureNormalization = Literal["instance", "batch", "group", "none"]
Downsampling = Literal["strided", "max"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Topology(_Frozen):
    """Topology of a network. Stage 0 has the full resolution. Lists have one entry per stage unless noted."""

    kind: str
    """Name of the architecture: plain or residual (U-Nets), or package.module:attribute; see docs/extending.md."""
    features: tuple[int, ...]
    """Channels per stage."""
    strides: tuple[tuple[int, ...], ...]
    """Stride of the first convolution of each stage, per patch axis. All 1 for stage 0."""
    kernels: tuple[tuple[int, ...], ...]
    """Kernel edges of each stage, per patch axis; odd."""
    encoder_blocks: tuple[int, ...]
    """Convolutions (plain) or residual blocks (residual) of each stage."""
    decoder_blocks: tuple[int, ...]
    """Convolutions of each decoder stage, lowest resolution first. One entry fewer than stages."""
    activation: Activation = "leaky_relu"
    """Function after each convolution."""
    normalization: FeatureNormalization = "instance"
    """Normalisation of the result of each convolution."""
    pooling: Downsampling = "strided"
    """Reduction of the resolution of a stage: stride of its first convolution, or maximum over that stride."""
    dropout: tuple[float, ...] = ()
    """Probability, 0 to below 1, that a channel is set to 0 after a convolution in training; empty for no dropout."""

    @property
    def n_stages(self) -> int:
        """Number of encoder stages."""
        return len(self.strides)

    @property
    def n_dims(self) -> int:
        """2 or 3."""
        return len(self.strides[0])


class Configuration(_Frozen):
    """One network and its preprocessing. Patch axes are (z, y, x), or (y, x) for a 2-D configuration."""

    name: str
    spacing: tuple[float, ...]
    """mm, one per patch axis. 2-D: spacing within slices; between slices it is not changed."""
    patch_size: tuple[int, ...]
    """Voxels, one per patch axis."""
    batch_size: int
    """Patches per iteration."""
    median_shape: tuple[float, ...]
    """Median shape of the training cases at this spacing, voxels, one per patch axis. May end in .5."""
    normalization: tuple[Normalization, ...]
    """Intensity normalisation, one per channel."""
    use_mask_for_norm: tuple[bool, ...]
    """Whether the z-score uses only the non-zero part of the image, one per channel."""
    topology: Topology
    batch_dice: bool
    """Whether the Dice loss pools the whole batch. If False, each sample has its own Dice."""
    previous_stage: str | None = None
    """Second stage of a cascade: the configuration whose predicted classes are a further input of the network. None for
    others."""

    @property
    def is_2d(self) -> bool:
        """Whether patches are slices."""
        return len(self.patch_size) == 2


class Plan(_Frozen):
    """Content of ``plans.json``."""

    dataset_name: str
    planner: str
    transpose_forward: Shape3
    """Axes (of a file in the prevailing voxel order) that become axes 0, 1, 2. The coarsest comes first."""
    transpose_backward: Shape3
    """Inverse of ``transpose_forward``."""
    original_median_spacing: tuple[float, float, float]
    """Median spacing of the files, mm, in the axes of the plan."""
    original_median_shape: Shape3
    """Median shape after cropping, voxels, in the axes of the plan."""
    channel_names: tuple[str, ...]
    intensities: tuple[IntensityProperties, ...]
    """Intensity statistics of the training data, one per channel. CT normalisation uses them."""
    configurations: dict[str, Configuration]
    """Name -> configuration, in the order 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres."""
    direction: Direction | None = None
    """Direction cosines of the voxel order of most training files, to which every case is turned. None: cases are not
    turned."""
    crop: bool = True
    """Whether images are cropped to their non-zero box. False if annotated foreground lies outside it, and for
    regression, whose predictions have a number in every voxel."""
    targets: tuple[TargetProperties, ...] = ()
    """Statistics of the targets of a regression, by which numbers are standardised; () for classes."""

    @property
    def is_of_2d_images(self) -> bool:
        """Whether the training images have one slice."""
        return self.original_median_shape[0] == 1

    def prevailing_order(self, geometry: Geometry) -> VoxelOrder:
        """Return the voxel order that turns an array in the axes of a file to the order of most training files."""
        return order_towards(geometry, self.direction)

    def voxel_order(self, geometry: Geometry) -> VoxelOrder:
        """Return the voxel order that turns an array in the axes of a file to the axes of the plan."""
        return self.prevailing_order(geometry).then(self.transpose_forward)

    def configuration(self, name: str) -> Configuration:
        """Return the configuration ``name``. Raise ``PlanError`` naming the existing ones if it is unknown."""
        if name not in self.configurations:
            raise PlanError(
                f"plan of {self.dataset_name}: no configuration {name!r}, expected one of "
                f"{list(self.configurations)}. Choose with -c, or plan again with another planner."
            )
        return self.configurations[name]
