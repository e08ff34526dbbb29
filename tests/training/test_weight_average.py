from __future__ import annotations

import pytest
import torch
from torch import nn

from autoseg.training.weight_average import WeightAverage


def test_the_mean_is_its_formula():
    layer = nn.Linear(3, 2)
    average = WeightAverage(layer, 0.5)
    expected = layer.weight.detach().clone()
    for step in range(1, 6):
        with torch.no_grad():
            layer.weight.add_(step)
        average.update(layer)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    assert torch.allclose(average.weights["weight"], expected)


def test_the_network_has_its_own_weights_again_even_after_an_error():
    layer = nn.Linear(3, 2)
    average = WeightAverage(layer, 0.9)
    mean = {name: weight.clone() for name, weight in average.weights.items()}
    with torch.no_grad():
        layer.weight.add_(1)
    own = layer.weight.detach().clone()
    with pytest.raises(ValueError, match="stop"), average.applied(layer):
        assert torch.equal(layer.weight, mean["weight"])
        raise ValueError("stop")
    assert torch.equal(layer.weight, own)
    assert all(torch.equal(average.weights[name], mean[name]) for name in mean)


def test_a_restored_mean_goes_on_alike():
    layer = nn.Linear(3, 2)
    first = WeightAverage(layer, 0.9)
    first.update(layer)
    second = WeightAverage(nn.Linear(3, 2), 0.9)
    second.restore(first.state())
    with torch.no_grad():
        layer.weight.add_(1)
    for average in (first, second):
        average.update(layer)
    assert torch.equal(first.weights["weight"], second.weights["weight"])


def test_running_statistics_are_averaged_and_counters_are_not():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    average = WeightAverage(network, 0.5)
    generator = torch.Generator().manual_seed(0)
    expected = network[1].running_var.clone()
    for step in range(1, 6):
        with torch.no_grad():
            network[0].weight.mul_(1.5)
        network(torch.randn(4, 1, 8, 8, generator=generator))
        average.update(network)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * network[1].running_var
    assert torch.allclose(average.weights["1.running_var"], expected)
    assert "1.num_batches_tracked" not in average.weights
    with average.applied(network):
        assert torch.allclose(network[1].running_var, expected)
        assert network[1].num_batches_tracked == 5


def test_averaged_statistics_normalise_what_averaged_weights_compute():
    """Weights that swing between 1 and 3 are 2 in the mean; statistics of the last step are those of one end."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, momentum=1.0, affine=False))
    average = WeightAverage(network, 0.99)
    images = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for step in range(200):
        with torch.no_grad():
            network[0].weight.fill_(1.0 + 2 * (step % 2))
        network(images)
        average.update(network)
    network.eval()
    with torch.no_grad(), average.applied(network):
        assert 0.85 < network(images).std() < 1  # variance of the swing itself: sqrt(4 / 5)
        network[1].running_var.fill_(9 * images.var())
        assert network(images).std() < 0.7


def test_a_mean_holds_nothing_that_a_checkpoint_does_not():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    network.register_buffer("scratch", torch.zeros(3), persistent=False)
    assert {*WeightAverage(network, 0.9).weights} == {*network.state_dict()} - {"1.num_batches_tracked"}
