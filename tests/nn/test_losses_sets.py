"""Laws of the cross entropy of label sets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loss_examples import FEW, WAYS, assert_same, every_loss, examples, going, gradient, sets_of
from torch.nn import functional

from autoseg.nn.losses.label_sets import LabelSetLoss, label_set_cross_entropy


@FEW
@given(example=examples(styles=("dense", "sparse")), way=st.sampled_from(WAYS))
def test_classes_and_unknown_give_the_cross_entropy_of_torch(example, way):
    unknown = example.logits.shape[1]
    codes = example.codes.clone()
    codes[:, 0, 0] = 1  # at least one voxel is known
    with going(way):
        actual = gradient(label_set_cross_entropy, example.logits, codes, example.label_sets)
    wanted = gradient(lambda z: functional.cross_entropy(z, codes, ignore_index=unknown), example.logits)
    assert_same(actual, wanted, rtol=1e-5)


@FEW
@given(example=examples(styles=("dense",)), batch=st.booleans())
def test_dense_codes_give_the_loss_of_nnunet(example, batch):
    def expected(logits):
        p = logits.softmax(1)[:, 1:].flatten(2)
        t = functional.one_hot(example.codes, logits.shape[1]).movedim(-1, 1)[:, 1:].flatten(2)
        overlap, predicted, true = ((x.sum(2).sum(0) if batch else x.sum(2)) for x in (p * t, p, t))
        dice = (2 * overlap + 1e-5) / (predicted + true + 1e-5).clamp_min(1e-8)
        return functional.cross_entropy(logits, example.codes) + 1 - dice.mean()

    loss = LabelSetLoss(None, batch)
    actual = gradient(lambda z: loss(z, example.codes, example.label_sets), example.logits)
    assert_same(actual, gradient(expected, example.logits))


@FEW
@given(example=examples())
def test_order_within_a_set_and_shifts_do_not_matter(example):
    sets = sets_of(example).movedim(-1, 1)  # (B, K, *P)
    generator = torch.Generator().manual_seed(0)
    keys = torch.rand(example.logits.shape, generator=generator)
    into = (keys + 2 * sets).argsort(1)  # places, those outside of the set first
    order = (keys.flip(1) + 2 * sets).argsort(1)
    moved = torch.empty_like(example.logits).scatter_(1, into, example.logits.gather(1, order))
    moved = moved + 10 * torch.randn(keys[:, :1].shape, generator=generator)
    # A voxel of one class keeps it, since the only place inside of its set is its own.
    value, slope = gradient(label_set_cross_entropy, example.logits, example.codes, example.label_sets)
    again, moved_slope = gradient(label_set_cross_entropy, moved, example.codes, example.label_sets)
    expected_slope = torch.empty_like(slope).scatter_(1, into, slope.gather(1, order))
    assert_same((again, moved_slope), (value, expected_slope))


@FEW
@given(example=examples(styles=("absent",)))
def test_the_cross_entropy_falls_as_sets_grow_and_excludes_classes_jointly(example):
    """Voxel by voxel: {k} within A within everything, and -log(1 - sum p) >= -sum log(1 - p) for excluded classes."""
    n_classes = example.logits.shape[1]
    z = example.logits[:1, :, 0].flatten(2)[..., :1]
    p = z.double().softmax(1).flatten()
    members = sets_of(example)[0].flatten(0, -2)[0]
    if members.any() and not members.all():

        def cost(row):
            return label_set_cross_entropy(z, torch.zeros(1, 1).long(), row.view(1, 1, -1)).item()

        own = functional.one_hot(members.long().argmax(), n_classes).bool()
        joint, grown = cost(members), members.clone()
        grown[members.long().argmin()] = True
        assert cost(own) >= joint - 1e-6
        assert joint >= cost(grown) - 1e-6
        each = -(1 - p[~members]).log()
        assert joint >= each.sum().item() - 1e-4 * (1 + abs(joint))
        if len(each) == 1:
            assert joint == pytest.approx(each.item(), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@FEW
@given(n_classes=st.integers(3, 6), excluded=st.integers(0, 2), seed=st.integers(0, 1000))
def test_descent_on_an_exclusion_drives_its_class_out_and_keeps_equal_ones_equal(n_classes, excluded, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.zeros(1, n_classes, 2, 2)
    z[:, excluded] = torch.randn(2, 2, generator=generator)
    tables = torch.ones(1, 1, n_classes, dtype=torch.bool)
    tables[..., excluded] = False
    codes = torch.zeros(1, 2, 2).long()
    others = [k for k in range(n_classes) if k != excluded]
    before = z.softmax(1)[:, excluded]
    for _ in range(20):
        _, slope = gradient(label_set_cross_entropy, z, codes, tables)
        assert (slope[:, excluded] > 0).all()
        assert (slope[:, others] < 0).all()
        assert (slope.sum(1).abs() < 1e-6).all()
        z = z - 16 * slope
        after = z.softmax(1)[:, excluded]
        assert (after < before).all()
        before = after
    assert (after < 0.05).all()
    torch.testing.assert_close(z[:, others], z[:, others[:1]].expand(-1, len(others), -1, -1))


@FEW
@given(
    example=examples(),
    scale=st.sampled_from([1e4, 6e4]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_extreme_logits_stay_finite_and_gradients_bounded(example, scale, dtype):
    for loss, logits in every_loss(example):
        for extreme in (logits.sign() * scale, (logits * scale).clamp(-scale, scale)):
            with torch.autocast(
                "cpu", torch.bfloat16 if dtype == torch.float32 else dtype, enabled=dtype != torch.float32
            ):
                value, slope = gradient(loss, extreme.to(dtype), example.codes, example.label_sets)
            assert value.isfinite()
            assert slope.isfinite().all()
            assert slope.abs().max() <= 1
