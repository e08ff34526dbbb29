"""Convolutional building blocks of both U-Nets, in 2-D and 3-D."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

NEGATIVE_SLOPE = 0.01
"""Negative slope of every leaky ReLU. Source: nnU-Net ``experiment_planners/default_experiment_planner.py``."""

CONVOLUTION: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED_CONVOLUTION: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGE_POOL: dict[int, Callable[..., nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
INSTANCE_NORM: dict[int, Callable[..., nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class ConvUnit(nn.Module):
    """Convolution, instance norm and, unless ``is_linear``, leaky ReLU.

    Maps (B, n_in, *P) to (B, n_out, *P / stride).
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
    ) -> None:
        super().__init__()
        n_dims = len(kernel)
        padding = tuple((edge - 1) // 2 for edge in kernel)
        self.conv = CONVOLUTION[n_dims](n_in, n_out, tuple(kernel), tuple(stride), padding, bias=bias)
        self.norm = INSTANCE_NORM[n_dims](n_out, eps=1e-5, affine=True)
        self.is_linear = is_linear

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, n_out, *ceil(P / stride)) for ``features`` (B, n_in, *P)."""
        normalised: Tensor = self.norm(self.conv(features))
        return normalised if self.is_linear else functional.leaky_relu(normalised, NEGATIVE_SLOPE, inplace=True)


class ResidualBlock(nn.Module):
    """Two convolution units with a skip connection: average pooling if strided, a linear 1x1 unit if channels change.

    Source: ResNet-D (arXiv 1812.01187), as ``BasicBlockD`` of dynamic-network-architectures
    (``building_blocks/residual.py``).
    """

    def __init__(self, n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        n_dims = len(kernel)
        ones = (1,) * n_dims
        self.conv1 = ConvUnit(n_in, n_out, kernel, stride)
        self.conv2 = ConvUnit(n_out, n_out, kernel, ones, is_linear=True)
        is_strided, changes_channels = any(step != 1 for step in stride), n_in != n_out
        self.pool = AVERAGE_POOL[n_dims](tuple(stride), tuple(stride)) if is_strided else nn.Identity()
        self.skip = ConvUnit(n_in, n_out, ones, ones, bias=False, is_linear=True) if changes_channels else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """Return (B, n_out, *ceil(P / stride)) for ``features`` (B, n_in, *P)."""
        summed: Tensor = self.conv2(self.conv1(features)).add_(self.skip(self.pool(features)))
        return functional.leaky_relu(summed, NEGATIVE_SLOPE, inplace=True)


def conv_stage(
    n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], n_convolutions: int
) -> nn.Sequential:
    """Return a stack of ``n_convolutions`` units. The first one changes channels and resolution."""
    first = ConvUnit(n_in, n_out, kernel, stride)
    ones = (1,) * len(stride)
    return nn.Sequential(first, *(ConvUnit(n_out, n_out, kernel, ones) for _ in range(n_convolutions - 1)))


def residual_stage(n_in: int, n_out: int, kernel: Sequence[int], stride: Sequence[int], n_blocks: int) -> nn.Sequential:
    """Return a stack of ``n_blocks`` residual blocks. The first one changes channels and resolution."""
    first = ResidualBlock(n_in, n_out, kernel, stride)
    ones = (1,) * len(stride)
    return nn.Sequential(first, *(ResidualBlock(n_out, n_out, kernel, ones) for _ in range(n_blocks - 1)))


def initialise(module: nn.Module) -> None:
    """Initialise one module in place. Use it as ``network.apply(initialise)``.

    Convolutions get Kaiming normal weights for the leaky slope, and zero bias. The last norm of a residual block gets
    zeros, so that the block initially passes its skip connection.
    Source: dynamic-network-architectures ``initialization/weight_init.py``.
    """
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
        nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, ResidualBlock):
        for parameter in module.conv2.norm.parameters():
            nn.init.zeros_(parameter)
