"""The network of a topology: its outputs, its parameters, and what its weights are called."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from autoseg.core.errors import PlanError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.blocks import ConvUnit, ResidualBlock
from autoseg.nn.architectures.registry import build_network


def topology(kind, n_dims, **changes):
    """Small networks with anisotropic strides in 3-D; decoder depths differ, so that a swapped order shows."""
    values = {
        2: {
            "features": (8, 16, 24),
            "strides": ((1, 1), (2, 2), (2, 2)),
            "kernels": ((3, 3), (3, 3), (3, 3)),
            "encoder_blocks": {"plain": (2, 2, 2), "residual": (1, 3, 4)}[kind],
            "decoder_blocks": {"plain": (2, 2), "residual": (1, 1)}[kind],
        },
        3: {
            "features": (8, 16, 24, 24),
            "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 1)),
            "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
            "encoder_blocks": {"plain": (2, 2, 2, 2), "residual": (1, 3, 4, 2)}[kind],
            "decoder_blocks": {"plain": (2, 1, 2), "residual": (1, 1, 1)}[kind],
        },
    }[n_dims]
    return Topology(kind=kind, **(values | changes))


ONE_STAGE = {
    "features": (8,),
    "strides": ((1, 1),),
    "kernels": ((3, 3),),
    "encoder_blocks": (2,),
    "decoder_blocks": (),
}
KINDS = pytest.mark.parametrize("kind", ["plain", "residual"])
DIMS = pytest.mark.parametrize(("n_dims", "patch"), [(2, (16, 32)), (3, (8, 16, 16))], ids=["2d", "3d"])


@pytest.mark.parametrize(
    ("kind", "n_dims", "n_channels", "n_heads", "expected"),
    [
        ("plain", 3, 2, 3, 137_081),
        ("plain", 2, 1, 2, 23_940),
        ("residual", 3, 2, 3, 274_881),
        ("residual", 2, 1, 2, 63_124),
    ],
)
def test_parameter_counts_are_those_of_dynamic_network_architectures(kind, n_dims, n_channels, n_heads, expected):
    """Counted with version 0.4.4; with its weights under our names the outputs are equal to the last bit."""
    network = build_network(topology(kind, n_dims), n_channels, n_heads)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@KINDS
@DIMS
def test_heads_come_full_resolution_first(kind, n_dims, patch):
    plan = topology(kind, n_dims)
    network = build_network(plan, 2, 3)
    outputs = network(torch.randn(2, 2, *patch))
    assert len(outputs) == plan.n_stages - 1
    edges = list(patch)
    for output, stride in zip(outputs, plan.strides[:-1], strict=True):
        edges = [edge // step for edge, step in zip(edges, stride, strict=True)]
        assert output.shape == (2, 3, *edges)


@KINDS
@DIMS
def test_switching_deep_supervision_off_leaves_the_full_resolution(kind, n_dims, patch):
    network = build_network(topology(kind, n_dims), 1, 2)
    images = torch.randn(1, 1, *patch)
    outputs = network(images)
    network.deep_supervision = False
    assert torch.equal(network(images), outputs[0])
    assert set(build_network(topology(kind, n_dims), 1, 2, deep_supervision=False).state_dict()) == set(
        network.state_dict()
    )


@KINDS
def test_one_stage_has_a_head_on_the_encoder(kind):
    network = build_network(topology(kind, 2, **ONE_STAGE), 2, 3)
    outputs = network(torch.randn(1, 2, 7, 5))
    assert [output.shape for output in outputs] == [(1, 3, 7, 5)]


@KINDS
@DIMS
def test_no_weight_has_two_names(kind, n_dims, patch):
    state = build_network(topology(kind, n_dims), 1, 2).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)
    parts = {name.split(".")[0] for name in state}
    assert parts == {"encoder", "upsample", "decoder", "heads"} | ({"stem"} if kind == "residual" else set())


@KINDS
@DIMS
def test_every_weight_learns(kind, n_dims, patch):
    network = build_network(topology(kind, n_dims), 1, 2)
    for parameter in network.parameters():  # a block that starts as its skip passes nothing to its convolutions
        nn.init.normal_(parameter, std=0.1)
    sum((output**2).sum() for output in network(torch.randn(2, 1, *patch))).backward()
    silent = {"conv.bias"}  # the norm after it removes what a bias adds
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any() or name.endswith(tuple(silent)), name


@KINDS
def test_convolutions_start_kaiming_normal_and_residual_blocks_as_their_skip(kind):
    torch.manual_seed(0)
    network = build_network(topology(kind, 2, features=(32, 64, 128)), 1, 2)
    modules = list(network.modules())
    for module in modules:
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / (1 + 0.01**2) / fan_in), rel=0.05)
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
            assert not module.bias.any()
    blocks = [module for module in modules if isinstance(module, ResidualBlock)]
    assert len(blocks) == (8 if kind == "residual" else 0)
    features = torch.randn(1, 32, 8, 8)
    for block in blocks[:1]:
        expected = nn.functional.leaky_relu(block.skip(block.pool(features)), 0.01)
        torch.testing.assert_close(block(features), expected)


def test_conv_unit_by_hand():
    """One channel, identity kernel: instance norm, then the leaky slope for the half below the mean."""
    unit = ConvUnit(1, 1, (3, 1), (1, 1))
    with torch.no_grad():
        unit.conv.weight.copy_(torch.tensor([0.0, 1.0, 0.0]).view(1, 1, 3, 1))
        unit.conv.bias.fill_(5.0)
    actual = unit(torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 3, 1))
    edge = 1 / math.sqrt(2 / 3)
    torch.testing.assert_close(actual.flatten(), torch.tensor([-0.01 * edge, 0.0, edge]), atol=1e-4, rtol=1e-4)


@DIMS
def test_bf16_autocast_stays_close(n_dims, patch):
    torch.manual_seed(0)
    network = build_network(topology("plain", n_dims), 1, 2)
    images = torch.randn(1, 1, *patch)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(images)[0]
    assert half.dtype == torch.bfloat16
    exact = network(images)[0]
    assert (half.float() - exact).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": (8, 16)}, "2 features, expected 3 for 3 stages"),
        ({"decoder_blocks": (1, 1, 1)}, "3 decoder_blocks, expected 2"),
        ({"kernels": ((3, 3), (3, 3), (2, 3))}, "even kernel edges"),
        ({"kernels": ((3, 3), (3, 3), (3,))}, "different length, expected 2 axes"),
        ({"strides": ((2, 2), (2, 2), (2, 2))}, r"stride \(2, 2\) in stage 0"),
        ({"encoder_blocks": (2, 0, 2)}, "a stage without features or blocks"),
        ({"strides": ()}, "no stages, expected at least one"),
        ({"strides": ((1,), (2,), (2,)), "kernels": ((3,), (3,), (3,))}, "1 patch axes, expected 2 or 3"),
    ],
)
def test_a_topology_that_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(PlanError, match=message):
        build_network(topology("plain", 2, **changes), 1, 2)


def test_a_network_without_heads_is_refused():
    with pytest.raises(PlanError, match="1 channels and 0 heads"):
        build_network(topology("plain", 2), 1, 0)
