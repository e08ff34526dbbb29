"""Look-ups and sums by code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.dataset import labels
from autoseg.nn.losses import code_tables as coded


@pytest.fixture
def random_tables():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 9, 4, generator=generator) < 0.5, torch.rand(5, 4, generator=generator) < 0.5


def test_states_informative_and_annotated_codes_are_those_of_numpy(random_tables):
    label_sets, regions = random_tables
    positive, negative = coded.head_states(label_sets, regions)
    informative = coded.informative_codes(label_sets)
    undrawn = torch.tensor([0, 5, 8])
    annotated = coded.annotated_codes(label_sets, undrawn)
    for sample in range(len(label_sets)):
        rows = label_sets[sample].numpy()
        expected_positive, expected_negative = labels.head_states(rows, regions.numpy())
        np.testing.assert_array_equal(positive[sample].numpy(), expected_positive)
        np.testing.assert_array_equal(negative[sample].numpy(), expected_negative)
        np.testing.assert_array_equal(informative[sample].numpy(), labels.informative_codes(rows))
        expected_annotated = labels.annotated_codes(rows, int(undrawn[sample]))
        np.testing.assert_array_equal(annotated[sample].numpy(), expected_annotated)


@pytest.mark.parametrize("chunk", [1, 2**20], ids=["in chunks", "at once"])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
def test_sums_by_code_are_those_of_one_hot_codes(monkeypatch, chunk, half):
    monkeypatch.setitem(coded.CHUNK_ELEMENTS, "cpu", chunk)
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2, 3, 2500, generator=generator, requires_grad=True)
    codes = torch.randint(0, 4, (2, 2500), generator=generator)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        sums, counts = coded.sum_by_code(values, codes, 5)
    one_hot = torch.nn.functional.one_hot(codes, 5).float()  # (B, V, N)
    expected = torch.einsum("bhv,bvn->bnh", values, one_hot)
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(counts, one_hot.sum(1))
    assert not sums[:, 4].any()
    assert not counts.requires_grad
    factors = torch.rand(sums.shape, generator=generator)
    (actual,) = torch.autograd.grad((sums * factors).sum(), values)
    (wanted,) = torch.autograd.grad((expected * factors).sum(), values)
    torch.testing.assert_close(actual, wanted)


def test_an_empty_patch_sums_to_nothing():
    sums, counts = coded.sum_by_code(torch.zeros(2, 3, 0), torch.zeros(2, 0, dtype=torch.int64), 5)
    assert sums.shape == (2, 5, 3)
    assert not counts.any()
