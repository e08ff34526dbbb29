"""The partial losses against an independent implementation: voxel by voxel, in float64, without tables."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.nn.losses import label_set_bce, label_set_cross_entropy, label_set_dice


def reference_cross_entropy(logits, codes, label_sets, weights):
    total = norm = 0.0
    for sample in range(len(logits)):
        for voxel, code in enumerate(codes[sample].ravel()):
            members = label_sets[sample, code]
            if not members.any() or members.all():
                continue
            z = logits[sample].reshape(logits.shape[1], -1)[:, voxel].astype(np.float64)
            p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
            weight = weights[members].mean()
            total += -weight * math.log(p[members].sum())
            norm += weight
    return total / norm


def reference_states(members, region):
    if not members.any():
        return None
    if not (members & ~region).any():
        return 1
    return 0 if not (members & region).any() else None


def reference_dice(logits, codes, label_sets, regions, *, batch, smooth=1e-5):
    z = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-z)) if regions is not None else np.exp(z) / np.exp(z).sum(1, keepdims=True)
    heads = np.eye(logits.shape[1], dtype=bool)[1:] if regions is None else regions
    p = p[:, 1:] if regions is None else p
    sums = np.zeros((len(logits), len(heads), 3))
    for sample in range(len(logits)):
        for voxel, code in enumerate(codes[sample].ravel()):
            for head, region in enumerate(heads):
                state = reference_states(label_sets[sample, code], region)
                if state is not None:
                    q = p[sample, head].ravel()[voxel]
                    sums[sample, head] += (q * state, q + state, 1)
    sums = sums.sum(0) if batch else sums.reshape(-1, 3)
    dice = [(2 * overlap + smooth) / (total + smooth) for overlap, total, n in sums if n]
    return 1 - float(np.mean(dice))


def reference_bce(logits, codes, label_sets, regions):
    terms = []
    for sample in range(len(logits)):
        for voxel, code in enumerate(codes[sample].ravel()):
            for head, region in enumerate(regions):
                state = reference_states(label_sets[sample, code], region)
                if state is not None:
                    z = float(logits[sample, head].ravel()[voxel])
                    terms.append(math.log1p(math.exp(-z if state else z)))
    return float(np.mean(terms))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_losses_equal_an_independent_implementation(data):
    shape = data.draw(st.sampled_from([(3, 4), (2, 3, 2)]))
    n_classes, n_codes, n_samples = (
        data.draw(st.integers(2, 5)),
        data.draw(st.integers(1, 7)),
        data.draw(st.integers(1, 3)),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    label_sets = rng.random((n_samples, n_codes, n_classes)) < data.draw(st.sampled_from([0.3, 0.6]))
    label_sets[:, 0] = np.eye(n_classes, dtype=bool)[1]
    codes = rng.integers(0, n_codes, (n_samples, *shape))
    codes[:, 0] = 0
    regions = rng.random((data.draw(st.integers(1, 3)), n_classes)) < 0.5
    regions[:, 1] = True
    logits = rng.normal(size=(n_samples, n_classes, *shape)).astype(np.float32)
    weights = rng.random(n_classes).astype(np.float32) + 0.1
    z, c, s, r = (torch.from_numpy(a) for a in (logits, codes, label_sets, regions))

    entropy = label_set_cross_entropy(z, c, s, weights=torch.from_numpy(weights))
    assert entropy.item() == pytest.approx(reference_cross_entropy(logits, codes, label_sets, weights), rel=1e-4)
    scores = rng.normal(size=(n_samples, len(regions), *shape)).astype(np.float32)
    y = torch.from_numpy(scores)
    assert label_set_bce(y, c, s, r).item() == pytest.approx(
        reference_bce(scores, codes, label_sets, regions), rel=1e-4
    )
    for batch in (False, True):
        expected = reference_dice(logits, codes, label_sets, None, batch=batch)
        assert label_set_dice(z, c, s, batch=batch).item() == pytest.approx(expected, abs=1e-5)
        expected = reference_dice(scores, codes, label_sets, regions, batch=batch)
        assert label_set_dice(y, c, s, regions=r, batch=batch).item() == pytest.approx(expected, abs=1e-5)
