"""The laws of the partial losses, and values computed by hand."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn import functional

from autoseg.nn.losses.label_sets import LabelSetLoss, label_set_bce, label_set_cross_entropy, label_set_dice

SHAPES = pytest.mark.parametrize("shape", [(7, 5), (3, 4, 5)], ids=["2d", "3d"])
AUTOCAST = pytest.mark.parametrize("half", [False, True], ids=["float32", "bf16"])
REGIONS = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)
K = 4


def table(*sets, n_classes=K):
    """The K singles, "unknown", then ``sets``: (N, K)."""
    rows = torch.cat([torch.eye(n_classes), torch.ones(1, n_classes)]).bool()
    further = torch.zeros(len(sets), n_classes, dtype=torch.bool)
    for row, members in enumerate(sets):
        further[row, list(members)] = True
    return torch.cat([rows, further])


def random_batch(shape, *, seed=0, n_samples=2, n_heads=K, sets=((0, 1), (1, 2, 3), (0, 2, 3)), scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(n_samples, n_heads, *shape, generator=generator)).requires_grad_()
    label_sets = table(*sets)
    codes = torch.randint(0, len(label_sets), (n_samples, *shape), generator=generator)
    return logits, codes, label_sets.expand(n_samples, -1, -1)


def losses(label_sets_regions=REGIONS):
    """Every loss by name, with the number of heads that it reads."""
    return {
        "ce": (lambda z, c, s: label_set_cross_entropy(z, c, s), K),
        "weighted ce": (lambda z, c, s: label_set_cross_entropy(z, c, s, weights=torch.tensor([0.5, 1, 2, 3])), K),
        "dice": (lambda z, c, s: label_set_dice(z, c, s), K),
        "batch dice": (lambda z, c, s: label_set_dice(z, c, s, batch=True), K),
        "region dice": (lambda z, c, s: label_set_dice(z, c, s, regions=label_sets_regions), 3),
        "bce": (lambda z, c, s: label_set_bce(z, c, s, label_sets_regions), 3),
        "classes": (LabelSetLoss(None, batch_dice=True), K),
        "regions": (LabelSetLoss(label_sets_regions.numpy(), batch_dice=False), 3),
    }


EACH_LOSS = pytest.mark.parametrize("name", list(losses()))


def gradient(loss, logits, *arguments):
    leaf = logits.detach().clone().requires_grad_()
    value = loss(leaf, *arguments)
    value.backward()
    return value.detach(), leaf.grad


@SHAPES
@AUTOCAST
@EACH_LOSS
def test_unannotated_voxels_have_no_effect(name, shape, half):
    loss, n_heads = losses()[name]
    logits, codes, label_sets = random_batch(shape, n_heads=n_heads)
    logits = logits.detach().bfloat16() if half else logits
    unknown = (codes == K)[:, None].expand_as(logits)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        value, grad = gradient(loss, logits, codes, label_sets)
        scrambled = torch.where(unknown, 100 * torch.randn(logits.shape).to(logits), logits)
        again, grad_again = gradient(loss, scrambled, codes, label_sets)
    assert value.dtype == torch.float32
    assert grad.dtype == logits.dtype
    assert not grad[unknown].any()
    assert grad[~unknown].any()
    torch.testing.assert_close(again, value, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad_again[~unknown], grad[~unknown], rtol=1e-4, atol=1e-7)


@SHAPES
@EACH_LOSS
def test_a_batch_without_annotation_gives_zero_and_zero_gradients(name, shape):
    loss, n_heads = losses()[name]
    logits, codes, label_sets = random_batch(shape, n_heads=n_heads)
    value, grad = gradient(loss, logits, torch.full_like(codes, K), label_sets)
    assert value.item() == 0
    assert not grad.any()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64], ids=str)
@EACH_LOSS
def test_codes_of_any_integer_type_mean_the_same(name, dtype):
    loss, n_heads = losses()[name]
    logits, codes, label_sets = random_batch((4, 3), n_heads=n_heads)
    assert loss(logits, codes.to(dtype), label_sets) == loss(logits, codes, label_sets)


@EACH_LOSS
def test_extreme_logits_stay_finite(name):
    loss, n_heads = losses()[name]
    logits, codes, label_sets = random_batch((5, 4), n_heads=n_heads)
    value, grad = gradient(loss, logits.sign() * 1e4, codes, label_sets)
    assert value.isfinite()
    assert grad.isfinite().all()
    assert grad.abs().max() <= 1


@EACH_LOSS
def test_every_sample_reads_its_own_table(name):
    loss, n_heads = losses()[name]
    logits, codes, label_sets = random_batch((4, 3), n_heads=n_heads)
    order = torch.randperm(label_sets.shape[1], generator=torch.Generator().manual_seed(1))
    renumbered = codes.clone()
    renumbered[1] = order.argsort()[codes[1]]
    tables = torch.stack([label_sets[0], label_sets[1][order]])
    torch.testing.assert_close(loss(logits, renumbered, tables), loss(logits, codes, label_sets))


@EACH_LOSS
def test_ranks_together_step_as_one_process(name):
    """Each rank sees half of the batch; ``all_reduce`` adds what the other half contributed."""
    options = {
        "ce": lambda **k: lambda z, c, s: label_set_cross_entropy(z, c, s, **k),
        "weighted ce": lambda **k: lambda z, c, s: label_set_cross_entropy(z, c, s, weights=torch.arange(1.0, 5), **k),
        "dice": lambda **k: lambda z, c, s: label_set_dice(z, c, s, **k),
        "batch dice": lambda **k: lambda z, c, s: label_set_dice(z, c, s, batch=True, **k),
        "region dice": lambda **k: lambda z, c, s: label_set_dice(z, c, s, regions=REGIONS, **k),
        "bce": lambda **k: lambda z, c, s: label_set_bce(z, c, s, REGIONS, **k),
        "classes": lambda **k: LabelSetLoss(None, batch_dice=True, **k),
        "regions": lambda **k: LabelSetLoss(REGIONS, batch_dice=True, **k),
    }[name]
    logits, codes, label_sets = random_batch((6, 5), n_heads=losses()[name][1])
    codes[1, :4] = K  # the second half knows much less than the first
    whole, whole_gradient = gradient(options(), logits, codes, label_sets)
    halves = [(logits[i : i + 1], codes[i : i + 1], label_sets[i : i + 1]) for i in (0, 1)]
    sent: list[list[torch.Tensor]] = [[], []]
    for rank in (0, 1):

        def record(sums, rank=rank):
            sent[rank].append(sums.detach())
            return sums

        gradient(options(all_reduce=record), *halves[rank])
    for rank in (0, 1):
        others = iter(sent[1 - rank])
        value, grad = gradient(options(all_reduce=lambda sums, others=others: sums + next(others)), *halves[rank])
        torch.testing.assert_close(value, whole)
        torch.testing.assert_close(grad, whole_gradient[rank : rank + 1], rtol=1e-4, atol=1e-7)


# Cross entropy of sets.


@SHAPES
@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 1.0, 2.0, 3.0])], ids=["plain", "weighted"])
def test_single_classes_give_the_ordinary_cross_entropy(shape, weights):
    logits, codes, label_sets = random_batch(shape, sets=())
    value, grad = gradient(lambda *a: label_set_cross_entropy(*a, weights=weights), logits, codes, label_sets)
    expected, expected_grad = gradient(
        lambda z, t: functional.cross_entropy(z, t, weight=weights, ignore_index=K), logits, codes
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("excluded", range(K))
def test_excluding_one_class_gives_minus_log_one_minus_p(excluded):
    logits, _, _ = random_batch((6, 5))
    label_sets = table(set(range(K)) - {excluded}).expand(2, -1, -1)
    codes = torch.full((2, 6, 5), K + 1)
    value, grad = gradient(label_set_cross_entropy, logits, codes, label_sets)
    p = logits.double().softmax(1)[:, excluded]
    assert value.item() == pytest.approx(-(1 - p).log().mean().item(), rel=1e-5)
    assert (grad[:, excluded] > 0).all()
    assert (grad.sum(1).abs() < 1e-7).all()


def test_a_larger_set_never_costs_more():
    logits, _, _ = random_batch((40, 1), scale=5.0)
    growing = [(2,), (2, 3), (0, 2, 3), (0, 1, 2, 3)]
    label_sets = torch.zeros(2, 4, K, dtype=torch.bool)
    for row, members in enumerate(growing):
        label_sets[:, row, list(members)] = True
    for voxel in range(40):
        one = logits[:1, :, voxel : voxel + 1]
        costs = [
            label_set_cross_entropy(one, torch.full((1, 1, 1), row), label_sets[:1]).item()
            for row in range(len(growing))
        ]
        assert costs == sorted(costs, reverse=True)
        assert costs[-1] == 0


def test_order_of_classes_does_not_matter():
    logits, codes, label_sets = random_batch((6, 5))
    order = torch.tensor([2, 0, 3, 1])
    value, grad = gradient(label_set_cross_entropy, logits, codes, label_sets)
    moved, moved_grad = gradient(label_set_cross_entropy, logits[:, order], codes, label_sets[..., order])
    torch.testing.assert_close(moved, value)
    torch.testing.assert_close(moved_grad, grad[:, order])


def test_losses_of_halves_combine_by_their_informative_voxels():
    logits, codes, label_sets = random_batch((6, 5))
    codes[0, :5] = K
    counts = [(codes[i] != K).sum().item() for i in (0, 1)]
    parts = [label_set_cross_entropy(logits[i : i + 1], codes[i : i + 1], label_sets[:1]).item() for i in (0, 1)]
    combined = (counts[0] * parts[0] + counts[1] * parts[1]) / sum(counts)
    assert label_set_cross_entropy(logits, codes, label_sets).item() == pytest.approx(combined, rel=1e-5)


def test_scale_of_the_weights_does_not_matter_and_weight_zero_is_unknown():
    logits, codes, label_sets = random_batch((6, 5), sets=())
    weights = torch.tensor([0.0, 1.0, 2.0, 3.0])
    value = label_set_cross_entropy(logits, codes, label_sets, weights=weights)
    torch.testing.assert_close(label_set_cross_entropy(logits, codes, label_sets, weights=1e-6 * weights), value)
    without = torch.where(codes == 0, K, codes)
    torch.testing.assert_close(label_set_cross_entropy(logits, without, label_sets, weights=weights), value)


def test_a_set_has_the_mean_weight_of_its_classes_and_the_sum_of_weights_divides():
    logits = torch.zeros(1, K, 1, 3)
    weights = torch.tensor([1.0, 2.0, 6.0, 5.0])
    label_sets = table({1, 2})[None]  # code K + 1; each class has probability 1/4
    codes = torch.tensor([[[0, K + 1, K]]])  # class 0, one of 1 and 2, unannotated
    expected = (1 * math.log(4) + 4 * math.log(2)) / (1 + 4)
    assert label_set_cross_entropy(logits, codes, label_sets, weights=weights).item() == pytest.approx(expected)


def test_each_region_has_its_weight_where_it_is_decided():
    regions = torch.tensor([[False, True, True, False], [False, False, True, False]])
    label_sets = table({1, 2})[None]  # inside the first region; undecided for the second
    logits = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3)
    codes = torch.tensor([[[2, K + 1, K]]])
    inside = [math.log1p(math.exp(-1.0)), math.log1p(math.exp(2.0))]
    expected = (3 * 2 * inside[0] + 5 * inside[1]) / (3 * 2 + 5)
    value = label_set_bce(logits, codes, label_sets, regions, weights=torch.tensor([3.0, 5.0]))
    assert value.item() == pytest.approx(expected)


def test_a_wrong_class_with_a_huge_margin_keeps_its_full_gradient():
    logits = torch.tensor([[100.0, 0.0, 0.0, 0.0]]).view(1, K, 1, 1)
    label_sets = table({1, 2, 3})[None]
    value, grad = gradient(label_set_cross_entropy, logits, torch.full((1, 1, 1), K + 1), label_sets)
    assert value.item() == pytest.approx(100 - math.log(3), rel=1e-6)
    torch.testing.assert_close(grad.flatten(), torch.tensor([1, -1 / 3, -1 / 3, -1 / 3]))


# Dice and binary cross entropy.


def test_dice_by_hand():
    """Four voxels, two classes: p of class 1 is 0.5, 0.5, 0.8, 0.2; the labels are 1, 0, unknown, 1."""
    p = torch.tensor([0.5, 0.5, 0.8, 0.2])
    logits = torch.stack([torch.zeros(4), (p / (1 - p)).log()]).view(1, 2, 1, 4)
    codes = torch.tensor([1, 0, 2, 1]).view(1, 1, 4)
    value = label_set_dice(logits, codes, table(n_classes=2)[None], smooth=0.0)
    assert value.item() == pytest.approx(1 - 2 * 0.7 / (1.2 + 2), rel=1e-6)


@SHAPES
@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
def test_dense_dice_is_that_of_nnunet(shape, batch):
    logits, codes, label_sets = random_batch(shape, sets=())
    codes = codes % K
    p = logits.softmax(1)[:, 1:].flatten(2)
    t = functional.one_hot(codes, K).movedim(-1, 1)[:, 1:].flatten(2)
    overlap, predicted, true = ((x.sum(-1).sum(0) if batch else x.sum(-1)) for x in (p * t, p, t))
    expected = 1 - ((2 * overlap + 1e-5) / (predicted + true + 1e-5)).mean()
    torch.testing.assert_close(label_set_dice(logits, codes, label_sets, batch=batch), expected)


@pytest.mark.parametrize("batch", [False, True], ids=["sample", "batch"])
def test_undecided_heads_leave_the_mean(batch):
    """Where only "not class 1" is known, classes 2 and 3 are undecided and class 1 is negative."""
    logits, _, _ = random_batch((4, 3))
    label_sets = table({0, 2, 3}).expand(2, -1, -1)
    value, grad = gradient(
        lambda *a: label_set_dice(*a, batch=batch, smooth=1.0), logits, torch.full((2, 4, 3), K + 1), label_sets
    )
    total = logits.softmax(1)[:, 1].sum((1, 2))
    expected = 1 - 1 / (total.sum() + 1) if batch else (1 - 1 / (total + 1)).mean()
    torch.testing.assert_close(value, expected.detach())
    assert (grad[:, 1] > 0).all()


def test_an_unknown_sample_leaves_the_mean_of_the_others():
    logits, codes, label_sets = random_batch((6, 5))
    codes[1] = K
    both = label_set_dice(logits, codes, label_sets)
    torch.testing.assert_close(label_set_dice(logits[:1], codes[:1], label_sets[:1]), both)


def test_region_heads_are_positive_inside_negative_outside_and_blind_between():
    """Regions {1,2,3}, {2,3}, {3} and a voxel that may be 1 or 2: positive, undecided, negative."""
    label_sets = table({1, 2})[None]
    codes = torch.full((1, 1, 1), K + 1)
    _, grad = gradient(lambda *a: label_set_bce(*a, REGIONS), torch.zeros(1, 3, 1, 1), codes, label_sets)
    torch.testing.assert_close(grad.flatten(), torch.tensor([-0.25, 0.0, 0.25]))
    _, grad = gradient(lambda *a: label_set_dice(*a, regions=REGIONS), torch.zeros(1, 3, 1, 1), codes, label_sets)
    assert grad.flatten()[0] < 0
    assert grad.flatten()[1] == 0
    assert grad.flatten()[2] > 0


@SHAPES
def test_declaring_ignore_does_not_scale_the_bce(shape):
    """On dense codes the loss is the plain mean, and half of the voxels unknown gives the mean of the other half."""
    logits, codes, label_sets = random_batch(shape, n_heads=3, sets=())
    codes = codes % K
    target = REGIONS[:, codes].movedim(0, 1).float()
    each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(label_set_bce(logits, codes, label_sets, REGIONS), each.mean())
    torch.testing.assert_close(label_set_bce(logits, codes, label_sets[:, :K], REGIONS), each.mean())
    hidden = codes.clone()
    hidden[:, 0] = K
    torch.testing.assert_close(label_set_bce(logits, hidden, label_sets, REGIONS), each[:, :, 1:].mean())


@SHAPES
def test_label_set_loss_is_the_sum_of_its_two_terms(shape):
    logits, codes, label_sets = random_batch(shape)
    for batch in (False, True):
        expected = label_set_cross_entropy(logits, codes, label_sets) + label_set_dice(
            logits, codes, label_sets, batch=batch
        )
        torch.testing.assert_close(LabelSetLoss(None, batch)(logits, codes, label_sets), expected)
    scores = logits[:, :3]
    expected = label_set_bce(scores, codes, label_sets, REGIONS) + label_set_dice(
        scores, codes, label_sets, regions=REGIONS
    )
    torch.testing.assert_close(LabelSetLoss(REGIONS.numpy(), False)(scores, codes, label_sets), expected)


@pytest.mark.parametrize(
    ("logits", "codes", "sets"),
    [
        ((1, 5, 4, 4), (1, 4, 4), (1, 4, 3)),  # more logits than classes
        ((1, 2, 4, 4), (1, 4, 4), (1, 4, 3)),
        ((1, 3, 8, 4), (1, 4, 8), (1, 4, 3)),  # transposed
        ((1, 3, 4, 4), (1, 2, 8), (1, 4, 3)),
        ((2, 3, 4, 4), (2, 4, 4), (1, 4, 3)),  # one table for two samples
        ((0, 3, 4, 4), (0, 4, 4), (0, 4, 3)),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(logits, codes, sets):
    arguments = torch.zeros(logits), torch.zeros(codes, dtype=torch.long), torch.ones(sets, dtype=torch.bool)
    regions = torch.eye(3, dtype=torch.bool)
    for loss in (
        label_set_cross_entropy, label_set_dice, LabelSetLoss(None, batch_dice=True),
        partial(label_set_bce, regions=regions), partial(label_set_dice, regions=regions),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"expected \(B, H, \*P\), \(B, \*P\) and \(B, N, K\)"):
            loss(*arguments)
