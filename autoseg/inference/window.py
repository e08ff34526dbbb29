"""Sliding window: logits of a whole image as Gaussian-weighted means of overlapping patches, yielded slab by slab."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor, nn

from autoseg.core.arrays import Float32Array, Shape3
from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.plan import Configuration
from autoseg.core.progress import Progress, silent
from autoseg.inference.boxed_image import BoxedImage, RollingPlanes
from autoseg.inference.ensemble import Ensemble, mirrorings
from autoseg.inference.plane_sums import PartialPlaneSums, PlaneSums, outer
from autoseg.inference.window_contents import weighted_windows

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

    def corners_over(self, region: Box, patch: Shape3) -> Iterator[Shape3]:
        """Return the first voxels of the windows of shape ``patch`` that reach into a box, in the same order."""
        along_z, along_y, along_x = (
            [first for first in positions if first < stop and first + edge > start]
            for positions, edge, start, stop in zip(self.positions, patch, region.start, region.stop, strict=True)
        )
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
    image: Float32Array | Tensor | BoxedImage,
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
        (C, *S) float32, normalised and resampled. A 2-D configuration predicts every slice along axis 0. Of an image
        that is read box by box only the windows are computed that reach into its region.
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
        Index of the first plane and (O, planes, y, x) float32, in the order of the planes; together (O, *S), or
        (O, *region) for a region, whose planes count from 0. With ``separate`` ((1 + M) O, planes, y, x), in slabs of
        as many planes.

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
    n_windows = batch_size or default_batch(configuration.patch_size, device)
    windows = _windows(image, configuration.patch_size, step, selection)
    return _stream(ensemble, windows, n_windows, progress, slab_values * ensemble.n_sums)


@dataclass(frozen=True, slots=True)
class _Windows:
    """The windows that are predicted, and the voxels that their logits are summed for."""

    grid: WindowGrid
    patch_size: tuple[int, ...]
    selection: WindowSelection | None
    region: Box
    """Voxels (z, y, x) of the padded image whose logits are yielded."""
    corners: tuple[Shape3, ...]
    """First voxels in the padded image."""
    cut: Callable[[Shape3], Tensor]
    """Return the voxels (C, *patch) of the window with a first voxel; called for each of ``corners``, in order."""
    is_part: bool
    """Whether the region is one of several, so that the last bits must not depend on which."""


def _windows(
    image: Float32Array | Tensor | BoxedImage,
    patch_size: Sequence[int],
    step: float,
    selection: WindowSelection | None,
) -> _Windows:
    """Return the windows over an image (C, *S), or those that reach into the region of one that is read by boxes."""
    patch, (z, y, x) = window_shape(patch_size), image.shape[1:]
    grid = volume_grid((z, y, x), patch_size, step)
    offset = (grid.pad_low[0], grid.pad_low[1], grid.pad_low[2])
    if isinstance(image, BoxedImage):
        region = image.region.shifted(offset)
        corners = tuple(grid.corners_over(region, patch))
        cut = RollingPlanes(image, corners, patch, offset).cut
    else:
        region = Box.whole((z, y, x)).shifted(offset)
        corners = tuple(grid.corners()) if selection is None else selection.corners
        whole = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, np.float32, ["C", "W"]))
        cut = partial(_cut, pad_nd_image(whole, grid.padded), patch)  # zeros, the odd voxel on the high side
    return _Windows(grid, tuple(patch_size), selection, region, corners, cut, isinstance(image, BoxedImage))


def _cut(volume: Tensor, patch: Shape3, corner: Shape3) -> Tensor:
    """Return a view of the window (C, *patch) of a volume (C, z, y, x)."""
    z, y, x = corner
    return volume[:, z : z + patch[0], y : y + patch[1], x : x + patch[2]]


@torch.inference_mode()
def _stream(
    ensemble: Ensemble, windows: _Windows, batch_size: int, progress: Progress, slab_values: int
) -> Iterator[Slab]:
    """Yield slabs of logits (O, planes, y, x) of the region of ``windows``; see :func:`stream_logits`."""
    profiles = [gaussian_profile(edge) for edge in window_shape(windows.patch_size)]
    importance = outer(profiles).div_(ensemble.n_copies).to(ensemble.device)
    first = windows.region.start[0]
    sums: PlaneSums | PartialPlaneSums | None = None
    weighted = weighted_windows(
        ensemble, windows.cut, windows.corners, windows.patch_size, importance, batch_size, progress,
        fills_up=windows.is_part,
    )  # fmt: skip
    for corner, window in weighted:
        if sums is None:
            sums = _sums(window, windows, ensemble.device)
        yield from _taken(sums, corner[0] - first, slab_values)
        sums.add(corner, window)
        del window  # frees its memory before the networks compute the next
    if sums is not None:
        yield from _taken(sums, windows.region.shape[0], slab_values)


def _sums(window: Tensor, windows: _Windows, device: torch.device) -> PlaneSums | PartialPlaneSums:
    """Return empty sums for windows like ``window`` (O, *patch): the plain ones if all windows are predicted."""
    grid, selection, region = windows.grid, windows.selection, windows.region
    if selection is None or len(selection.corners) == grid.n_windows:
        weights = _weights(grid, windows.patch_size)
        inside = [axis[span] for axis, span in zip(weights, region.slices, strict=True)]
        return PlaneSums(window.shape, inside, device, region.start)
    profiles = [gaussian_profile(edge) for edge in window_shape(windows.patch_size)]
    elsewhere = selection.elsewhere.repeat(len(window) // len(selection.elsewhere))
    return PartialPlaneSums(profiles, region, elsewhere, device)


def _taken(sums: PlaneSums | PartialPlaneSums, stop: int, slab_values: int) -> Iterator[Slab]:
    """Yield the finished planes up to ``stop`` as arrays; planes count from the first of the region."""
    for first, planes in sums.take(stop, slab_values):
        yield first, planes.cpu().numpy()


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
