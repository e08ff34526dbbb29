"""A compiled network is the plain one: weights, names, outputs; and what cannot be compiled trains all the same."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from tiny_models import make_plan

from autoseg.nn.architectures.registry import build_network
from autoseg.nn.compiling import compile_network, wants_compiling

CPU, SHAPE = torch.device("cpu"), (2, 1, 8, 8, 8)


@pytest.fixture
def network():
    torch.manual_seed(0)
    topology = next(iter(make_plan().configurations.values())).topology
    yield build_network(topology, 1, 2)
    torch._dynamo.reset()


@pytest.mark.slow
def test_weights_names_outputs_and_random_numbers_stay_and_copies_are_plain(network):
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(3)
    expected_number = torch.rand(())
    torch.manual_seed(3)
    assert compile_network(network, SHAPE, CPU, None, backend="eager")
    assert torch.equal(torch.rand(()), expected_number)
    assert network._compiled_call_impl is not None
    after = network.state_dict()
    assert list(after) == list(before) and all(torch.equal(before[name], after[name]) for name in before)
    assert all(weight.grad is None for weight in network.parameters())
    twin = copy.deepcopy(network)  # as the teacher keeps one
    assert twin._compiled_call_impl is None
    image = torch.randn(SHAPE)
    assert all(torch.allclose(one, other) for one, other in zip(network(image), twin(image), strict=True))


def fails(*arguments):
    raise RuntimeError("no compiler\n and more")


def is_wrong(graph, inputs):
    return lambda *arguments: tuple(2 * output + 1 for output in graph(*arguments))


@pytest.mark.parametrize(("backend", "reason"), [(fails, "no compiler and more"), (is_wrong, "outputs differ by")])
def test_a_failure_is_said_in_one_line_and_the_network_works_on(network, caplog, backend, reason):
    expected = network(torch.ones(SHAPE))
    with caplog.at_level(logging.WARNING):
        assert not compile_network(network, SHAPE, CPU, None, backend=backend)
    assert [record for record in caplog.records if reason in record.getMessage()]
    assert all("\n" not in record.getMessage() for record in caplog.records if reason in record.getMessage())
    assert network._compiled_call_impl is None
    assert all(torch.equal(one, other) for one, other in zip(network(torch.ones(SHAPE)), expected, strict=True))


def test_long_runs_on_cuda_are_compiled_and_others_where_it_is_asked_for():
    cuda = torch.device("cuda", 0)
    assert wants_compiling("auto", cuda, 250_000)
    assert not wants_compiling("auto", cuda, 10)
    assert not wants_compiling("auto", CPU, 250_000)
    assert wants_compiling(True, CPU, 1)
    assert not wants_compiling(False, cuda, 250_000)
