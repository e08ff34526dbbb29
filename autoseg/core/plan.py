"""A plan: every decision that preprocessing, training and prediction must share. No paths, devices or workers."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from autoseg.core.arrays import Shape3
from autoseg.core.errors import PlanError
from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.geometry import Direction, Geometry
from autoseg.core.orientation import VoxelOrder, order_towards

Normalization = Literal["ct", "zscore", "none", "rescale_to_0_1", "rgb_to_0_1"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Topology(_Frozen):
    """The shape of a network. Stage 0 is the full resolution; lists have one entry per stage unless noted."""

    kind: str
    """Architecture: plain or residual (U-Nets), or package.module:attribute; see docs/extending.md."""
    features: tuple[int, ...]
    """Channels per stage."""
    strides: tuple[tuple[int, ...], ...]
    """Stride of the first convolution of each stage, per patch axis; all 1 for stage 0."""
    kernels: tuple[tuple[int, ...], ...]
    """Kernel edges per stage, odd."""
    encoder_blocks: tuple[int, ...]
    """Plain: convolutions per stage. Residual: blocks per stage."""
    decoder_blocks: tuple[int, ...]
    """Convolutions per decoder stage, lowest resolution first; one entry fewer."""

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
    """mm; 2-D: in-plane only, slices keep their spacing."""
    patch_size: tuple[int, ...]
    batch_size: int
    median_shape: tuple[float, ...]
    """Median shape of the training cases at this spacing, voxels; may end in .5."""
    normalization: tuple[Normalization, ...]
    """One per channel."""
    use_mask_for_norm: tuple[bool, ...]
    """Per channel: z-score over the non-zero part of the image only."""
    topology: Topology
    batch_dice: bool
    """Dice over the whole batch (True) or per sample."""
    previous_stage: str | None = None
    """Second stage of a cascade: the configuration whose predicted classes are a further input of the network."""

    @property
    def is_2d(self) -> bool:
        """Whether patches are slices."""
        return len(self.patch_size) == 2


class Plan(_Frozen):
    """``plans.json``."""

    dataset_name: str
    planner: str
    transpose_forward: Shape3
    """Axis (of a file in the prevailing order) that becomes axis 0, 1, 2: the coarsest first."""
    transpose_backward: Shape3
    original_median_spacing: tuple[float, float, float]
    """mm, transposed."""
    original_median_shape: Shape3
    """Voxels, transposed, after crop."""
    channel_names: tuple[str, ...]
    intensities: tuple[IntensityProperties, ...]
    """Per channel, of the training data; CT normalisation uses them."""
    configurations: dict[str, Configuration]
    """By name, in the order 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres."""
    direction: Direction | None = None
    """Direction cosines of the order in which most training files store their voxels, to which every case is brought;
    None: cases are taken as they are stored."""
    crop: bool = True
    """Whether what is 0 around an image is cut away; not where annotated foreground lies there."""

    def prevailing_order(self, geometry: Geometry) -> VoxelOrder:
        """Return how an array in the axes of a file is turned to the order in which training files are stored."""
        return order_towards(geometry, self.direction)

    def voxel_order(self, geometry: Geometry) -> VoxelOrder:
        """Return how an array in the axes of a file is turned to the plan's axes."""
        return self.prevailing_order(geometry).then(self.transpose_forward)

    def configuration(self, name: str) -> Configuration:
        """Return a configuration; raise ``PlanError`` naming those that exist."""
        if name not in self.configurations:
            raise PlanError(
                f"plan of {self.dataset_name}: found no configuration {name!r}, expected one of "
                f"{list(self.configurations)}. Choose with -c, or plan again with another planner."
            )
        return self.configurations[name]
