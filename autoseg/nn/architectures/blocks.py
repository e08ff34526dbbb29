"""Convolutional building blocks of both U-Nets, in 2-D and 3-D."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoseg.core.plan import Activation, Downsampling, FeatureNormalization

NEGATIVE_SLOPE = 0.01
"""Negative slope of every leaky ReLU. Source: nnU-Net ``experiment_planners/default_experiment_planner.py``."""

CONVOLUTION: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTION: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
MAX_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
INSTANCE_NORM: dict[int, Callable[..., nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCH_NORM: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DROPOUT: dict[int, Callable[..., nn.Module]] = {2: nn.Dropout2d, 3: nn.Dropout3d}

MAX_GROUPS = 8
"""Group norm has the largest number of groups up to this one into which the channels can be divided, as gcd."""


@dataclass(frozen=True, slots=True)
class Style:
    """Layers of a stage around its convolutions."""

    activation: Activation = "leaky_relu"
    normalization: FeatureNormalization = "instance"
    pooling: Downsampling = "strided"
    dropout: float = 0.0
    """Probability, 0 to below 1, that a channel is set to 0."""


PLAIN = Style()


def activate(features: Tensor, activation: Activation) -> Tensor:
    """Return activated features of the same shape; ``features`` may be overwritten."""
    if activation == "leaky_relu":
        return functional.leaky_relu(features, NEGATIVE_SLOPE, inplace=True)
    if activation == "relu":
        return torch.relu_(features)
    if activation == "elu":
        return functional.elu(features, inplace=True)
    return functional.gelu(features) if activation == "gelu" else functional.silu(features)


def normalize(normalization: FeatureNormalization, n_dims: int, n_channels: int) -> nn.Module:
    """Return the layer that normalises (B, n_channels, *P) with ``n_dims`` patch axes."""
    if normalization == "none":
        return nn.Identity()
    if normalization == "group":
        return nn.GroupNorm(math.gcd(MAX_GROUPS, n_channels), n_channels, eps=1e-5)
    make = INSTANCE_NORM if normalization == "instance" else BATCH_NORM
    return make[n_dims](n_channels, eps=1e-5, affine=True)


class ConvUnit(nn.Module):
    """Convolution, dropout, norm and, unless ``is_linear``, activation, as in ``style``.

    Maps (B, n_in, *P) to (B, n_out, *P / stride). With max pooling the maximum over the stride is taken first.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        bias: bool = True,
        is_linear: bool = False,
        style: Style = PLAIN,
    ) -> None:
        super().__init__()
        n_dims = len(kernel)
        padding = tuple((edge - 1) // 2 for edge in kernel)
        is_pooled = style.pooling == "max" and any(step != 1 for step in stride)
        self.pool = MAX_POOL[n_dims](tuple(stride)) if is_pooled else nn.Identity()
        steps = (1,) * n_dims if is_pooled else tuple(stride)
        self.conv = CONVOLUTION[n_dims](n_in, n_out, tuple(kernel), steps, padding, bias=bias)
        self.dropout = DROPOUT[n_dims](style.dropout) if style.dropout > 0 else nn.Identity()
        self.norm = normalize(style.normalization, n_dims, n_out)
        self.activation = style.activation
        self.is_linear = is_linear

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, n_out, *ceil(P / stride)) for ``features`` (B, n_in, *P)."""
        normalised: Tensor = self.norm(self.dropout(self.conv(self.pool(features))))
        return normalised if self.is_linear else activate(normalised, self.activation)


class ResidualBlock(nn.Module):
    """Two convolution units with a skip connection: pooling if strided, a linear 1x1 unit if channels change.

    The skip connection pools by the average, or by the maximum where ``style`` pools so.

    Source: ResNet-D (arXiv 1812.01187), as ``BasicBlockD`` of dynamic-network-architectures
    (``building_blocks/residual.py``).
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], style: Style = PLAIN
    ) -> None:
        super().__init__()
        n_dims = len(kernel)
        ones = (1,) * n_dims
        self.conv1 = ConvUnit(n_in, n_out, kernel, stride, style=style)
        self.conv2 = ConvUnit(n_out, n_out, kernel, ones, is_linear=True, style=style)
        is_strided, changes_channels = any(step != 1 for step in stride), n_in != n_out
        make_pool = MAX_POOL if style.pooling == "max" else AVERAGE_POOL
        self.pool = make_pool[n_dims](tuple(stride), tuple(stride)) if is_strided else nn.Identity()
        self.skip = (
            ConvUnit(n_in, n_out, ones, ones, bias=False, is_linear=True, style=replace(style, dropout=0.0))
            if changes_channels
            else nn.Identity()
        )
        self.activation = style.activation

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, n_out, *ceil(P / stride)) for ``features`` (B, n_in, *P)."""
        summed: Tensor = self.conv2(self.conv1(features)).add_(self.skip(self.pool(features)))
        return activate(summed, self.activation)


def conv_stage(
    n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], n_convolutions: int, style: Style = PLAIN
) -> nn.Sequential:
    """Return a stack of ``n_convolutions`` units. The first one changes channels and resolution."""
    first = ConvUnit(n_in, n_out, kernel, stride, style=style)
    ones = (1,) * len(stride)
    others = (ConvUnit(n_out, n_out, kernel, ones, style=style) for _ in range(n_convolutions - 1))
    return nn.Sequential(first, *others)


def residual_stage(
    n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], n_blocks: int, style: Style = PLAIN
) -> nn.Sequential:
    """Return a stack of ``n_blocks`` residual blocks. The first one changes channels and resolution."""
    first = ResidualBlock(n_in, n_out, kernel, stride, style)
    ones = (1,) * len(stride)
    return nn.Sequential(first, *(ResidualBlock(n_out, n_out, kernel, ones, style) for _ in range(n_blocks - 1)))


def initialise(module: nn.Module, negative_slope: float = NEGATIVE_SLOPE) -> None:
    """Initialise one module in place. Use it as ``network.apply(initialise)``.

    Convolutions get Kaiming normal weights for ``negative_slope`` (0 for all activations but the leaky ReLU), and zero
    bias. The last norm of a residual block, without norms its last convolution, gets zeros, so that the block initially
    passes its skip connection.
    Source: dynamic-network-architectures ``initialization/weight_init.py``.
    """
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=negative_slope)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        last = module.conv2.conv if isinstance(module.conv2.norm, nn.Identity) else module.conv2.norm
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
