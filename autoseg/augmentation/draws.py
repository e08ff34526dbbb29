"""Random numbers of intensity operations: the channels to change, and the strength of the change.

They are drawn from a CPU generator, so that they are the same on every device and need no synchronisation.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Generator, Tensor

Probability = Annotated[float, Field(ge=0, le=1)]


class Parameters(BaseModel):
    """Parameters of an operation. They are frozen, and unknown names are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] <= value[1]:
        raise ValueError(f"found {value}, expected two numbers with 0 <= low <= high. Write the lower one first.")
    return value


def _positive(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] <= 0:
        raise ValueError(f"found {value}, expected numbers above 0. To switch it off set its probability to 0.")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
"""(low, high) with 0 <= low <= high."""
PositiveRange = Annotated[Range, AfterValidator(_positive)]
"""(low, high) with 0 < low <= high."""


def draw_samples(n_samples: int, probability: float, generator: Generator) -> list[int]:
    """Return the indices of randomly chosen samples. Each sample is chosen with ``probability``."""
    indices: list[int] = (torch.rand(n_samples, generator=generator) < probability).nonzero().flatten().tolist()
    return indices


def draw_channels(images: Tensor, probability: float, channel_probability: float, generator: Generator) -> list[int]:
    """Return the indices into (B*C, *P) of randomly chosen channels of images (B, C, *P).

    Samples are chosen with ``probability``, then their channels with ``channel_probability``.
    """
    samples = torch.rand(images.shape[0], generator=generator) < probability
    channels = torch.rand(images.shape[:2], generator=generator) < channel_probability
    indices: list[int] = (samples[:, None] & channels).flatten().nonzero().flatten().tolist()
    return indices


def channel_rows(images: Tensor) -> Tensor:
    """Return a view (B*C, *P) of images (B, C, *P)."""
    return images.view(-1, *images.shape[2:])


def draw_uniform(count: int, bounds: tuple[float, float], generator: Generator) -> Tensor:
    """Return (count,) float32: random numbers, uniform between the bounds."""
    return bounds[0] + torch.rand(count, generator=generator) * (bounds[1] - bounds[0])


def draw_factors(count: int, factor_range: tuple[float, float], generator: Generator) -> Tensor:
    """Return (count,) float32: random factors, with probability 1/2 uniform between low and 1, otherwise 1 and high.

    If 1 is not between low and high, all are uniform between low and high. Source: batchgeneratorsv2 ``BGContrast``.
    """
    low, high = factor_range
    below = torch.rand(count, generator=generator) < 0.5
    position = torch.rand(count, generator=generator)
    if not low < 1 < high:
        return low + position * (high - low)
    return torch.where(below, low + position * (1 - low), 1 + position * (high - 1))


def device_generator(device: torch.device, generator: Generator) -> Generator:
    """Return ``generator`` itself on the CPU. Otherwise return a generator on ``device`` that it seeds."""
    if device.type == "cpu":
        return generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return Generator(device=device).manual_seed(seed)
