"""Work through the voxels of a batch in blocks that fit the cache; what all losses sum over voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Block = tuple[slice, slice]
"""Samples and voxels of (B, ..., V)."""
BLOCK_ELEMENTS = 2**18
"""Elements of a block of logits (b, H, c) on a CPU, for each thread."""
BLOCK_VOXELS = 2**16
"""At most as many voxels: there are some ten values per voxel, however few the heads."""
DEVICE_BLOCK_ELEMENTS = 2**24
"""The same on other devices: large, which saves launches; bounded, which saves memory."""


class LossSums(NamedTuple):
    """What losses need to know of a batch with H heads. Sums over voxels, each times its weight."""

    likelihood: Tensor
    """(): negative log likelihoods."""
    weight: Tensor
    """(): the weights in ``likelihood``, by which to divide."""
    overlap: Tensor
    """(B, H): probability where the head is positive."""
    predicted: Tensor
    """(B, H): probability where the head is decided."""
    true: Tensor
    """(B, H): voxels where the head is positive."""
    known: Tensor
    """(B, H): voxels where the head is decided."""

    def heads(self, first: int) -> LossSums:
        """Return the sums without the heads before ``first``."""
        per_head = (sums[:, first:] for sums in (self.overlap, self.predicted, self.true, self.known))
        return LossSums(self.likelihood, self.weight, *per_head)


class Scratch:
    """Memory for one block after the other: fresh memory for each would cost more time than what is computed in it."""

    def __init__(self, like: Tensor) -> None:
        self._empty = like.new_empty(0)
        self._memory: dict[str, Tensor] = {}

    def get(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return contiguous memory of that shape, with anything in it: that of the last call with the same name."""
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].numel() < size:
            self._memory[name] = self._empty.new_empty(size)
        return self._memory[name][:size].view(*shape)


def is_cheap_to_ask(tensor: Tensor) -> bool:
    """Whether values can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def blocks(n_samples: int, n_heads: int, n_voxels: int, *, on_cpu: bool) -> Iterator[Block]:
    """Cut (B, H, V) into blocks: of whole samples if several fit, else of a part of the voxels of one sample."""
    if on_cpu:
        n_columns = min(BLOCK_ELEMENTS // max(n_heads, 1), BLOCK_VOXELS) * torch.get_num_threads()
    else:
        n_columns = DEVICE_BLOCK_ELEMENTS // max(n_heads, 1)
    n_columns = max(n_columns, 1)
    n_rows = max(n_columns // max(n_voxels, 1), 1)
    for row in range(0, n_samples, n_rows):
        for column in range(0, n_voxels, n_columns):
            yield slice(row, row + n_rows), slice(column, column + n_columns)


def count_codes(codes: Tensor, n_codes: int, voxel_weights: Tensor | None = None) -> Tensor:
    """Count the voxels of each code, or add up their weights.

    Parameters
    ----------
    codes
        (B, V) of any integer type, < ``n_codes``.
    voxel_weights
        (B, V). None: all 1.

    Returns
    -------
    Tensor
        (B, N), integers or floating.
    """
    if is_cheap_to_ask(codes):
        weights = [None] * len(codes) if voxel_weights is None else voxel_weights.double()
        rows = codes.long() if codes.dtype == torch.uint16 else codes  # bincount takes no uint16
        return torch.stack([row.bincount(weight, n_codes) for row, weight in zip(rows, weights, strict=True)])
    if voxel_weights is None:
        voxel_weights = torch.ones((), device=codes.device).expand(codes.shape)
    counts = voxel_weights.new_zeros(len(codes), n_codes)
    for block in blocks(len(codes), n_codes, codes.shape[1], on_cpu=False):
        counts[block[0]] += sum_by_index(voxel_weights[block], codes[block].long(), n_codes)
    return counts


def sum_by_index(values: Tensor, index: Tensor, n: int) -> Tensor:
    """(B, n): sums of the values (B, c) that share an index (B, c) int64 < n. The same sums every time."""
    if is_cheap_to_ask(values):  # one value after the other, which in float32 would lose digits
        sums = values.new_zeros(len(values), n, dtype=torch.float64)
        return sums.scatter_add_(1, index, values.double()).to(values.dtype)
    is_same = index[:, None] == torch.arange(n, device=index.device)[:, None]
    return torch.where(is_same, values[:, None], 0).sum(2)
