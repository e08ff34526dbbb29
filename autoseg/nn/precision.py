"""The type of a network's arithmetic: the fastest that the device has, if its results are right.

Speed is known of the hardware, correctness is not: some builds of cuDNN (9.10.2, pytorch issue 163539) compute 3-D
convolutions of large inputs in bfloat16 wrongly, without an error. So on CUDA a convolution of the network's largest
layer, and the network on one patch, are computed in the 16-bit type and in float32, once per device and shape.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from autoseg.nn.device import autocast_dtype

log = logging.getLogger(__name__)

LAYER_ROUNDING = 8.0
"""Largest error of a convolution, in units of the spacing of numbers near 1; a right one has about half a unit."""
NETWORK_ERROR = 0.15
"""Largest relative error of a whole network; a right one in bfloat16 has 0.01 to 0.03."""


def choose_dtype(
    build: Callable[[], nn.Module], input_shape: Sequence[int], device: torch.device
) -> torch.dtype | None:
    """Return the type for mixed precision; None for float32. Say once which on CUDA, and why.

    Parameters
    ----------
    build
        Returns the network, on ``device``; called on CUDA only.
    input_shape
        (B, C, *P) of what it will see.
    device
        On the CPU and on MPS the answer is that of :func:`autoseg.nn.device.autocast_dtype`: nothing is checked.
    """
    first = autocast_dtype(device)
    if device.type != "cuda" or first is None:
        return first
    dtype, reason = checked_dtype(build(), input_shape, device, first)
    log.info("precision: %s (%s)", "float32" if dtype is None else str(dtype).removeprefix("torch."), reason)
    return dtype


def checked_dtype(
    network: nn.Module, input_shape: Sequence[int], device: torch.device, first: torch.dtype
) -> tuple[torch.dtype | None, str]:
    """Return the first 16-bit type whose results are right, None (float32) if neither's are, and why."""
    other = torch.float16 if first == torch.bfloat16 else torch.bfloat16
    faults: list[str] = []
    for dtype in (first, other):
        name = str(dtype).removeprefix("torch.")
        try:
            layer, whole = layer_error(network, input_shape, device, dtype), network_error(network, input_shape, dtype)
        except RuntimeError as error:  # a build without these kernels, or too little memory
            faults.append(f"{name} failed: {str(error).splitlines()[0]}")
            continue
        figures = f"error against float32 {100 * layer:.2f} % in the largest layer, {100 * whole:.1f} % in all"
        if layer <= LAYER_ROUNDING * torch.finfo(dtype).eps and whole <= NETWORK_ERROR:
            return dtype, "; ".join([*faults, figures])
        faults.append(f"{name} is wrong here: {figures}")
    return None, "; ".join(faults)


@torch.inference_mode()
def layer_error(network: nn.Module, input_shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest relative error of a plane of the network's largest convolution; 0 if it has none.

    That is its second convolution at full resolution, or the only one: with as many features as the first gives.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Conv3d))]
    full = [layer for layer in layers if all(step == 1 for step in layer.stride)]
    if not full:
        return 0.0
    widest = full[0].out_channels
    layer = next((layer for layer in full if layer.in_channels == widest == layer.out_channels), full[0])
    image = _noise((input_shape[0], layer.in_channels, *input_shape[2:]), next(layer.parameters()).device)
    return _largest_error(_run(layer, image, dtype), _run(layer, image, None))


@torch.inference_mode()
def network_error(network: nn.Module, input_shape: Sequence[int], dtype: torch.dtype) -> float:
    """Return the largest relative error of a plane of the logits of one patch of noise."""
    image = _noise((1, *input_shape[1:]), next(network.parameters()).device)
    return _largest_error(_run(network, image, dtype), _run(network, image, None))


def _noise(shape: Sequence[int], device: torch.device) -> Tensor:
    return torch.randn(tuple(shape), generator=torch.Generator(device).manual_seed(0), device=device)


def _run(module: nn.Module, image: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the output at full resolution, float32, by the algorithms of a run, but no tensor cores' short float32."""
    cudnn = torch.backends.cudnn
    exact = cudnn.flags(enabled=True, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
    with exact, torch.autocast(image.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        output = module(image)
    full: Tensor = output[0] if isinstance(output, list) else output
    return full.float()


def _largest_error(found: Tensor, exact: Tensor) -> float:
    """Return the largest over planes (axis 2) of the root mean square error, relative to the size of all values."""
    axes = [axis for axis in range(found.ndim) if axis != 2]
    error = (found - exact).square().mean(axes).amax().sqrt() / exact.square().mean().sqrt().clamp_min(1e-12)
    return float(error) if bool(torch.isfinite(error)) else float("inf")
