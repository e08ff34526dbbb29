"""Weights of another training: rows and columns go by name, and what has no counterpart stays as it was."""

from __future__ import annotations

import pytest
import torch

from autoseg.core.plan import Topology
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.transfer import Ends, transfer

KINDS = ["plain", "residual"]


def network(kind: str, n_dims: int, n_channels: int, n_heads: int, seed: int, features=(4, 8)):
    topology = Topology(
        kind=kind, features=features, strides=((1,) * n_dims, (2,) * n_dims), kernels=((3,) * n_dims,) * 2,
        encoder_blocks=(1, 1), decoder_blocks=(1,),
    )  # fmt: skip
    torch.manual_seed(seed)
    return build_network(topology, n_channels, n_heads, deep_supervision=False).eval()


def outputs(state, kind, n_dims, image, n_heads):
    loaded = network(kind, n_dims, image.shape[1], n_heads, 9)
    loaded.load_state_dict(dict(state))
    with torch.no_grad():
        return loaded(image)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_dims", [2, 3])
def test_logits_of_a_class_follow_its_name(kind, n_dims):
    given = network(kind, n_dims, 1, 3, 0)
    own = network(kind, n_dims, 1, 4, 1)
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    ends = Ends(("CT",), ("background", "kidney", "spleen", "liver"), False)
    actual = transfer(
        own.state_dict(), given.state_dict(), ends, Ends(("CT",), ("background", "liver", "spleen"), False)
    )
    assert not actual.mismatched
    assert actual.heads == {"background": "background", "spleen": "spleen", "liver": "liver"}
    assert {name.split(".")[0] for name in actual.adapted} == {"heads"} and len(actual.matched) > 10
    image = torch.randn(1, 1, *(8,) * n_dims)
    with torch.no_grad():
        expected = given(image)
    logits = outputs(actual.weights, kind, n_dims, image, 4)
    torch.testing.assert_close(logits[:, [0, 3, 2]], expected, rtol=0, atol=1e-6)
    for name in actual.adapted:
        assert torch.equal(actual.weights[name][1], before[name][1])  # kidney starts fresh
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_channels_go_by_name_then_in_order(kind):
    given, own = network(kind, 2, 2, 2, 0), network(kind, 2, 3, 2, 1)
    heads = ("background", "liver")
    actual = transfer(
        own.state_dict(), given.state_dict(), Ends(("T2", "dwi", "T1"), heads, False), Ends(("T1", "t2"), heads, False)
    )
    assert actual.channels == {"T2": "t2", "T1": "T1"} and not actual.mismatched
    (first,) = actual.adapted
    fresh, trained, taken = own.state_dict()[first], given.state_dict()[first], actual.weights[first]
    assert torch.equal(taken[:, 0], trained[:, 1]) and torch.equal(taken[:, 2], trained[:, 0])
    assert torch.equal(taken[:, 1], fresh[:, 1])
    other = transfer(
        given.state_dict(), given.state_dict(), Ends(("a", "T1"), heads, False), Ends(("T1", "b"), heads, False)
    )
    assert other.channels == {"T1": "T1", "a": "b"}


def test_the_same_names_take_everything_bit_by_bit():
    given, own = network("plain", 3, 1, 3, 0), network("plain", 3, 1, 3, 1)
    ends = Ends(("CT",), ("background", "a", "b"), False)
    actual = transfer(own.state_dict(), given.state_dict(), ends, ends)
    assert actual.adapted == () and set(actual.matched) == set(own.state_dict())
    assert all(torch.equal(tensor, given.state_dict()[name]) for name, tensor in actual.weights.items())


def test_regions_take_nothing_from_classes():
    given, own = network("plain", 2, 1, 3, 0), network("plain", 2, 1, 3, 1)
    names = ("background", "a", "b")
    actual = transfer(own.state_dict(), given.state_dict(), Ends(("CT",), names, True), Ends(("CT",), names, False))
    assert actual.heads == {} and all(
        torch.equal(actual.weights[name], own.state_dict()[name]) for name in actual.adapted
    )
    regions = transfer(own.state_dict(), given.state_dict(), *(Ends(("CT",), names, True),) * 2)
    assert regions.adapted == ()


def test_another_network_is_named_tensor_by_tensor():
    given, own = network("plain", 2, 1, 2, 0, features=(4, 6)), network("plain", 2, 1, 2, 1)
    ends = Ends(("CT",), ("background", "a"), False)
    actual = transfer(own.state_dict(), given.state_dict(), ends, ends)
    assert any("instead of" in why for why in actual.mismatched.values())
    residual = network("residual", 2, 1, 2, 0)
    reasons = set(transfer(own.state_dict(), residual.state_dict(), ends, ends).mismatched.values())
    assert {"not in this network"} <= reasons
