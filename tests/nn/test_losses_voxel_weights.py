"""The weight of a voxel's evidence has the same meaning in every partial loss."""

from __future__ import annotations

import pytest
import torch

from autoseg.nn.losses.label_sets import LabelSetLoss, label_set_bce, label_set_cross_entropy, label_set_dice

K = 4
UNKNOWN = K
SHAPES = pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5)], ids=["2d", "3d"])
REGIONS = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)
CLASS_WEIGHTS = torch.tensor([0.5, 1, 2, 3])
LABEL_SETS = torch.tensor(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 1, 1]]
).bool()
LOSSES = {
    "ce": (lambda z, c, s, u: label_set_cross_entropy(z, c, s, voxel_weights=u), K),
    "weighted ce": (lambda z, c, s, u: label_set_cross_entropy(z, c, s, weights=CLASS_WEIGHTS, voxel_weights=u), K),
    "dice": (lambda z, c, s, u: label_set_dice(z, c, s, smooth=0.0, voxel_weights=u), K),
    "batch dice": (lambda z, c, s, u: label_set_dice(z, c, s, batch=True, smooth=0.0, voxel_weights=u), K),
    "region dice": (lambda z, c, s, u: label_set_dice(z, c, s, regions=REGIONS, smooth=0.0, voxel_weights=u), 3),
    "bce": (lambda z, c, s, u: label_set_bce(z, c, s, REGIONS, voxel_weights=u), 3),
    "classes": (LabelSetLoss(None, batch_dice=True, smooth=0.0), K),
    "regions": (LabelSetLoss(REGIONS, batch_dice=False, smooth=0.0), 3),
}
EACH_LOSS = pytest.mark.parametrize("name", list(LOSSES))


def random_batch(shape, n_heads, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, n_heads, *shape, generator=generator)
    codes = torch.randint(0, len(LABEL_SETS), (2, *shape), generator=generator)
    weights = torch.randint(0, 4, (2, *shape), generator=generator).float()
    return logits, codes, LABEL_SETS.expand(2, -1, -1), weights


def gradient(loss, logits, *arguments):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, *arguments)
    value.backward()
    return value.detach(), leaf.grad


@SHAPES
@EACH_LOSS
def test_weight_one_everywhere_is_no_weight(name, shape):
    loss, n_heads = LOSSES[name]
    logits, codes, label_sets, _ = random_batch(shape, n_heads)
    plain = gradient(loss, logits, codes, label_sets, None)
    weighted = gradient(loss, logits, codes, label_sets, torch.ones(codes.shape))
    torch.testing.assert_close(weighted, plain)


@SHAPES
@pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
@EACH_LOSS
def test_a_voxel_of_weight_zero_is_as_if_unknown(name, half, shape):
    loss, n_heads = LOSSES[name]
    logits, codes, label_sets, weights = random_batch(shape, n_heads)
    logits = logits.bfloat16() if half else logits
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        value, grad = gradient(loss, logits, codes, label_sets, weights)
        hidden = torch.where(weights == 0, UNKNOWN, codes)
        expected = gradient(loss, logits, hidden, label_sets, weights + (weights == 0))
        silent = (weights == 0)[:, None].expand_as(logits)
        scrambled = torch.where(silent, 1e4 * torch.randn(logits.shape).to(logits), logits)
        again, grad_again = gradient(loss, scrambled, codes, label_sets, weights)
    torch.testing.assert_close((value, grad), expected)
    assert not grad[silent].any()
    assert not grad_again[silent].any()
    torch.testing.assert_close(again, value)


@SHAPES
@EACH_LOSS
def test_a_voxel_of_weight_two_counts_as_two_voxels(name, shape):
    loss, n_heads = LOSSES[name]
    logits, codes, label_sets, weights = random_batch(shape, n_heads)
    value, grad = gradient(loss, logits, codes, label_sets, weights)
    copies = [torch.where(weights > count, codes, UNKNOWN) for count in range(3)]  # side by side along the last axis
    repeated, repeated_grad = gradient(
        loss, torch.cat([logits] * 3, -1), torch.cat(copies, -1), label_sets, torch.ones(2, *shape[:-1], 3 * shape[-1])
    )
    torch.testing.assert_close(repeated, value)
    torch.testing.assert_close(sum(repeated_grad.split(shape[-1], -1)), grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bool, torch.uint8], ids=str)
@EACH_LOSS
def test_only_the_ratio_of_weights_matters_and_their_type_does_not(name, dtype):
    loss, n_heads = LOSSES[name]
    logits, codes, label_sets, weights = random_batch((6, 5), n_heads)
    weights = weights.to(dtype)
    value = gradient(loss, logits, codes, label_sets, weights.float())
    torch.testing.assert_close(gradient(loss, logits, codes, label_sets, weights), value)
    torch.testing.assert_close(
        gradient(loss, logits, codes, label_sets, 1e-3 * weights.float()), value, rtol=1e-4, atol=1e-7
    )


@EACH_LOSS
def test_no_weight_anywhere_gives_zero_and_zero_gradients(name):
    loss, n_heads = LOSSES[name]
    logits, codes, label_sets, weights = random_batch((6, 5), n_heads)
    value, grad = gradient(loss, logits, codes, label_sets, 0 * weights)
    assert value.item() == 0
    assert not grad.any()


@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
def test_a_head_decided_only_where_the_weight_is_zero_leaves_the_mean_of_the_dice(batch):
    logits, codes, label_sets, _ = random_batch((6, 5), K)
    codes = torch.where(codes == 3, 3, UNKNOWN)
    codes[:, :2] = 5  # classes 0 or 1: negative for 2 and 3, undecided for 1
    codes[:, -1] = 2  # decides 1, 2 and 3
    weights = torch.ones(codes.shape)
    weights[:, -1] = 0
    weights[codes == 3] = 0
    value = label_set_dice(logits, codes, label_sets, batch=batch, smooth=1.0, voxel_weights=weights)
    total = logits.softmax(1)[:, 2:, :2].sum((2, 3))  # heads 2 and 3; head 1 has no decided voxel of weight > 0
    expected = 1 - 1 / (total.sum(0) + 1) if batch else 1 - 1 / (total + 1)
    torch.testing.assert_close(value, expected.mean())
