"""Contents of windows and their logits; windows of equal constant content are computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.core.arrays import Shape3
from autoseg.core.progress import Progress
from autoseg.inference.ensemble import Ensemble


@dataclass(eq=False, slots=True)
class _Content:
    """Voxels of one window, or of several equal constant ones, and their logits."""

    voxels: Tensor | None
    """(C, *patch), with three patch axes; None as soon as the logits are computed, since it keeps a volume alive."""
    constant: Tensor | None
    """(C,) value of each channel if every channel is constant, otherwise None."""
    logits: Tensor | None = None
    """(O, *patch) times the weights of the voxels; None until they are computed."""


def weighted_windows(
    ensemble: Ensemble,
    cut: Callable[[Shape3], Tensor],
    corners: Sequence[Shape3],
    patch_size: Sequence[int],
    importance: Tensor,
    batch_size: int,
    progress: Progress,
    *,
    fills_up: bool = False,
) -> Iterator[tuple[Shape3, Tensor]]:
    """Yield ``(first voxel, logits (O, *patch) times the weights of the voxels)`` of the windows at ``corners``.

    Windows whose logits are already computed do not count for a batch, so all batches but the last are full.

    Parameters
    ----------
    ensemble
        Sum of the logits of networks and mirrored copies.
    cut
        Function that returns the voxels (C, *patch) at a corner; it is called once for each, in order.
    corners
        First voxels of the windows.
    patch_size
        Patch of the networks, of 2 or 3 axes.
    importance
        (*patch) with three axes, on the device: weight of each voxel by the number of copies.
    batch_size
        Windows per forward pass.
    progress
        Called with (windows done, windows in all, "windows").
    fills_up
        Whether the last batch is filled up with copies, because the last bits of logits depend on the size of a batch.
    """
    n_windows = len(corners)
    batch: list[_Content] = []
    waiting: list[tuple[Shape3, _Content]] = []
    for number, (corner, content) in enumerate(_contents(cut, corners), 1):
        waiting.append((corner, content))
        if content.logits is None and content not in batch:
            batch.append(content)
        if 0 < len(batch) < batch_size and number < n_windows:
            continue
        if batch:
            _fill(batch, ensemble, importance, patch_size, batch_size if fills_up else 0)
            batch = []
        yield from ((corner, content.logits) for corner, content in waiting if content.logits is not None)
        waiting = []
        progress(number, n_windows, "windows")


def _fill(
    batch: Sequence[_Content], ensemble: Ensemble, importance: Tensor, patch_size: Sequence[int], least: int
) -> None:
    """Compute the logits (O, *patch) of windows in one forward pass, times ``importance`` (*patch), in place.

    Copies of the last window make a batch of at least ``least``.
    """
    voxels = [item.voxels for item in batch if item.voxels is not None]
    patches = torch.stack(voxels + voxels[-1:] * (least - len(voxels)))
    logits = ensemble(patches.reshape(*patches.shape[:2], *patch_size))
    logits = logits.reshape(*logits.shape[:2], *importance.shape).mul_(importance)
    for item, own in zip(batch, logits, strict=False):
        item.logits, item.voxels = own, None


def _contents(cut: Callable[[Shape3], Tensor], corners: Sequence[Shape3]) -> Iterator[tuple[Shape3, _Content]]:
    """Yield first voxel and content of the windows at ``corners``, in order.

    A constant window shares the content of the previous constant window if the values are equal. Only the previous one
    is remembered, to bound memory.
    """
    last: _Content | None = None
    for corner in corners:
        voxels = cut(corner)
        content = _Content(voxels, _constant_values(voxels))
        if content.constant is not None:
            if last is not None and last.constant is not None and torch.equal(last.constant, content.constant):
                content = last
            last = content
        yield corner, content


def _constant_values(voxels: Tensor) -> Tensor | None:
    """Return the values (C,) of a window (C, z, y, x) that is constant in every channel, otherwise None."""
    first = voxels[:, 0, 0, 0]
    z, y, x = (edge // 2 for edge in voxels.shape[1:])
    if not (torch.equal(first, voxels[:, z, y, x]) and torch.equal(first, voxels[:, -1, -1, -1])):
        return None  # decides most windows at once
    return first.clone() if bool((voxels == first[:, None, None, None]).all()) else None
