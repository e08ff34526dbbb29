"""Low resolution: sampling on a coarser grid and back, as from a coarser scanner."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor
from torch.nn.functional import interpolate

from autoseg.augmentation.draws import (
    Parameters,
    PositiveRange,
    Probability,
    channel_rows,
    draw_channels,
    draw_uniform,
)

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class LowResolution(Parameters):
    """Sample channels on a coarser grid (nearest) and back on the grid of the patch (linear).

    Source: batchgeneratorsv2 ``SimulateLowResolutionTransform``.
    """

    probability: Probability = 0.25
    """Probability of a sample."""
    channel_probability: Probability = 0.5
    """Probability of each channel of such a sample."""
    scale_range: PositiveRange = (0.5, 1.0)
    """Size of the coarse grid relative to the patch: uniform in this range, drawn per channel, equal for all axes."""
    fixed_axes: tuple[int, ...] = ()
    """Patch axes that keep their resolution."""

    def change_(self, images: Tensor, generators: Sequence[Generator]) -> None:
        """Change images (B, C, *P) float32 in place."""
        rows = channel_rows(images)
        shape = images.shape[2:]
        mode = LINEAR[len(shape)]
        for row, generator in draw_channels(images, self.probability, self.channel_probability, generators):
            (scale,) = draw_uniform(1, self.scale_range, generator)
            coarse_shape = [
                edge if axis in self.fixed_axes else max(1, round(edge * scale)) for axis, edge in enumerate(shape)
            ]
            coarse = interpolate(rows[row][None, None], coarse_shape, mode="nearest-exact")
            rows[row] = interpolate(coarse, list(shape), mode=mode)[0, 0]
