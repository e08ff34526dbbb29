"""Look things up by label-set code, voxel by voxel, and sum over the voxels of a code: what every partial loss does.

A mask, a target or a weight depends on a voxel through its code only. So none of them is ever made at full size per
class: sums over voxels are taken once per code, and masks are applied to the (N, H) sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 2**17}
"""Size of the indicator (B, N, chunk) made at a time in :func:`sum_by_code`: fits the cache.
Other devices take 2**24, which saves launches."""


def flat_codes(codes: Tensor) -> Tensor:
    """Return codes (B, *P) of any integer type as (B, V) int64, V voxels."""
    return codes.flatten(1).long()


def check_shapes(logits: Tensor, codes: Tensor, label_sets: Tensor, regions: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless logits (B, H, *P), codes (B, *P) and label sets (B, N, K) go together.

    Heads are the K classes, or R regions (R, K). That codes are below N is not looked at: it would be read from the
    device.
    """
    n_heads, n_classes = (label_sets.shape[-1],) * 2 if regions is None else regions.shape
    expected = (len(codes), n_heads, *codes.shape[1:])
    is_table = label_sets.ndim == 3 and len(label_sets) == len(codes) and label_sets.shape[2] == n_classes
    if logits.shape != expected or len(codes) == 0 or not is_table:
        raise ValueError(
            f"logits {tuple(logits.shape)}, codes {tuple(codes.shape)} and label sets {tuple(label_sets.shape)}"
            + ("" if regions is None else f" with regions {tuple(regions.shape)}")
            + ": expected (B, H, *P), (B, *P) and (B, N, K), B of 1 or more, H = K classes or the number of regions"
        )


def look_up(table: Tensor, codes: Tensor) -> Tensor:
    """Return ``table[b, code]`` for table (B, N) and codes (B, V) int64, as (B, V)."""
    return table.gather(1, codes)


def look_up_heads(table: Tensor, codes: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return ``table[b, code, h]`` for table (B, N, H) and codes (B, V) int64, as (B, H, V); into ``out`` if given."""
    by_head = table.transpose(1, 2).contiguous()  # read a third faster than as it lies
    return torch.gather(by_head, 2, codes[:, None].expand(-1, by_head.shape[1], -1), out=out)


def sum_by_code(values: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Sum values (B, H, V) float32 over the voxels of each code, and count these voxels.

    Parameters
    ----------
    values
        (B, H, V) float32; differentiable.
    codes
        (B, V) int64 < ``n_codes``.

    Returns
    -------
    sums, counts
        (B, N, H) and (B, N), float32; 0 for a code that does not occur.
    """
    sums, counts = _SumByCode.apply(values, codes, n_codes)  # type: ignore[no-untyped-call]
    return sums, counts


def informative_codes(label_sets: Tensor) -> Tensor:
    """(B, N) bool: codes that say something, i.e. whose set (B, N, K) is neither empty nor all classes."""
    return label_sets.any(-1) & ~label_sets.all(-1)


def annotated_codes(label_sets: Tensor, undrawn: Tensor | None) -> Tensor:
    """(B, N) bool: informative codes whose set (B, N, K) is not that of unannotated voxels.

    ``undrawn`` (B,) int64 is the code of unannotated voxels in each sample; None: "nothing known" in all.
    """
    informative = informative_codes(label_sets)
    if undrawn is None:
        return informative
    row = label_sets[torch.arange(len(label_sets), device=label_sets.device), undrawn.to(label_sets.device)]  # (B, K)
    return informative & (label_sets != row[:, None]).any(dim=2)


def head_states(label_sets: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Decide every head for every code: ``(positive, negative)``, both (B, N, H) bool; undecided where both are False.

    The same rule as :func:`autoseg.dataset.labels.head_states`, for label sets (B, N, K) and regions (H, K).
    """
    known = label_sets.any(-1, keepdim=True)
    touches = (label_sets[:, :, None] & regions).any(-1)
    leaves = (label_sets[:, :, None] & ~regions).any(-1)
    return known & ~leaves, known & ~touches


class _SumByCode(torch.autograd.Function):
    """Forward a product with the indicator of each code, in chunks; backward a look-up. Keeps only the codes."""

    @staticmethod
    def forward(context: Any, values: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
        context.save_for_backward(codes)
        n_samples, n_heads, n_voxels = values.shape
        numbers = torch.arange(n_codes, device=codes.device)[:, None]
        sums = values.new_zeros(n_samples, n_codes, n_heads)
        counts = values.new_zeros(n_samples, n_codes)
        chunk = max(CHUNK_ELEMENTS.get(values.device.type, 2**24) // max(n_samples * n_codes, 1), 1024)
        with torch.autocast(values.device.type, enabled=False):
            for start in range(0, n_voxels, chunk):
                indicator = (codes[:, None, start : start + chunk] == numbers).to(values.dtype)  # (B, N, chunk)
                sums += indicator @ values[:, :, start : start + chunk].transpose(1, 2)
                counts += indicator.sum(2)
        context.mark_non_differentiable(counts)
        return sums, counts

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (codes,) = context.saved_tensors
        return look_up_heads(gradients[0], codes), None, None
