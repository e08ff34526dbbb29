"""Device and number type for training and prediction."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import nn

from autoseg.core.errors import ConfigError

_PROBE_SHAPE = (1, 16, 24, 48, 48)
_PROBE_REPEATS = 3


def select_device(name: str = "auto") -> torch.device:
    """Return the device for ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:<index>`` or ``mps``.

    ``auto`` is the first CUDA device, otherwise Apple's MPS, otherwise the CPU. Raises ``ConfigError`` for another
    name, or if this machine (or this build of torch) does not have the device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device: found {name!r}, expected auto, cpu, cuda, cuda:<index> or mps. Write one of these.")
    if device.type == "cuda":
        _check_cuda(name, device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device: found 'mps', expected a Mac with a Metal GPU and a torch build for it. Use cpu.")
    return device


def tune_for_equal_shapes(device: torch.device) -> None:
    """Let cuDNN time its algorithms and keep the fastest, as pays where every batch has the same shape."""
    if device.type == "cuda" and not torch.backends.cudnn.deterministic:
        torch.backends.cudnn.benchmark = True


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the number type for mixed precision on ``device``; None if plain float32 is better.

    CUDA: bfloat16 from compute capability 8 (Ampere), otherwise float16. CPU: bfloat16 if a small 3-D convolution,
    timed once per process, is faster with it (processors with AMX or AVX512-BF16). MPS: None. On the CPU the result
    depends on a measurement; a run that must be reproduced bit by bit has to store it.
    """
    if device.type == "cuda":
        capability, _ = torch.cuda.get_device_capability(device)
        return torch.bfloat16 if capability >= 8 else torch.float16
    if device.type == "cpu":
        return torch.bfloat16 if _bfloat16_is_faster_on_cpu() else None
    return None


def device_name(device: torch.device) -> str:
    """Return the name of a GPU, "" for the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def _check_cuda(name: str, device: torch.device) -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise ConfigError(
            f"device: found {name!r}, expected an existing CUDA device (this machine has {count}). "
            "Use --device auto or cpu, or install a torch build with CUDA for your driver."
        )


@lru_cache(maxsize=1)
def _bfloat16_is_faster_on_cpu() -> bool:
    try:
        return _probe_seconds(torch.bfloat16) < 0.9 * _probe_seconds(None)
    except RuntimeError:  # a build of torch without these kernels
        return False


def _probe_seconds(dtype: torch.dtype | None) -> float:
    """Return the shortest of a few timings of a convolution under autocast to ``dtype`` (None: float32)."""
    with torch.random.fork_rng(devices=()):  # the layer draws random weights; do not change the caller's random state
        layer = nn.Conv3d(_PROBE_SHAPE[1], _PROBE_SHAPE[1], 3, padding=1)
    image = torch.zeros(_PROBE_SHAPE)
    times = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        layer(image)  # the first call compiles and packs
        for _ in range(_PROBE_REPEATS):
            start = time.perf_counter()
            layer(image)
            times.append(time.perf_counter() - start)
    return min(times)
