"""Random numbers of intensity operations: the channels to change, and the strength of the change.

Each sample has a generator of its own, so that its numbers do not depend on the samples beside it: a batch that several
processes share is the batch of one. Generators are on the CPU, so that parameters are the same on every device and
need no synchronisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Generator, Tensor

Probability = Annotated[float, Field(ge=0, le=1)]


class Parameters(BaseModel):
    """Parameters of an operation. They are frozen, and unknown names are an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Switchable(Parameters):
    """Parameters of an operation that the recipe ``em`` may hold."""

    enabled: bool = True
    """Whether the recipe em has the operation. Recipes of your own and Compose apply whatever they are given."""


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


def draw_samples(probability: float, generators: Sequence[Generator]) -> list[tuple[int, Generator]]:
    """Return the randomly chosen samples, each with its generator. A sample is chosen with ``probability``."""
    return [
        (sample, generator)
        for sample, generator in enumerate(generators)
        if torch.rand(1, generator=generator).item() < probability
    ]


def draw_channels(
    images: Tensor, probability: float, channel_probability: float, generators: Sequence[Generator]
) -> list[tuple[int, Generator]]:
    """Return indices into (B*C, *P) of randomly chosen channels of images (B, C, *P), with their samples' generators.

    Samples are chosen with ``probability``, then their channels with ``channel_probability``.
    """
    n_channels = images.shape[1]
    chosen = []
    for sample, generator in enumerate(generators):
        of_sample, *of_channels = torch.rand(1 + n_channels, generator=generator).tolist()
        if of_sample < probability:
            rows = range(sample * n_channels, (sample + 1) * n_channels)
            chosen += [
                (row, generator) for row, number in zip(rows, of_channels, strict=True) if number < channel_probability
            ]
    return chosen


def channel_rows(images: Tensor) -> Tensor:
    """Return a view (B*C, *P) of images (B, C, *P)."""
    return images.view(-1, *images.shape[2:])


def draw_uniform(count: int, bounds: tuple[float, float], generator: Generator) -> list[float]:
    """Return ``count`` random numbers, uniform between the bounds."""
    numbers: list[float] = torch.rand(count, generator=generator).tolist()
    return [bounds[0] + number * (bounds[1] - bounds[0]) for number in numbers]


def draw_factor(factor_range: tuple[float, float], generator: Generator) -> float:
    """Return a random factor, with probability 1/2 uniform between low and 1, otherwise between 1 and high.

    If 1 is not between low and high, it is uniform between low and high. Source: batchgeneratorsv2 ``BGContrast``.
    """
    low, high = factor_range
    side, position = torch.rand(2, generator=generator).tolist()
    if low < 1 < high:
        low, high = (low, 1.0) if side < 0.5 else (1.0, high)
    factor: float = low + position * (high - low)
    return factor


def generator_on(device: torch.device, generator: Generator) -> Generator:
    """Return a generator on ``device`` that ``generator`` seeds: for random numbers of every voxel.

    The parameters drawn from ``generator`` later are then the same on every device.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return Generator(device=device).manual_seed(seed)
