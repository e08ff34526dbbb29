"""Every option of a network changes what it says, in 2-D and 3-D, and networks without options stay as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from autoseg.core.errors import PlanError
from autoseg.core.plan import Topology
from autoseg.nn.architectures.blocks import ConvUnit, ResidualBlock, Style, activate
from autoseg.nn.architectures.registry import build_network

DIMS = pytest.mark.parametrize("n_dims", [2, 3], ids=["2d", "3d"])
KINDS = pytest.mark.parametrize("kind", ["plain", "residual"])


def topology(n_dims: int, kind: str = "plain", **changes: object) -> Topology:
    values = {
        "features": (4, 8, 8),
        "strides": ((1,) * n_dims, (2,) * n_dims, (2,) * n_dims),
        "kernels": ((3,) * n_dims,) * 3,
        "encoder_blocks": (1, 1, 1),
        "decoder_blocks": (1, 1),
    }
    return Topology(kind=kind, **(values | changes))


def network(described: Topology) -> nn.Module:
    torch.manual_seed(0)
    return build_network(described, 1, 2, deep_supervision=False)


def images(n_dims: int) -> torch.Tensor:
    return torch.randn(2, 1, *(16,) * n_dims, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("leaky_relu", lambda x: functional.leaky_relu(x, 0.01)),
        ("relu", functional.relu),
        ("elu", functional.elu),
        ("gelu", functional.gelu),
        ("silu", functional.silu),
    ],
)
def test_an_activation_is_the_function_of_its_name(activation, expected):
    values = torch.linspace(-3, 3, 13)
    assert torch.equal(activate(values.clone(), activation), expected(values))


@DIMS
@KINDS
@pytest.mark.parametrize(
    "changes",
    [
        *({"activation": name} for name in ("relu", "elu", "gelu", "silu")),
        *({"normalization": name} for name in ("batch", "group", "none")),
        {"pooling": "max"},
        {"dropout": (0.5, 0.0, 0.0)},
    ],
    ids=str,
)
def test_each_option_changes_the_outputs_and_can_be_trained(n_dims, kind, changes):
    default, changed = network(topology(n_dims, kind)), network(topology(n_dims, kind, **changes))
    logits = changed(images(n_dims))
    assert logits.shape == (2, 2, *(16,) * n_dims)
    assert not torch.allclose(logits, default(images(n_dims)))
    logits.square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in changed.parameters() if weight.grad is not None)


@DIMS
@KINDS
def test_a_topology_written_before_there_were_options_gives_the_same_network(n_dims, kind):
    written = topology(n_dims, kind).model_dump(exclude={"activation", "normalization", "pooling", "dropout"})
    first, second = network(Topology.model_validate(written)), network(topology(n_dims, kind))
    assert not list(first.buffers())
    assert list(first.state_dict()) == list(second.state_dict())
    assert torch.equal(first(images(n_dims)), second(images(n_dims)))
    assert torch.equal(first.eval()(images(n_dims)), second.train()(images(n_dims)))


@DIMS
def test_a_unit_drops_whole_channels_in_training_only(n_dims):
    style = Style("relu", "none", dropout=0.5)
    unit = ConvUnit(1, 64, (1,) * n_dims, (1,) * n_dims, style=style)
    nn.init.ones_(unit.conv.weight)
    nn.init.zeros_(unit.conv.bias)
    ones = torch.ones(1, 1, *(4,) * n_dims)
    torch.manual_seed(0)
    trained = unit.train()(ones).flatten(2)
    assert set(trained.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(trained.amin(2), trained.amax(2))
    assert torch.equal(unit.eval()(ones), ones.expand(-1, 64, *(4,) * n_dims))


@DIMS
def test_dropout_of_a_level_leaves_the_others_alone(n_dims):
    layers = network(topology(n_dims, dropout=(0.0, 0.0, 0.25)))
    kinds = (nn.Dropout2d, nn.Dropout3d)
    places = [name for name, module in layers.named_modules() if isinstance(module, kinds)]
    assert places == ["encoder.2.0.dropout"]


@DIMS
def test_max_pooling_takes_the_maximum_before_a_convolution_of_stride_one(n_dims):
    unit = ConvUnit(1, 1, (1,) * n_dims, (2,) * n_dims, style=Style("relu", "none", "max"))
    nn.init.ones_(unit.conv.weight)
    nn.init.zeros_(unit.conv.bias)
    values = torch.arange(4**n_dims, dtype=torch.float32).view(1, 1, *(4,) * n_dims)
    pool = functional.max_pool2d if n_dims == 2 else functional.max_pool3d
    assert torch.equal(unit(values), pool(values, 2))


def test_group_norm_has_as_many_groups_as_divide_the_channels():
    groups = [ConvUnit(1, width, (3, 3), (1, 1), style=Style(normalization="group")).norm for width in (12, 16, 3)]
    assert [layer.num_groups for layer in groups] == [4, 8, 1]


@pytest.mark.parametrize("normalization", ["instance", "none"])
def test_a_residual_block_passes_its_skip_connection_at_first(normalization):
    changed = network(topology(2, "residual", normalization=normalization))
    blocks = [module for module in changed.modules() if isinstance(module, ResidualBlock)]
    block = blocks[-1]
    features = torch.rand(1, 8, 8, 8)
    assert torch.equal(block(features.clone()), functional.avg_pool2d(features, 2))


def test_batch_norm_is_the_same_for_any_batch_once_it_is_trained():
    changed = network(topology(2, normalization="batch"))
    changed(images(2))
    changed.eval()
    assert torch.allclose(changed(images(2))[:1], changed(images(2)[:1]), atol=1e-6)
    restored = network(topology(2, normalization="batch"))
    restored.load_state_dict(copy.deepcopy(changed.state_dict()))
    assert torch.equal(restored.eval()(images(2)), changed(images(2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"dropout": (0.1,)}, "1 dropout rates, expected none or 3"), ({"dropout": (0.1, 0.1, 1.0)}, "from 0 to below 1")],
)
def test_rates_that_cannot_be_built_are_refused(changes, message):
    with pytest.raises(PlanError, match=message):
        build_network(topology(2, **changes), 1, 2)


def test_an_unknown_activation_is_no_topology():
    with pytest.raises(ValidationError, match="leaky_relu"):
        topology(2, activation="tanh")
