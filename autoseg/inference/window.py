"""Sliding window: logits of a whole image as Gaussian-weighted means of overlapping patches, yielded slab by slab."""

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
from autoseg.inference.plane_sums import PartialPlaneSums, PlaneSums, outer

Slab = tuple[int, Float32Array]
"""Index of the first plane, and logits (O, planes, y, x) float32 from that plane on; the receiver may change them."""

_SIGMA_SHARE = 1 / 8
_VOXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}
_MAX_BATCH = 16
SLAB_VALUES = 2**23
"""Number of logits of a slab: 32 MiB."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Positions of the windows in a padded image."""

    pad_low: tuple[int, ...]
    """Number of zero voxels added before the image, per axis of the windows; as many or one more are added after it."""
    padded: tuple[int, ...]
    """Shape after padding, at least that of the patch."""
    positions: tuple[tuple[int, ...], ...]
    """Index of the first voxel of the windows along each axis; the windows are all combinations."""

    @property
    def n_windows(self) -> int:
        """Number of windows."""
        return math.prod(map(len, self.positions))

    def corners(self) -> Iterator[Shape3]:
        """Return the first voxel (z, y, x) of every window of a grid with three axes, the last axis fastest."""
        along_z, along_y, along_x = self.positions
        return itertools.product(along_z, along_y, along_x)


@dataclass(frozen=True, eq=False, slots=True)
class WindowSelection:
    """Those of the windows over an image that are predicted, and the logits where none of them lies."""

    corners: tuple[Shape3, ...]
    """First voxels (z, y, x) in the padded image, at least one, in the order of :meth:`WindowGrid.corners`."""
    elsewhere: Tensor
    """(O,) float32 on the CPU: logits of every voxel that no selected window covers, and of every member there."""


def window_positions(size: int, patch: int, step: float) -> tuple[int, ...]:
    """Return the first voxels of the windows along one axis: evenly spread, from 0 to ``size - patch``.

    Parameters
    ----------
    size, patch
        Edges of image and patch in voxels, ``size >= patch``.
    step
        Largest distance of neighbouring windows as a share of the patch, in (0, 1].

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
    """Return the windows over an image of ``shape``; axes smaller than the patch are padded on both sides."""
    padded = tuple(max(size, edge) for size, edge in zip(shape, patch, strict=True))
    pad_low = tuple((wide - size) // 2 for wide, size in zip(padded, shape, strict=True))
    positions = tuple(window_positions(wide, edge, step) for wide, edge in zip(padded, patch, strict=True))
    return WindowGrid(pad_low, padded, positions)


def gaussian_profile(edge: int) -> Tensor:
    """Return the weight of each voxel along one axis of a patch: (edge,) float32 in (0, 1], sigma = edge / 8.

    The weight of a voxel is the product over the axes. Source: nnU-Net ``sliding_window_prediction.py``
    (compute_gaussian); differs in that weights are not rounded to half precision, so none becomes zero.
    """
    distance = torch.arange(edge, dtype=torch.float64) - edge // 2
    return torch.exp(-0.5 * (distance / (edge * _SIGMA_SHARE)) ** 2).float()


def default_batch(patch_size: Sequence[int], device: torch.device) -> int:
    """Return the number of windows per forward pass, by patch size and device: many small ones or one large one."""
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
    """Return the logits (O, *S) float32 of a preprocessed image (C, *S) as one array; see :func:`stream_logits`."""
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
    """Return slabs joined to logits (O, n_planes, y, x) float32; without slabs (0, n_planes, 0, 0)."""
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
    selection: WindowSelection | None = None,
    separate: bool = False,
    offsets: Sequence[tuple[int, int, int]] = (),
) -> Iterator[Slab]:
    """Yield the logits of a preprocessed image, slab by slab: Gaussian-weighted means of overlapping windows.

    A plane of axis 0 is yielded as soon as no later window covers it. Sums are kept for as many planes as a patch has
    (one for 2-D patches), in float32. A window that is constant in every channel (clipped air, zeros) gets the logits
    of the previous constant window if the values are the same, so that the networks compute them once.

    Parameters
    ----------
    networks
        One, or the members of an ensemble (folds), on ``device`` and in evaluation mode. Each maps (B, C, *P) to
        (B, O, *P). Logits are averaged over members and mirrored copies.
    image
        (C, *S) float32, normalised and resampled. A 2-D configuration predicts every slice along axis 0.
    mirror_axes
        Patch axes (from 0) that were mirrored in training; all their combinations are averaged.
    step
        Largest distance of neighbouring windows as a share of the patch, in (0, 1].
    device
        Device of the networks; None is the CPU.
    batch_size
        Windows per forward pass; the result does not depend on it. Default by patch size and device.
    autocast_dtype
        Type for mixed precision; None computes in float32.
    progress
        Called with (windows done, windows in all, "windows").
    slab_values
        Approximate number of logits of a slab; at least one plane of all outputs.
    selection
        Windows to predict, of those that ``step`` gives; None predicts all. The others do not count in the means.
    separate
        Whether the logits of each of the M networks follow as O more outputs; the mean is the same, bit for bit.
    offsets
        Those of the outputs, if some speak of pairs of voxels; see :func:`autoseg.tasks.affinities.output_offsets`.

    Yields
    ------
    first, logits
        Index of the first plane and (O, planes, y, x) float32, in the order of the planes; together (O, *S).
        With ``separate`` ((1 + M) O, planes, y, x), in slabs of as many planes.

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
    ensemble = Ensemble(members, mirrorings(mirror_axes), device, autocast_dtype, separate, tuple(offsets))
    slab_values *= ensemble.n_sums
    n_windows = batch_size or default_batch(configuration.patch_size, device)
    volume = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, np.float32, ["C", "W"]))
    grid = volume_grid(volume.shape[1:], configuration.patch_size, step)
    return _stream(ensemble, volume, grid, configuration.patch_size, selection, n_windows, progress, slab_values)


@torch.inference_mode()
def _stream(
    ensemble: Ensemble,
    volume: Tensor,
    grid: WindowGrid,
    patch_size: Sequence[int],
    selection: WindowSelection | None,
    batch_size: int,
    progress: Progress,
    slab_values: int,
) -> Iterator[Slab]:
    """Yield slabs of logits (O, planes, y, x) of an image (C, *S); see :func:`stream_logits`."""
    inside = tuple(slice(low, low + size) for low, size in zip(grid.pad_low, volume.shape[1:], strict=True))
    volume = pad_nd_image(volume, grid.padded)  # zeros, the odd voxel on the high side
    corners = tuple(grid.corners()) if selection is None else selection.corners
    sums: PlaneSums | PartialPlaneSums | None = None
    for corner, window in _weighted_windows(ensemble, volume, corners, patch_size, batch_size, progress):
        if sums is None:
            sums = _sums(window, grid, patch_size, selection, ensemble.device)
        yield from _cut(sums.take(corner[0], slab_values), inside)
        sums.add(corner, window)
        del window  # frees its memory before the networks compute the next
    if sums is not None:
        yield from _cut(sums.take(grid.padded[0], slab_values), inside)


def _sums(
    window: Tensor,
    grid: WindowGrid,
    patch_size: Sequence[int],
    selection: WindowSelection | None,
    device: torch.device,
) -> PlaneSums | PartialPlaneSums:
    """Return empty sums for windows like ``window`` (O, *patch): the plain ones if all windows are predicted."""
    if selection is None or len(selection.corners) == grid.n_windows:
        return PlaneSums(window.shape, _weights(grid, patch_size), device)
    profiles = [gaussian_profile(edge) for edge in window_shape(patch_size)]
    z, y, x = grid.padded
    elsewhere = selection.elsewhere.repeat(len(window) // len(selection.elsewhere))
    return PartialPlaneSums(profiles, (z, y, x), elsewhere, device)


def _cut(slabs: Iterable[tuple[int, Tensor]], inside: tuple[slice, ...]) -> Iterator[Slab]:
    """Remove the padding from slabs (O, planes, y, x), whose plane indices include it."""
    for first, planes in slabs:
        low, high = max(first, inside[0].start), min(first + planes.shape[1], inside[0].stop)
        if low < high:
            cut = planes[(slice(None), slice(low - first, high - first), *inside[1:])]
            yield low - inside[0].start, cut.cpu().numpy()


def volume_grid(shape: Sequence[int], patch_size: Sequence[int], step: float) -> WindowGrid:
    """Return windows with three axes over an image of ``shape`` (z, y, x); 2-D windows are one plane deep."""
    if len(patch_size) == 3:
        return window_grid(shape, patch_size, step)
    across = window_grid(shape[1:], patch_size, step)
    every_plane = tuple(range(shape[0]))
    return WindowGrid((0, *across.pad_low), (shape[0], *across.padded), (every_plane, *across.positions))


def window_shape(patch_size: Sequence[int]) -> Shape3:
    """Return the shape of a window with three axes; a 2-D window is one plane deep."""
    z, y, x = (*[1] * (3 - len(patch_size)), *patch_size)
    return (z, y, x)


@dataclass(eq=False, slots=True)
class _Content:
    """Voxels of one window, or of several equal constant ones, and their logits."""

    voxels: Tensor
    """(C, *patch), with three patch axes."""
    constant: Tensor | None
    """(C,) value of each channel if every channel is constant, otherwise None."""
    logits: Tensor | None = None
    """(O, *patch) times the weights of the voxels; None until they are computed."""


def _weighted_windows(
    ensemble: Ensemble,
    volume: Tensor,
    corners: Sequence[Shape3],
    patch_size: Sequence[int],
    batch_size: int,
    progress: Progress,
) -> Iterator[tuple[Shape3, Tensor]]:
    """Yield ``(first voxel, logits (O, *patch) times the weights of the voxels)`` of the windows at ``corners``.

    Windows whose logits are already computed do not count for a batch, so all batches but the last are full.
    """
    patch = window_shape(patch_size)
    importance = outer([gaussian_profile(edge) for edge in patch]).div_(ensemble.n_copies).to(ensemble.device)
    n_windows = len(corners)
    batch: list[_Content] = []
    waiting: list[tuple[Shape3, _Content]] = []
    for number, (corner, content) in enumerate(_contents(volume, corners, patch), 1):
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
    """Compute the logits (O, *patch) of windows in one forward pass, times ``importance`` (*patch), in place."""
    patches = torch.stack([item.voxels for item in batch])
    logits = ensemble(patches.reshape(*patches.shape[:2], *patch_size))
    logits = logits.reshape(*logits.shape[:2], *importance.shape).mul_(importance)
    for item, own in zip(batch, logits, strict=True):
        item.logits = own


def _contents(volume: Tensor, corners: Sequence[Shape3], patch: Shape3) -> Iterator[tuple[Shape3, _Content]]:
    """Yield first voxel and content of the windows of ``volume`` (C, z, y, x) at ``corners``, in order.

    A constant window shares the content of the previous constant window if the values are equal. Only the previous one
    is remembered, to bound memory.
    """
    last: _Content | None = None
    for z, y, x in corners:
        voxels = volume[:, z : z + patch[0], y : y + patch[1], x : x + patch[2]]
        content = _Content(voxels, _constant_values(voxels))
        if content.constant is not None:
            if last is not None and last.constant is not None and torch.equal(last.constant, content.constant):
                content = last
            last = content
        yield (z, y, x), content


def _constant_values(voxels: Tensor) -> Tensor | None:
    """Return the values (C,) of a window (C, z, y, x) that is constant in every channel, otherwise None."""
    first = voxels[:, 0, 0, 0]
    z, y, x = (edge // 2 for edge in voxels.shape[1:])
    if not (torch.equal(first, voxels[:, z, y, x]) and torch.equal(first, voxels[:, -1, -1, -1])):
        return None  # decides most windows at once
    return first if bool((voxels == first[:, None, None, None]).all()) else None


def _weights(grid: WindowGrid, patch_size: Sequence[int]) -> tuple[Tensor, ...]:
    """Return one over the summed weights of all windows, as three float64 profiles (z,), (y,), (x,) to be multiplied.

    The windows form a grid and the Gaussian is a product over axes, so the sum over windows is a product of sums per
    axis, and no map of weights is needed.
    """
    weights = []
    for positions, edge, size in zip(grid.positions, window_shape(patch_size), grid.padded, strict=True):
        profile = gaussian_profile(edge).double()
        total = torch.zeros(size, dtype=torch.float64)
        for first in positions:
            total[first : first + edge] += profile
        weights.append(1 / total)
    return tuple(weights)
