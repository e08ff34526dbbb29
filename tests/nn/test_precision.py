"""A 16-bit type is taken only where its results are right."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_plan

from autoseg.nn import precision
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.precision import checked_dtype, choose_dtype, layer_error, network_error

CPU, SHAPE = torch.device("cpu"), (2, 1, 8, 8, 8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network(next(iter(make_plan().configurations.values())).topology, 1, 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_right_kernels_is_tolerated_with_room(network, dtype):
    assert 0 < layer_error(network, SHAPE, CPU, dtype) < precision.LAYER_ROUNDING / 4 * torch.finfo(dtype).eps
    assert 0 < network_error(network, SHAPE, dtype) < precision.NETWORK_ERROR / 2
    assert checked_dtype(network, SHAPE, CPU, dtype)[0] is dtype


def breaking(dtypes, run=precision._run):
    """Return a run in which one plane of eight is wrong in some types."""

    def broken(module, image, dtype):
        output = run(module, image, dtype).clone()
        if dtype in dtypes:
            output[:, :, -1] *= -1
        return output

    return broken


def test_a_type_with_one_wrong_plane_is_left_for_the_other_and_for_float32(network, monkeypatch):
    monkeypatch.setattr(precision, "_run", breaking({torch.bfloat16}))
    dtype, reason = checked_dtype(network, SHAPE, CPU, torch.bfloat16)
    assert dtype is torch.float16
    assert "bfloat16 is wrong here" in reason
    monkeypatch.setattr(precision, "_run", breaking({torch.bfloat16, torch.float16}))
    assert checked_dtype(network, SHAPE, CPU, torch.bfloat16)[0] is None


def test_a_type_that_gives_no_numbers_or_fails_is_left(network, monkeypatch):
    def failing(module, image, dtype):
        if dtype is torch.bfloat16:
            raise RuntimeError("no kernel\nmore")
        return torch.full((1, 2, 8, 8, 8), torch.nan) if dtype else torch.ones(1, 2, 8, 8, 8)

    monkeypatch.setattr(precision, "_run", failing)
    dtype, reason = checked_dtype(network, SHAPE, CPU, torch.bfloat16)
    assert dtype is None
    assert "bfloat16 failed: no kernel;" in reason


def test_the_cpu_is_asked_for_speed_alone_and_the_weights_stay(network, monkeypatch):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    monkeypatch.setattr(precision, "autocast_dtype", lambda device: torch.bfloat16)
    assert choose_dtype(lambda: pytest.fail("built"), SHAPE, CPU) is torch.bfloat16
    checked_dtype(network, SHAPE, CPU, torch.bfloat16)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
