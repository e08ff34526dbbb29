"""Dense logits of a whole image from a network that sees one patch: windows, Gaussian weights, mirroring, folds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from torch import Tensor, nn

from autoseg.core.case import Float32Array
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.plan import Configuration

_SIGMA_SHARE = 1 / 8
_VOXELS_PER_BATCH = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}
_MAX_BATCH = 16


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
    progress: Callable[[int, int], None] | None = None,
) -> Float32Array:
    """Return the logits of a preprocessed image: Gaussian-weighted mean of overlapping windows.

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
        Type for mixed precision; None computes in float32. Sums are float32 in any case.
    progress
        Called with (windows done, windows in all).

    Returns
    -------
    ndarray
        (H, *S) float32.

    Raises
    ------
    ConfigError
        If ``step`` or ``batch_size`` is out of range.
    ModelError
        If the networks give NaN or infinite logits in float32 too.
    """
    check_window_settings(step, batch_size)
    members = (networks,) if isinstance(networks, nn.Module) else tuple(networks)
    device = device or torch.device("cpu")
    patch = configuration.patch_size
    ensemble = _Ensemble(members, _mirrorings(mirror_axes), device, autocast_dtype)
    with torch.inference_mode():
        volume = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, np.float32, ["C", "W"]))
        spatial = volume.shape[2:] if configuration.is_2d else volume.shape[1:]
        grid = window_grid(spatial, patch, step)
        volume = pad_nd_image(volume, grid.padded)  # zeros, the odd voxel on the high side
        windows = list(_windows(grid, patch, volume.shape[1] if configuration.is_2d else None))
        sums = _accumulate(ensemble, volume, windows, patch, batch_size or default_batch(patch, device), progress)
        _normalize(sums, grid, patch)
        for axis, (low, size) in enumerate(zip(grid.pad_low, spatial, strict=True), start=-len(patch)):
            sums = sums.narrow(axis, low, size)
        result: Float32Array = sums.cpu().numpy()
    return result


@dataclass(frozen=True, slots=True)
class _Ensemble:
    """Networks and mirrorings whose logits are averaged."""

    members: tuple[nn.Module, ...]
    mirrorings: tuple[tuple[int, ...], ...]
    device: torch.device
    autocast_dtype: torch.dtype | None

    def __call__(self, patches: Tensor) -> Tensor:
        """(B, C, *P) -> (B, H, *P) float32; computed again in float32 if mixed precision overflowed."""
        patches = patches.to(self.device)
        logits = self._mean(patches, self.autocast_dtype)
        if bool(torch.isfinite(logits).all()):
            return logits
        if self.autocast_dtype is not None:
            logits = self._mean(patches, None)
        if not bool(torch.isfinite(logits).all()):
            raise ModelError(
                "network: found NaN or infinite logits, expected numbers. The training diverged: train again, "
                "or choose another checkpoint."
            )
        return logits

    def _mean(self, patches: Tensor, dtype: torch.dtype | None) -> Tensor:
        total: Tensor | None = None
        with torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            for network, axes in itertools.product(self.members, self.mirrorings):
                logits = network(patches.flip(axes) if axes else patches)
                logits = (logits.flip(axes) if axes else logits).float()
                total = logits if total is None else total.add_(logits)
        if total is None:
            raise ModelError("ensemble: found no network, expected at least one. Name a fold that is trained.")
        return total.div_(len(self.members) * len(self.mirrorings))


def _mirrorings(mirror_axes: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return all subsets of the axes, shifted past batch and channel; the empty one first."""
    axes = [axis + 2 for axis in mirror_axes]
    return tuple(subset for size in range(len(axes) + 1) for subset in itertools.combinations(axes, size))


def _windows(grid: WindowGrid, patch: Sequence[int], n_slices: int | None) -> Iterator[tuple[int | slice, ...]]:
    """Yield the index of every window into (*S); slices of a 2-D configuration are integers."""
    axes: list[list[int | slice]] = [
        [slice(first, first + edge) for first in positions]
        for positions, edge in zip(grid.positions, patch, strict=True)
    ]
    if n_slices is not None:
        axes.insert(0, list(range(n_slices)))
    yield from itertools.product(*axes)


def _accumulate(
    ensemble: _Ensemble,
    volume: Tensor,
    windows: Sequence[tuple[int | slice, ...]],
    patch: Sequence[int],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    """Return the sum of weighted logits (H, *S) float32 on the ensemble's device, or the CPU if it is too large."""
    importance = _outer([gaussian_profile(edge) for edge in patch]).to(ensemble.device)
    sums: Tensor | None = None
    for start in range(0, len(windows), batch_size):
        indices = windows[start : start + batch_size]
        logits = ensemble(torch.stack([volume[(slice(None), *index)] for index in indices]))
        if sums is None:
            sums = _zeros((logits.shape[1], *volume.shape[1:]), ensemble.device)
        weighted = logits.mul_(importance).to(sums.device)
        for index, window in zip(indices, weighted, strict=True):
            sums[(slice(None), *index)] += window
        if progress is not None:
            progress(start + len(indices), len(windows))
    if sums is None:
        raise ModelError("image: found no voxels, expected at least one. Check the preprocessed image.")
    return sums


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return zeros on ``device`` if they leave half of its free memory, else on the CPU."""
    if device.type == "cuda" and 4 * math.prod(shape) > torch.cuda.mem_get_info(device)[0] // 2:
        device = torch.device("cpu")
    return torch.zeros(shape, dtype=torch.float32, device=device)


def _normalize(sums: Tensor, grid: WindowGrid, patch: Sequence[int]) -> None:
    """Divide by the summed importance of the windows, in place.

    The windows are a grid and the Gaussian is a product over axes, so the sum over windows is a product of sums, too:
    no map of weights is kept.
    """
    n_axes = len(patch)
    for axis, (positions, edge, size) in enumerate(zip(grid.positions, patch, grid.padded, strict=True)):
        profile = gaussian_profile(edge).double()
        total = torch.zeros(size, dtype=torch.float64)
        for first in positions:
            total[first : first + edge] += profile
        shape = [1] * n_axes
        shape[axis] = size
        sums.mul_((1 / total).float().view(shape).to(sums.device))


def _outer(profiles: Sequence[Tensor]) -> Tensor:
    """Return the product of 1-D profiles as an array with one axis for each."""
    product = torch.ones(())
    for profile in profiles:
        product = product[..., None] * profile
    return product
