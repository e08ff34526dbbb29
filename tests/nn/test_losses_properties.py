"""The partial losses on random batches against naive ones, and what they must not depend on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_examples import FEW, WAYS, assert_same, every_loss, examples, going, gradient, heads_as_logits, sets_of
from naive_losses import naive_bce, naive_cross_entropy, naive_dice

from autoseg.nn.architectures.unet import output_strides
from autoseg.nn.losses.deep_supervision import DeepSupervisionLoss, deep_supervision_weights, downsample_codes
from autoseg.nn.losses.label_sets import LabelSetLoss, label_set_bce, label_set_cross_entropy, label_set_dice


def check_all(example, logits, scores, weights, *, rtol=1e-4):
    """Compare every loss with the naive one, given logits of classes and of regions."""
    stated = (example.codes, example.label_sets)
    regions = example.regions

    def check(actual, wanted, z, **options):
        assert_same(
            gradient(lambda z: actual(z, *stated, voxel_weights=weights, **options), z),
            gradient(lambda z: wanted(z, *stated, voxel_weights=weights, **options), z),
            rtol=rtol,
        )

    check(label_set_cross_entropy, naive_cross_entropy, logits)
    check(label_set_cross_entropy, naive_cross_entropy, logits, weights=torch.linspace(0.5, 2, logits.shape[1]))
    check(label_set_bce, naive_bce, scores, regions=regions)
    check(label_set_bce, naive_bce, scores, regions=regions, weights=torch.linspace(0.5, 2, len(regions)))
    for batch in (False, True):
        check(label_set_dice, naive_dice, logits, batch=batch)
        check(label_set_dice, naive_dice, scores, batch=batch, regions=regions)


@FEW
@given(example=examples(), is_weighted=st.booleans(), way=st.sampled_from(WAYS))
def test_values_and_gradients_are_those_of_the_naive_losses(example, is_weighted, way):
    with going(way):
        check_all(example, example.logits, heads_as_logits(example), example.voxel_weights if is_weighted else None)


@FEW
@given(example=examples(), dtype=st.sampled_from([torch.bfloat16, torch.float16]), is_weighted=st.booleans())
def test_half_precision_logits_cost_no_more_than_their_own_rounding(example, dtype, is_weighted):
    """The arithmetic stays float32 under autocast: only the gradient is rounded once, to the type of the logits."""
    weights = example.voxel_weights if is_weighted else None
    with torch.autocast("cpu", dtype):
        check_all(example, example.logits.to(dtype), heads_as_logits(example).to(dtype), weights, rtol=1e-2)
        value = label_set_cross_entropy(example.logits.to(dtype), example.codes, example.label_sets)
    assert value.dtype == torch.float32
    torch.testing.assert_close(
        value, label_set_cross_entropy(example.logits.to(dtype).float(), example.codes, example.label_sets)
    )


@settings(max_examples=6, deadline=None)
@given(example=examples(styles=("lazy", "sparse", "dense")), is_weighted=st.booleans(), way=st.sampled_from(WAYS))
def test_hand_written_gradients_are_those_of_finite_differences(example, is_weighted, way):
    weights = example.voxel_weights[:1] if is_weighted else None
    cut = [tensor[:1, ..., :2] for tensor in (example.logits, heads_as_logits(example))]
    codes, tables = example.codes[:1, ..., :2], example.label_sets[:1]
    weights = None if weights is None else weights[..., :2]
    for z, regions in zip(cut, (None, example.regions), strict=True):
        loss = LabelSetLoss(regions, batch_dice=True, smooth=0.1)
        z = z.double().requires_grad_()
        with going(way):
            assert torch.autograd.gradcheck(loss, (z, codes, tables, weights))


@FEW
@given(example=examples(), batch=st.booleans())
def test_deep_supervision_is_the_naive_loss_of_every_resolution(example, batch):
    strides = ((1,) * (example.codes.ndim - 1), (2,) * (example.codes.ndim - 1), (2,) * (example.codes.ndim - 1))
    unknown = example.logits.shape[1]
    undrawn = torch.full((len(example.codes),), unknown)
    coarse = downsample_codes(example.codes, example.label_sets, strides[1], unknown, undrawn)
    low = torch.randn(*example.logits.shape[:2], *coarse.shape[1:], generator=torch.Generator().manual_seed(0))
    total = DeepSupervisionLoss(LabelSetLoss(None, batch), output_strides(strides), unknown)(
        [example.logits, low], example.codes, example.label_sets, undrawn=undrawn
    )
    expected = sum(
        weight * (naive_cross_entropy(z, c, example.label_sets) + naive_dice(z, c, example.label_sets, batch=batch))
        for weight, z, c in zip(
            deep_supervision_weights(2), (example.logits, low), (example.codes, coarse), strict=True
        )
    )
    torch.testing.assert_close(total.double(), expected, rtol=1e-4, atol=1e-5)


# What is not known has no say.


@FEW
@given(example=examples(), way=st.sampled_from(WAYS))
def test_gradients_are_exactly_zero_at_unannotated_voxels(example, way):
    sets = sets_of(example)
    silent = (sets.all(-1) | ~sets.any(-1))[:, None]  # (B, 1, *P)
    for loss, logits in every_loss(example):
        noise = 1e4 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        with going(way):
            actual = gradient(loss, logits, example.codes, example.label_sets)
            again = gradient(loss, torch.where(silent, noise, logits), example.codes, example.label_sets)
        assert not actual[1][silent.expand_as(logits)].any()
        assert not again[1][silent.expand_as(logits)].any()
        assert_same(again, actual)


@FEW
@given(example=examples(styles=("empty",)), way=st.sampled_from(WAYS))
def test_a_batch_without_annotation_gives_exactly_zero(example, way):
    for loss, logits in every_loss(example):
        with going(way):
            value, slope = gradient(loss, logits, example.codes, example.label_sets)
        assert value.item() == 0
        assert not slope.any()


@FEW
@given(example=examples())
def test_codes_of_equal_sets_give_the_same_loss(example):
    """What a voxel was drawn as does not matter where it leaves the same classes."""
    tables = torch.cat([example.label_sets, example.label_sets.flip(1)], 1)
    mirrored = tables.shape[1] - 1 - example.codes
    swapped = torch.rand(example.codes.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    for loss, logits in every_loss(example):
        actual = gradient(loss, logits, torch.where(swapped, mirrored, example.codes), tables)
        assert_same(actual, gradient(loss, logits, example.codes, example.label_sets))


@FEW
@given(example=examples(styles=("lazy", "absent")), batch=st.booleans())
def test_a_head_that_nothing_decides_leaves_the_dice_as_it_is(example, batch):
    """The region stands for some of the classes of every set, and for others not."""
    n_classes = example.logits.shape[1]
    tables = torch.cat([example.label_sets, example.label_sets.any(2, keepdim=True)], 2)  # a class that goes with all
    regions = torch.cat([example.regions, torch.zeros(len(example.regions), 1, dtype=torch.bool)], 1)
    further = torch.zeros(1, n_classes + 1, dtype=torch.bool)
    further[:, -1] = True
    scores = heads_as_logits(example)
    actual = gradient(
        lambda z: label_set_dice(z, example.codes, tables, regions=torch.cat([regions, further]), batch=batch),
        torch.cat([scores, scores[:, :1]], 1),
    )
    expected = gradient(lambda z: label_set_dice(z, example.codes, tables, regions=regions, batch=batch), scores)
    assert not actual[1][:, -1].any()
    assert_same((actual[0], actual[1][:, :-1]), expected)


# Sums over voxels, samples and ranks.


@FEW
@given(example=examples())
def test_losses_of_samples_combine_by_their_weights(example):
    """Over any sharding: the cross entropy of a batch is the mean of those of its samples by what they know."""
    sets = sets_of(example)
    informative = (sets.any(-1) & ~sets.all(-1)) * example.voxel_weights
    shares = informative.flatten(1).sum(1)
    each = [
        label_set_cross_entropy(
            example.logits[i : i + 1], example.codes[i : i + 1], example.label_sets[i : i + 1],
            voxel_weights=example.voxel_weights[i : i + 1],
        )
        for i in range(len(shares))
    ]  # fmt: skip
    whole = label_set_cross_entropy(
        example.logits, example.codes, example.label_sets, voxel_weights=example.voxel_weights
    )
    expected = (torch.stack(each) * shares).sum() / shares.sum().clamp_min(1e-9)
    torch.testing.assert_close(whole, expected, rtol=1e-4, atol=1e-6)


@FEW
@given(example=examples(), factor=st.sampled_from([1e-4, 3.0, 1e4]))
def test_only_ratios_of_weights_matter_and_zero_is_unknown(example, factor):
    weights, unknown = example.voxel_weights, example.logits.shape[1]
    importance = torch.rand(unknown, generator=torch.Generator().manual_seed(0)) + 0.1
    hidden = torch.where(weights == 0, unknown, example.codes)

    def actual(codes, voxel_weights, class_weights):
        options = {"weights": class_weights, "voxel_weights": voxel_weights}
        return gradient(lambda z: label_set_cross_entropy(z, codes, example.label_sets, **options), example.logits)

    expected = actual(example.codes, weights, importance)
    assert_same(actual(example.codes, factor * weights, importance), expected)
    assert_same(actual(example.codes, weights, factor * importance), expected)
    assert_same(actual(hidden, weights + (weights == 0), importance), expected)


@FEW
@given(example=examples())
def test_flipping_and_transposing_space_moves_gradients_along(example):
    for loss, logits in every_loss(example):
        value, slope = gradient(loss, logits, example.codes, example.label_sets)
        for move in (lambda x: x.flip(-1), lambda x: x.transpose(-1, -2)):
            again = gradient(loss, move(logits), move(example.codes), example.label_sets)
            assert_same(again, (value, move(slope)))


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5)], ids=["2d", "3d"])
def test_memory_layout_of_the_logits_does_not_matter(shape):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, *shape, generator=generator)
    tables = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]]).bool().expand(2, -1, -1)
    codes = torch.randint(0, 4, (2, *shape), generator=generator)
    layout = torch.channels_last if len(shape) == 2 else torch.channels_last_3d
    loss = LabelSetLoss(None, True)
    actual = gradient(loss, logits.contiguous(memory_format=layout), codes, tables)
    assert_same(actual, gradient(loss, logits, codes, tables))


def test_a_class_of_a_region_that_is_never_decided_gets_no_gradient_and_an_absent_one_everywhere():
    """Regions of one class each: class 1 undrawn, class 2 absent."""
    tables = torch.tensor([[[1, 1, 0], [1, 1, 1]]]).bool()
    regions = torch.eye(3).bool()[1:]
    codes = torch.zeros(1, 4, 4).long()
    _, slope = gradient(lambda z: label_set_bce(z, codes, tables, regions), torch.randn(1, 2, 4, 4))
    assert not slope[:, 0].any()
    assert (slope[:, 1] > 0).all()
