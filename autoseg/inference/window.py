"""Dense logits of a whole image from networks that see one patch: windows, Gaussian weights, slab by slab."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor, nn

from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.plan import Configuration
from autoseg.core.progress import Progress, silent
from autoseg.inference.ensemble import Ensemble, mirrorings
from autoseg.inference.plane_sums import RollingSums, outer

Slab = tuple[int, Float32Array]
"""First plane, and logits (H, planes, y, x) of that plane and those behind it; belongs to whoever gets it."""

_SIGMA_SHARE = 1 / 8
_VOXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}
_MAX_BATCH = 16
SLAB_VALUES = 2**23
"""Logits that are handled at a time: 32 MB."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Where the windows of a padded image lie."""

    pad_low: tuple[int, ...]
    """Voxels of zeros added before the image, per axis of the windows' space; the same or one more come after it."""
    padded: tuple[int, ...]
    """Shape after padding, at least the patch."""
    positions: tuple[tuple[int, ...], ...]
    """First voxels of the windows, per axis; the windows are all combinations."""


def window_positions(size: int, patch: int, step: float) -> tuple[int, ...]:
    """Return the first voxels of the windows along one axis: evenly spread, the first at 0, the last at the end.

    Parameters
    ----------
    size, patch
        Voxels, ``size >= patch``.
    step
        Largest distance of two windows as a share of the patch, in (0, 1].

    Notes
    -----
    Source: nnU-Net ``inference/sliding_window_prediction.py`` (compute_steps_for_sliding_window).
    """
    room = size - patch
    n_steps = math.ceil(room / (patch * step)) + 1
    if n_steps == 1:
        return (0,)
    return tuple(int(np.round(index * room / (n_steps - 1))) for index in range(n_steps))


def window_grid(shape: Sequence[int], patch: Sequence[int], step: float) -> WindowGrid:
    """Lay windows over an image of ``shape``; axes smaller than the patch are padded on both sides."""
    padded = tuple(max(size, edge) for size, edge in zip(shape, patch, strict=True))
    pad_low = tuple((wide - size) // 2 for wide, size in zip(padded, shape, strict=True))
    positions = tuple(window_positions(wide, edge, step) for wide, edge in zip(padded, patch, strict=True))
    return WindowGrid(pad_low, padded, positions)


def gaussian_profile(edge: int) -> Tensor:
    """(edge,) float32 in (0, 1]: importance of a voxel along one axis of a patch, sigma = edge / 8.

    The importance of a voxel is the product over the axes. Source: nnU-Net ``sliding_window_prediction.py``
    (compute_gaussian); differs in that it is never rounded to zero, so nothing has to be replaced.
    """
    distance = torch.arange(edge, dtype=torch.float64) - edge // 2
    return torch.exp(-0.5 * (distance / (edge * _SIGMA_SHARE)) ** 2).float()


def default_batch(patch_size: Sequence[int], device: torch.device) -> int:
    """Return how many windows go through the network together: many small ones or one large one."""
    voxels = _VOXELS_PER_BATCH.get(device.type, _VOXELS_PER_BATCH["cpu"])
    return max(1, min(_MAX_BATCH, voxels // math.prod(patch_size)))


def check_window_settings(step: float, batch_size: int | None) -> None:
    """Raise ``ConfigError`` unless ``step`` lies in (0, 1] and ``batch_size`` is at least 1 (or None)."""
    if not 0 < step <= 1:
        raise ConfigError(f"step: found {step}, expected a share of the patch above 0 and at most 1. Write 0.5.")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch of windows: found {batch_size}, expected at least 1. Leave it out for the default.")


def predict_logits(
    networks: nn.Module | Sequence[nn.Module],
    image: Float32Array | Tensor,
    configuration: Configuration,
    *,
    mirror_axes: Sequence[int] = (),
    step: float = 0.5,
    device: torch.device | None = None,
    batch_size: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    progress: Progress = silent,
) -> Float32Array:
    """Return the logits (H, *S) float32 of a preprocessed image, all at once; see :func:`stream_logits`."""
    slabs = stream_logits(
        networks,
        image,
        configuration,
        mirror_axes=mirror_axes,
        step=step,
        device=device,
        batch_size=batch_size,
        autocast_dtype=autocast_dtype,
        progress=progress,
    )
    return join_slabs(slabs, image.shape[1])


def join_slabs(slabs: Iterable[Slab], n_planes: int) -> Float32Array:
    """Return the logits (H, n_planes, y, x) whose planes ``slabs`` hold; without a slab there are no heads."""
    logits: Float32Array = np.empty((0, n_planes, 0, 0), dtype=np.float32)
    for first, slab in slabs:
        if first == 0:
            logits = np.empty((len(slab), n_planes, *slab.shape[2:]), dtype=np.float32)
        logits[:, first : first + slab.shape[1]] = slab
    return logits


def stream_logits(
    networks: nn.Module | Sequence[nn.Module],
    image: Float32Array | Tensor,
    configuration: Configuration,
    *,
    mirror_axes: Sequence[int] = (),
    step: float = 0.5,
    device: torch.device | None = None,
    batch_size: int | None = None,
    autocast_dtype: torch.dtype | None = None,
    progress: Progress = silent,
    slab_values: int = SLAB_VALUES,
) -> Iterator[Slab]:
    """Yield the logits of a preprocessed image, slab by slab: Gaussian-weighted means of overlapping windows.

    A plane of axis 0 comes as soon as no later window covers it. Sums are kept for as many planes as a patch has (one
    for 2-D patches), in float32. A window that is constant in every channel (air, clipped; zeros) has the logits of
    the last such window with the same values: the networks see it once.

    Parameters
    ----------
    networks
        One, or the members of an ensemble (folds), on ``device`` and in evaluation mode. Each maps (B, C, *P) to
        (B, H, *P). The mean is taken over members and mirrored copies, of logits.
    image
        (C, *S) float32, normalised and resampled. A 2-D configuration predicts every slice along axis 0.
    mirror_axes
        Axes of the patch (0 is its first) along which the training mirrored; all their combinations are averaged.
    step
        Largest distance of neighbouring windows as a share of the patch, in (0, 1].
    device
        Where the networks are; default the CPU.
    batch_size
        Windows per forward pass; the result does not depend on it. Default by patch size and device.
    autocast_dtype
        Type for mixed precision; None computes in float32.
    progress
        Called with (windows done, windows in all, "windows").
    slab_values
        About how many logits a slab has; at least one plane of all heads.

    Yields
    ------
    first, logits
        First plane and (H, planes, y, x) float32, in the order of the planes; together (H, *S).

    Raises
    ------
    ConfigError
        If ``step`` or ``batch_size`` is out of range.
    ModelError
        If there is no network or no voxel, or the networks give NaN or infinite logits in float32 too.
    """
    check_window_settings(step, batch_size)
    if 0 in image.shape[1:]:
        raise ModelError("image: found no voxels, expected at least one. Check the preprocessed image.")
    members = (networks,) if isinstance(networks, nn.Module) else tuple(networks)
    device = device or torch.device("cpu")
    ensemble = Ensemble(members, mirrorings(mirror_axes), device, autocast_dtype)
    n_windows = batch_size or default_batch(configuration.patch_size, device)
    return _stream(ensemble, image, configuration.patch_size, step, n_windows, progress, slab_values)


@torch.inference_mode()
def _stream(
    ensemble: Ensemble,
    image: Float32Array | Tensor,
    patch_size: Sequence[int],
    step: float,
    batch_size: int,
    progress: Progress,
    slab_values: int,
) -> Iterator[Slab]:
    volume = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, np.float32, ["C", "W"]))
    grid = _grid(volume.shape[1:], patch_size, step)
    inside = tuple(slice(low, low + size) for low, size in zip(grid.pad_low, volume.shape[1:], strict=True))
    volume = pad_nd_image(volume, grid.padded)  # zeros, the odd voxel on the high side
    sums: RollingSums | None = None
    for corner, window in _weighted_windows(ensemble, volume, grid, patch_size, batch_size, progress):
        if sums is None:
            sums = RollingSums(window.shape, _weights(grid, patch_size), ensemble.device)
        yield from _cut(sums.take(corner[0], slab_values), inside)
        sums.add(corner, window)
        del window  # as large as what the networks make next
    if sums is not None:
        yield from _cut(sums.take(grid.padded[0], slab_values), inside)


def _cut(slabs: Iterable[tuple[int, Tensor]], inside: tuple[slice, ...]) -> Iterator[Slab]:
    """Leave the padding out of planes (H, planes, y, x) that are numbered with it."""
    for first, planes in slabs:
        low, high = max(first, inside[0].start), min(first + planes.shape[1], inside[0].stop)
        if low < high:
            cut = planes[(slice(None), slice(low - first, high - first), *inside[1:])]
            yield low - inside[0].start, cut.cpu().numpy()


def _grid(shape: Sequence[int], patch_size: Sequence[int], step: float) -> WindowGrid:
    """Lay windows over three axes: those of a 2-D configuration are one plane deep, one for every plane."""
    if len(patch_size) == 3:
        return window_grid(shape, patch_size, step)
    across = window_grid(shape[1:], patch_size, step)
    every_plane = tuple(range(shape[0]))
    return WindowGrid((0, *across.pad_low), (shape[0], *across.padded), (every_plane, *across.positions))


def _patch(patch_size: Sequence[int]) -> Shape3:
    """Return the voxels of a window in three axes."""
    z, y, x = (*[1] * (3 - len(patch_size)), *patch_size)
    return (z, y, x)


@dataclass(eq=False, slots=True)
class _Content:
    """What windows show, and what the networks say of it."""

    voxels: Tensor
    """(C, *patch) in three axes."""
    constant: Tensor | None
    """(C,) the one value of each channel, if there is one."""
    logits: Tensor | None = None
    """(H, *patch) times their importance, once they are there."""


def _weighted_windows(
    ensemble: Ensemble,
    volume: Tensor,
    grid: WindowGrid,
    patch_size: Sequence[int],
    batch_size: int,
    progress: Progress,
) -> Iterator[tuple[Shape3, Tensor]]:
    """Yield ``(first voxel, logits (H, *patch) times their importance)`` of every window, in order.

    Windows whose logits are there already do not count for a batch: all batches but the last are full.
    """
    patch = _patch(patch_size)
    importance = outer([gaussian_profile(edge) for edge in patch]).div_(ensemble.n_copies).to(ensemble.device)
    n_windows = math.prod(map(len, grid.positions))
    batch: list[_Content] = []
    waiting: list[tuple[Shape3, _Content]] = []
    for number, (corner, content) in enumerate(_contents(volume, grid, patch), 1):
        waiting.append((corner, content))
        if content.logits is None and content not in batch:
            batch.append(content)
        if 0 < len(batch) < batch_size and number < n_windows:
            continue
        if batch:
            _fill(batch, ensemble, importance, patch_size)
            batch = []
        yield from ((corner, content.logits) for corner, content in waiting if content.logits is not None)
        waiting = []
        progress(number, n_windows, "windows")


def _fill(batch: Sequence[_Content], ensemble: Ensemble, importance: Tensor, patch_size: Sequence[int]) -> None:
    """Compute the weighted logits of windows together."""
    patches = torch.stack([item.voxels for item in batch])
    logits = ensemble(patches.reshape(*patches.shape[:2], *patch_size))
    logits = logits.reshape(*logits.shape[:2], *importance.shape).mul_(importance)
    for item, own in zip(batch, logits, strict=True):
        item.logits = own


def _contents(volume: Tensor, grid: WindowGrid, patch: Shape3) -> Iterator[tuple[Shape3, _Content]]:
    """Yield first voxel and content of every window, in order; a constant one shares that of the last with its values.

    Only the last is remembered, so that no more than one is kept.
    """
    last: _Content | None = None
    for z, y, x in itertools.product(*grid.positions):
        voxels = volume[:, z : z + patch[0], y : y + patch[1], x : x + patch[2]]
        content = _Content(voxels, _constant_values(voxels))
        if content.constant is not None:
            if last is not None and last.constant is not None and torch.equal(last.constant, content.constant):
                content = last
            last = content
        yield (z, y, x), content


def _constant_values(voxels: Tensor) -> Tensor | None:
    """(C,) the values of a window (C, z, y, x) that is constant in every channel, else None."""
    first = voxels[:, 0, 0, 0]
    z, y, x = (edge // 2 for edge in voxels.shape[1:])
    if not (torch.equal(first, voxels[:, z, y, x]) and torch.equal(first, voxels[:, -1, -1, -1])):
        return None  # most windows need no closer look
    return first if bool((voxels == first[:, None, None, None]).all()) else None


def _weights(grid: WindowGrid, patch_size: Sequence[int]) -> tuple[Tensor, ...]:
    """Return one over the summed importance of the windows as three profiles (float64) whose product it is.

    The windows are a grid and the Gaussian is a product over axes, so the sum over windows is a product of sums, too:
    no map of weights is kept.
    """
    weights = []
    for positions, edge, size in zip(grid.positions, _patch(patch_size), grid.padded, strict=True):
        profile = gaussian_profile(edge).double()
        total = torch.zeros(size, dtype=torch.float64)
        for first in positions:
            total[first : first + edge] += profile
        weights.append(1 / total)
    return tuple(weights)
