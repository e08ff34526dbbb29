"""Compilation of a network by torch, tried out before it is relied on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

WORTH_COMPILING = 1_000
"""Steps below which a run on a GPU is not compiled unless asked for: compiling takes about a minute."""
TOLERANCE = 0.05
"""Largest root mean square difference of compiled and plain outputs, relative to the plain ones: 16-bit types round in
other places after fusing."""


def wants_compiling(setting: bool | str, device: torch.device, iterations: int) -> bool:
    """Whether a run is to be compiled: as set, and for ``"auto"`` on CUDA in runs long enough to gain by it."""
    if isinstance(setting, bool):
        return setting
    return device.type == "cuda" and iterations >= WORTH_COMPILING


def compile_network(
    network: nn.Module,
    input_shape: Sequence[int],
    device: torch.device,
    dtype: torch.dtype | None,
    *,
    backend: str = "inductor",
) -> bool:
    """Compile a network in place; its weights, their names and its state dict stay as they are.

    A forward and a backward pass are tried on a batch of noise. If either fails, or the outputs are not those of the
    plain network, one line is logged and the network stays as it was. Gradients are cleared, and no random number of
    the caller is used.

    Parameters
    ----------
    network
        On ``device``, in training mode.
    input_shape
        (B, C, *P) of a training batch.
    device
        Where the network lies.
    dtype
        Type for mixed precision; None for float32.
    backend
        Of ``torch.compile``.

    Returns
    -------
    Whether the network is compiled now.
    """
    image = torch.randn(tuple(input_shape), generator=torch.Generator(device).manual_seed(0), device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        plain = _largest_output(network, image, dtype).detach()
        network.compile(backend=backend, dynamic=False)
        try:
            output = _largest_output(network, image, dtype)
            output.float().square().mean().backward()  # type: ignore[no-untyped-call]
            difference = float((output.detach() - plain).float().norm() / plain.float().norm().clamp_min(1e-12))
            fault = "" if difference <= TOLERANCE else f"its outputs differ by {100 * difference:.0f} %"
        except Exception as error:  # whatever a compiler may raise
            fault = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            network.zero_grad(set_to_none=True)
    if fault:
        undo_compiling(network)
        log.warning("the network is not compiled (%s): training goes on without, somewhat slower", fault)
    return not fault


def undo_compiling(network: nn.Module) -> None:
    """Let calls of a network run its plain Python code again."""
    network._compiled_call_impl = None


def _largest_output(network: nn.Module, image: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the logits of the full resolution."""
    with torch.autocast(image.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        output = network(image)
    full: Tensor = output[0] if isinstance(output, list) else output
    return full
