"""Deterministic arithmetic: on within the block alone, and what has no such version is named."""

from __future__ import annotations

import pytest
import torch

from autoseg.core.errors import ConfigError
from autoseg.nn.deterministic import deterministic


def test_the_block_alone_is_deterministic():
    with deterministic(is_on=True):
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(is_on=False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_version_is_named():
    with (
        pytest.raises(ConfigError, match=r"put_.* no deterministic version.*--deterministic"),
        deterministic(is_on=True),
    ):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="broken"), deterministic(is_on=True):
        raise RuntimeError("broken")
