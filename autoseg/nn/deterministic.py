"""Deterministic arithmetic: the same numbers in every run on the same device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autoseg.core.errors import ConfigError

CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable without which CUDA's matrix products are not deterministic."""
CUBLAS_VALUE = ":4096:8"
"""Source: the documentation of ``torch.use_deterministic_algorithms``."""
_REFUSAL = re.compile(r"^(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic(*, is_on: bool) -> Iterator[None]:
    """Let torch take only deterministic operations in the block, if ``is_on``; the former state returns at its end.

    Raises
    ------
    ConfigError
        If an operation in the block has no deterministic version on its device; names it.
    """
    if not is_on:
        yield
        return
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        refusal = _REFUSAL.match(str(error))
        if refusal is not None:
            raise ConfigError(
                f"deterministic: {refusal[1]} has no deterministic version on this device. Leave out --deterministic, "
                "or train with --device cpu."
            ) from error
        if CUBLAS_VARIABLE in str(error):
            raise ConfigError(
                f"deterministic: the matrix products of CUDA need {CUBLAS_VARIABLE}={CUBLAS_VALUE} in the environment. "
                "Set it before the first training of this process."
            ) from error
        raise
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2:]
