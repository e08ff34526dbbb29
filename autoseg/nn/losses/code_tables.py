"""Tables indexed by label-set code: look-up per voxel, and sums over the voxels of each code.

Mask, target and weight of a voxel depend only on its code. They are therefore never computed at full size for each
class: values are summed once per code, and masks are applied to the (N, H) sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 2**17}
"""Device type -> largest number of elements of the indicator (B, N, chunk) in :func:`sum_by_code`, which then fits into
the processor's cache. On other devices it is 2**24, for fewer kernel launches."""


def flat_codes(codes: Tensor) -> Tensor:
    """Return codes (B, *P) of any integer type as (B, V) int64, with V voxels."""
    return codes.flatten(1).long()


def check_shapes(logits: Tensor, codes: Tensor, label_sets: Tensor, regions: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless the shapes of logits (B, H, *P), codes (B, *P) and label sets (B, N, K) agree.

    H is K for classes, or R for ``regions`` (R, K). Codes must be below N; this is not checked, because it would have
    to wait for the device.
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
    """Return (B, V): ``table[b, code]`` for ``table`` (B, N) and ``codes`` (B, V) int64."""
    return table.gather(1, codes)


def look_up_heads(table: Tensor, codes: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Return (B, H, V): ``table[b, code, h]`` for ``table`` (B, N, H) and ``codes`` (B, V) int64.

    The result is written to ``out`` (B, H, V) if given.
    """
    by_head = table.transpose(1, 2).contiguous()  # a third faster to read than ``table``
    return torch.gather(by_head, 2, codes[:, None].expand(-1, by_head.shape[1], -1), out=out)


def sum_by_code(values: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Return the sum of ``values`` over the voxels of each code, and the number of these voxels.

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
    """Return (B, N) bool: whether the set of each code, in ``label_sets`` (B, N, K), is neither empty nor complete."""
    return label_sets.any(-1) & ~label_sets.all(-1)


def annotated_codes(label_sets: Tensor, undrawn: Tensor) -> Tensor:
    """(B, N) bool: informative codes whose set (B, N, K) is not that of unannotated voxels.

    ``undrawn`` (B,) int64 is the code of unannotated voxels in each sample. Same rule as
    :func:`autoseg.dataset.labels.annotated_codes`.
    """
    row = label_sets[torch.arange(len(label_sets), device=label_sets.device), undrawn.to(label_sets.device)]  # (B, K)
    return informative_codes(label_sets) & (label_sets != row[:, None]).any(dim=2)


def head_states(label_sets: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(positive, negative)``, both (B, N, H) bool: whether each code decides each head. Undecided: both False.

    ``label_sets`` is (B, N, K), ``regions`` is (H, K). Same rule as :func:`autoseg.dataset.labels.head_states`.
    """
    known = label_sets.any(-1, keepdim=True)
    touches = (label_sets[:, :, None] & regions).any(-1)
    leaves = (label_sets[:, :, None] & ~regions).any(-1)
    return known & ~leaves, known & ~touches


class _SumByCode(torch.autograd.Function):
    """Sums over the voxels of each code.

    Forward: product with the indicator of each code, in chunks. Backward: look-up. Only the codes are stored between.
    """

    @staticmethod
    def forward(context: Any, values: Tensor, codes: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
        """Return sums (B, N, H) and counts (B, N) of ``values`` (B, H, V), for ``codes`` (B, V)."""
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
        """Return the gradient (B, H, V) of the values, for that of the sums (B, N, H)."""
        (codes,) = context.saved_tensors
        return look_up_heads(gradients[0], codes), None, None
