"""Changes of intensity, batched, on any device. Every function works in place (hence the trailing underscore).

A random draw decides per sample (and, where said, per channel) whether and how strongly; only what was drawn is
computed. Draws come from a CPU generator, so that they are the same on every device and cost no synchronisation.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

Range = tuple[float, float]

SMALLEST_SPREAD = 1e-7
"""Ranges and standard deviations below this count as 0: a constant channel stays constant."""
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def noise_(images: Tensor, probability: float, sigma_range: Range, generator: Generator) -> None:
    """Add Gaussian noise: one standard deviation per sample, uniform in ``sigma_range``, independent per voxel.

    ``images`` is (B, C, *P) float32. Source: batchgeneratorsv2 ``GaussianNoiseTransform`` (whose ``noise_variance`` is
    used as a standard deviation).
    """
    samples = _selected(torch.rand(len(images), generator=generator) < probability)
    if not samples:
        return
    sigma = _uniform(len(samples), sigma_range, generator)
    source = _device_generator(images.device, generator)
    for index, scale in zip(samples, sigma.tolist(), strict=True):
        noise = torch.randn(images.shape[1:], generator=source, device=images.device, dtype=images.dtype)
        images[index].add_(noise, alpha=scale)


def blur_(
    images: Tensor, probability: float, channel_probability: float, sigma_range: Range, generator: Generator
) -> None:
    """Blur channels with a Gaussian: sigma (voxels) uniform per channel and axis, mirrored at the border.

    ``images`` is (B, C, *P) float32. The kernel has the odd length nearest to ``6 sigma + 0.5``. Axes of length 1 stay
    as they are. Source: batchgeneratorsv2 ``GaussianBlurTransform``.
    """
    rows = _rows(images)
    chosen = _selected_rows(images, probability, channel_probability, generator)
    n_axes = images.ndim - 2
    sigma = _uniform(len(chosen) * n_axes, sigma_range, generator).reshape(len(chosen), n_axes).tolist()
    for row, per_axis in zip(chosen, sigma, strict=True):
        blurred = rows[row]
        for axis, value in enumerate(per_axis):
            blurred = _blur_axis(blurred, axis, value)
        rows[row] = blurred


def multiply_brightness_(images: Tensor, probability: float, factor_range: Range, generator: Generator) -> None:
    """Multiply each channel of the drawn samples by its own factor (see :func:`draw_factors`).

    ``images`` is (B, C, *P) float32. Source: batchgeneratorsv2 ``MultiplicativeBrightnessTransform``.
    """
    rows = _rows(images)
    chosen = _selected_rows(images, probability, 1.0, generator)
    for row, factor in zip(chosen, draw_factors(len(chosen), factor_range, generator).tolist(), strict=True):
        rows[row].mul_(factor)


def adjust_contrast_(images: Tensor, probability: float, factor_range: Range, generator: Generator) -> None:
    """Scale each channel of the drawn samples around its mean, clamped to its old minimum and maximum.

    ``images`` is (B, C, *P) float32. Source: batchgeneratorsv2 ``ContrastTransform`` with ``preserve_range``.
    """
    rows = _rows(images)
    chosen = _selected_rows(images, probability, 1.0, generator)
    for row, factor in zip(chosen, draw_factors(len(chosen), factor_range, generator).tolist(), strict=True):
        channel = rows[row]
        low, high = torch.aminmax(channel)
        mean = channel.mean()
        channel.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)


def lower_resolution_(
    images: Tensor,
    probability: float,
    channel_probability: float,
    scale_range: Range,
    generator: Generator,
    *,
    fixed_axes: tuple[int, ...] = (),
) -> None:
    """Sample channels on a coarser grid (nearest) and bring them back (linear): scale uniform, the same for all axes.

    ``images`` is (B, C, *P) float32; ``fixed_axes`` (patch axes) keep their resolution.
    Source: batchgeneratorsv2 ``SimulateLowResolutionTransform``.
    """
    rows = _rows(images)
    chosen = _selected_rows(images, probability, channel_probability, generator)
    shape = images.shape[2:]
    mode = LINEAR[len(shape)]
    for row, scale in zip(chosen, _uniform(len(chosen), scale_range, generator).tolist(), strict=True):
        coarse_shape = [edge if axis in fixed_axes else max(1, round(edge * scale)) for axis, edge in enumerate(shape)]
        coarse = interpolate(rows[row][None, None], coarse_shape, mode="nearest-exact")
        rows[row] = interpolate(coarse, list(shape), mode=mode)[0, 0]


def adjust_gamma_(
    images: Tensor, probability: float, gamma_range: Range, generator: Generator, *, inverted: bool
) -> None:
    """Raise each channel of the drawn samples, scaled to 0..1, to its own exponent; mean and deviation are kept.

    ``images`` is (B, C, *P) float32; ``inverted`` does so on the negative image. A constant channel stays as it is.
    Source: batchgeneratorsv2 ``GammaTransform`` with ``p_retain_stats=1``.
    """
    rows = _rows(images)
    chosen = _selected_rows(images, probability, 1.0, generator)
    for row, gamma in zip(chosen, draw_factors(len(chosen), gamma_range, generator).tolist(), strict=True):
        _gamma_channel_(rows[row], gamma, inverted)


def draw_factors(count: int, factor_range: Range, generator: Generator) -> Tensor:
    """Draw ``count`` factors: half of them uniform between low and 1, half between 1 and high; (count,) float32.

    If 1 is not between low and high, all are uniform between low and high. Source: batchgeneratorsv2 ``BGContrast``.
    """
    low, high = factor_range
    below = torch.rand(count, generator=generator) < 0.5
    position = torch.rand(count, generator=generator)
    if not low < 1 < high:
        return low + position * (high - low)
    return torch.where(below, low + position * (1 - low), 1 + position * (high - 1))


def _gamma_channel_(channel: Tensor, gamma: float, inverted: bool) -> None:
    """Do so for one channel: x^g as 2^(g log2 x), and spreads as lengths of what is left without the mean.

    A fifth of the time that the same takes with ``pow`` and ``std``, equal to a few units in the last places.
    """
    if inverted:
        channel.neg_()
    mean = channel.mean()
    spread = torch.linalg.vector_norm(channel.sub_(mean))
    low, high = torch.aminmax(channel)
    channel.sub_(low).div_((high - low).clamp_min(SMALLEST_SPREAD)).log2_().mul_(gamma).exp2_()
    new_spread = torch.linalg.vector_norm(channel.sub_(channel.mean()))
    channel.mul_(spread / new_spread.clamp_min(SMALLEST_SPREAD)).add_(mean)
    if inverted:
        channel.neg_()


def _blur_axis(channel: Tensor, axis: int, sigma: float) -> Tensor:
    """Convolve (*P) along ``axis`` by adding weighted shifts: on few taps faster than a convolution call."""
    length = channel.shape[axis]
    radius = kernel_length(sigma) // 2
    if length == 1 or radius == 0:
        return channel
    taps = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(radius + 1)]
    weights = [tap / (taps[0] + 2 * sum(taps[1:])) for tap in taps]
    before = _reflected(torch.arange(-radius, 0, device=channel.device), length)
    after = _reflected(torch.arange(length, length + radius, device=channel.device), length)
    padded = torch.cat([channel.index_select(axis, before), channel, channel.index_select(axis, after)], axis)
    blurred = channel * weights[0]
    for distance in range(1, radius + 1):
        blurred.add_(padded.narrow(axis, radius - distance, length), alpha=weights[distance])
        blurred.add_(padded.narrow(axis, radius + distance, length), alpha=weights[distance])
    return blurred


def kernel_length(sigma: float) -> int:
    """Return the odd number nearest to ``6 sigma + 0.5``: the length of the blur kernel in voxels."""
    wanted = 6 * sigma + 0.5
    rounded = round(wanted)
    if rounded % 2 == 1:
        return rounded
    return rounded + 1 if wanted >= rounded else rounded - 1


def _reflected(positions: Tensor, length: int) -> Tensor:
    """Mirror indices at the first and last voxel (which are not repeated), for any distance outside."""
    period = 2 * (length - 1)
    folded = positions.remainder(period)
    return torch.minimum(folded, period - folded)


def _selected_rows(images: Tensor, probability: float, channel_probability: float, generator: Generator) -> list[int]:
    """Return indices into (B*C, *P) of the channels drawn: samples with one probability, channels with another."""
    samples = torch.rand(images.shape[0], generator=generator) < probability
    channels = torch.rand(images.shape[:2], generator=generator) < channel_probability
    return _selected((samples[:, None] & channels).flatten())


def _selected(mask: Tensor) -> list[int]:
    indices: list[int] = mask.nonzero().flatten().tolist()
    return indices


def _rows(images: Tensor) -> Tensor:
    return images.view(-1, *images.shape[2:])


def _uniform(count: int, bounds: Range, generator: Generator) -> Tensor:
    return bounds[0] + torch.rand(count, generator=generator) * (bounds[1] - bounds[0])


def _device_generator(device: torch.device, generator: Generator) -> Generator:
    """Return the generator itself on the CPU, else one on ``device`` that is seeded by it."""
    if device.type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return Generator(device=device).manual_seed(seed)
