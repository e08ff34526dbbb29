from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from autoseg.inference.entropy import binary_entropies, entropy


@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4)], ids=["2d", "3d"])
def test_entropy_of_classes_is_the_share_of_that_of_equal_probabilities(shape):
    probabilities = np.random.default_rng(0).dirichlet([0.3] * 4, size=shape).astype(np.float32)
    result = entropy(torch.from_numpy(np.moveaxis(probabilities, -1, 0)), is_exclusive=True)
    np.testing.assert_allclose(result.numpy(), scipy_entropy(probabilities, base=4, axis=-1), atol=1e-5)
    assert entropy(torch.full((4, 2, 2), 0.25), is_exclusive=True).tolist() == [[1, 1], [1, 1]]


def test_entropy_of_regions_is_the_mean_in_bits():
    probabilities = torch.tensor([0.5, 0.11, 0.0, 1.0])[:, None]
    bits = -0.11 * np.log2(0.11) - 0.89 * np.log2(0.89)
    np.testing.assert_allclose(binary_entropies(probabilities).ravel(), [1, bits, 0, 0], atol=1e-5)
    assert entropy(probabilities, is_exclusive=False).item() == pytest.approx((1 + bits) / 4, abs=1e-5)


def test_one_class_alone_is_certain():
    assert entropy(torch.ones(1, 2, 2), is_exclusive=True).tolist() == [[0, 0], [0, 0]]
