"""Blocks of voxels of a batch that fit into the processor's cache, and the sums over voxels that all losses need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

VoxelBlock = tuple[slice, slice]
"""Slices of samples and voxels of an array (B, ..., V)."""
BLOCK_ELEMENTS = 2**18
"""Elements of a block of logits (b, H, c) on a CPU, per thread."""
BLOCK_VOXELS = 2**16
"""Largest number of voxels of a block on a CPU, per thread. With few heads, the other values per voxel matter."""
DEVICE_BLOCK_ELEMENTS = 2**24
"""Elements of a block on other devices. Large blocks need fewer kernel launches, but more memory."""


class LossSums(NamedTuple):
    """Sums over the voxels of a batch with H heads, each voxel times its weight, from which losses are computed."""

    likelihood: Tensor
    """Scalar: negative log likelihoods."""
    weight: Tensor
    """Scalar: weights in ``likelihood``, by which it is divided."""
    overlap: Tensor
    """(B, H): probabilities at voxels where the head is positive."""
    predicted: Tensor
    """(B, H): probabilities at voxels where the head is decided."""
    true: Tensor
    """(B, H): number of voxels where the head is positive."""
    known: Tensor
    """(B, H): number of voxels where the head is decided."""

    def heads(self, first: int) -> LossSums:
        """Return the sums without the heads before head ``first``: (B, H - first)."""
        per_head = (sums[:, first:] for sums in (self.overlap, self.predicted, self.true, self.known))
        return LossSums(self.likelihood, self.weight, *per_head)


class Scratch:
    """Memory that is used again for every block. New memory for each would take more time than the computation."""

    def __init__(self, like: Tensor) -> None:
        """Use the number type and device of ``like``, of any shape."""
        self._empty = like.new_empty(0)
        self._memory: dict[str, Tensor] = {}

    def get(self, name: str, shape: Sequence[int]) -> Tensor:
        """Return a contiguous tensor of any ``shape`` with arbitrary values. Calls with the same name share memory."""
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].numel() < size:
            self._memory[name] = self._empty.new_empty(size)
        return self._memory[name][:size].view(*shape)


def is_on_cpu(tensor: Tensor) -> bool:
    """Whether a tensor of any shape is on the CPU, so that its values can be read without waiting for a device."""
    return tensor.device.type == "cpu"


def blocks(n_samples: int, n_heads: int, n_voxels: int, *, on_cpu: bool) -> Iterator[VoxelBlock]:
    """Yield blocks of an array (B, H, V): whole samples if several fit, otherwise a part of the voxels of a sample."""
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
    """Return the number of voxels of each code, or the sum of their weights.

    Parameters
    ----------
    codes
        (B, V), any integer type, < ``n_codes``.
    voxel_weights
        (B, V). None: all 1.

    Returns
    -------
    Tensor
        (B, N), integer or floating type.
    """
    if is_on_cpu(codes):
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
    """Return (B, n): sums of the ``values`` (B, c) with each index; ``index`` (B, c) int64 < n. Deterministic."""
    if is_on_cpu(values):  # sequential summation, which would lose digits in float32
        sums = values.new_zeros(len(values), n, dtype=torch.float64)
        return sums.scatter_add_(1, index, values.double()).to(values.dtype)
    is_same = index[:, None] == torch.arange(n, device=index.device)[:, None]
    return torch.where(is_same, values[:, None], 0).sum(2)
