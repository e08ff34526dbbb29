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
