"""Targets and weights of the coarse heads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_examples import examples
from torch.nn import functional

from autoseg.nn.architectures.unet import output_strides
from autoseg.nn.losses.code_tables import informative_codes
from autoseg.nn.losses.deep_supervision import (
    DeepSupervisionLoss,
    code_pyramid,
    deep_supervision_weights,
    downsample_codes,
)
from autoseg.nn.losses.label_sets import LabelSetLoss

K = 3
UNKNOWN = 3
UNDRAWN = torch.tensor([UNKNOWN])
LABEL_SETS = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)[None]


@pytest.mark.parametrize(
    ("n", "expected"),
    [(1, [1.0]), (2, [1.0, 0.0]), (3, [2 / 3, 1 / 3, 0.0]), (5, [8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0])],
)
def test_weights_halve_and_sum_to_one(n, expected):
    assert deep_supervision_weights(n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "stride"), [((8, 12), (2, 4)), ((8, 4), (1, 2)), ((4, 8, 8), (1, 2, 4)), ((16, 16, 16), (8, 8, 16))]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int64], ids=str)
def test_dense_codes_come_out_as_nearest_exact(shape, stride, dtype):
    codes = torch.randint(0, K, (2, *shape), generator=torch.Generator().manual_seed(0))
    size = [edge // step for edge, step in zip(shape, stride, strict=True)]
    expected = functional.interpolate(codes[:, None].float(), size=size, mode="nearest-exact")[:, 0]
    actual = downsample_codes(codes.to(dtype), LABEL_SETS.expand(2, -1, -1), stride, UNKNOWN, UNDRAWN)
    assert actual.dtype == dtype
    assert torch.equal(actual.long(), expected.long())


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(
        [((8, 8), (4, 2)), ((7, 9), (2, 4)), ((6, 8), (3, 2)), ((4, 8, 6), (2, 4, 1)), ((5, 8, 8), (4, 8, 8))]
    ),
    st.integers(0, 1000),
    st.sampled_from([0.02, 0.2, 0.7]),
    st.sampled_from([torch.uint8, torch.int64]),
)
def test_a_coarse_voxel_is_annotated_exactly_if_one_of_its_voxels_is(sizes, seed, share, dtype):
    shape, stride = sizes
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, len(LABEL_SETS[0]), (1, *shape), generator=generator)
    codes = torch.where(torch.rand(codes.shape, generator=generator) < share, codes, UNKNOWN).to(dtype)
    coarse = downsample_codes(codes, LABEL_SETS, stride, UNKNOWN, UNDRAWN)
    assert coarse.shape[1:] == tuple(-(-edge // step) for edge, step in zip(shape, stride, strict=True))
    for index in torch.cartesian_prod(*(torch.arange(edge) for edge in coarse.shape[1:])):
        cell = codes[(0, *(slice(i * step, (i + 1) * step) for i, step in zip(index.tolist(), stride, strict=True)))]
        known = set(cell[cell != UNKNOWN].tolist())
        assert coarse[(0, *index.tolist())].item() in (known or {UNKNOWN})


def test_a_one_voxel_wide_scribble_survives_at_every_scale():
    codes = torch.full((1, 16, 32, 32), UNKNOWN)
    codes[0, 4, 6, :] = 1
    for stride in [(1, 2, 2), (2, 4, 4), (4, 8, 8), (8, 16, 16)]:
        coarse = downsample_codes(codes, LABEL_SETS, stride, UNKNOWN, UNDRAWN)
        assert (coarse == 1).sum() == 32 // stride[2]
        assert ((coarse == 1) | (coarse == UNKNOWN)).all()


def test_a_sample_is_judged_by_its_own_table():
    codes = torch.tensor([[4, 4, 4, 1], [4, 4, 4, 1]])[:, None].expand(2, 2, 4)
    tables = LABEL_SETS.repeat(2, 1, 1)
    tables[1, 4] = True  # for the second sample code 4 says nothing
    coarse = downsample_codes(codes, tables, (2, 4), UNKNOWN, UNDRAWN)
    assert coarse.flatten().tolist() == [4, 1]


def test_a_pyramid_yields_each_scale():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 5, (2, 8, 16), generator=generator)
    codes = torch.where(torch.rand(codes.shape, generator=generator) < 0.1, codes, UNKNOWN)
    strides = [(1, 1), (1, 2), (2, 4), (4, 8)]
    tables = LABEL_SETS.expand(2, -1, -1)
    levels = list(code_pyramid(codes, tables, strides, UNKNOWN, UNDRAWN))
    assert torch.equal(levels[0], codes)
    assert torch.equal(levels[1], downsample_codes(codes, tables, (1, 2), UNKNOWN, UNDRAWN))
    for level, stride in zip(levels, strides, strict=True):
        direct = downsample_codes(codes, tables, stride, UNKNOWN, UNDRAWN)
        assert torch.equal(level == UNKNOWN, direct == UNKNOWN)


def outputs(shapes, n_heads=K):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, n_heads, *shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize(
    ("strides", "shapes"),
    [
        (((1, 1), (2, 2), (1, 2), (2, 2)), [(8, 16), (4, 8), (4, 4)]),
        (((1, 1, 1), (1, 2, 2), (2, 2, 2)), [(4, 8, 8), (4, 4, 4)]),
    ],
    ids=["2d", "3d"],
)
def test_deep_supervision_is_the_weighted_sum_over_used_heads(strides, shapes):
    logits = outputs(shapes)
    codes = torch.randint(0, 4, (2, *shapes[0]), generator=torch.Generator().manual_seed(1))
    tables = LABEL_SETS.expand(2, -1, -1)
    loss = LabelSetLoss(None, batch_dice=True)
    total = DeepSupervisionLoss(loss, output_strides(strides), UNKNOWN)(
        logits, codes, tables, undrawn=UNDRAWN.expand(2)
    )
    expected = torch.zeros(())
    for output, weight in zip(logits, deep_supervision_weights(len(shapes)), strict=True):
        if weight:
            stride = [full // low for full, low in zip(shapes[0], output.shape[2:], strict=True)]
            expected = expected + weight * loss(
                output, downsample_codes(codes, tables, stride, UNKNOWN, UNDRAWN), tables
            )
    torch.testing.assert_close(total, expected)
    total.backward()
    assert logits[0].grad is not None
    assert logits[0].grad.any()
    assert logits[-1].grad is not None  # in the graph, so that ranks wait for no parameter, but without effect
    assert not logits[-1].grad.any()


def test_infinite_logits_of_an_unused_head_do_no_harm():
    logits = outputs([(8, 8), (4, 4)])
    logits[1] = torch.full_like(logits[1], torch.inf)
    codes = torch.zeros(2, 8, 8, dtype=torch.uint8)
    loss = DeepSupervisionLoss(LabelSetLoss(None, False), ((1, 1), (2, 2)), UNKNOWN)
    assert loss(logits, codes, LABEL_SETS.expand(2, -1, -1), undrawn=UNDRAWN.expand(2)).isfinite()


@pytest.mark.parametrize("strides", [((1, 1),), ((1, 1), (2, 2))], ids=["one stage", "two stages"])
def test_a_single_head_has_weight_one(strides):
    logits = outputs([(8, 8)])
    codes = torch.randint(0, 4, (2, 8, 8), dtype=torch.uint8)
    tables = LABEL_SETS.expand(2, -1, -1)
    loss = LabelSetLoss(None, False)
    expected = loss(logits[0], codes, tables)
    torch.testing.assert_close(
        DeepSupervisionLoss(loss, output_strides(strides), UNKNOWN)(logits, codes, tables, undrawn=UNDRAWN.expand(2)),
        expected,
    )


def test_another_number_of_heads_is_refused():
    loss = DeepSupervisionLoss(LabelSetLoss(None, False), ((1, 1), (2, 2)), UNKNOWN)
    with pytest.raises(ValueError, match="found 1 heads, expected 2"):
        loss(outputs([(8, 8)]), torch.zeros(2, 8, 8), LABEL_SETS, undrawn=UNDRAWN)


@pytest.mark.parametrize("shape", [(16, 32), (8, 16, 32)], ids=["2d", "3d"])
def test_scribbles_survive_among_voxels_that_only_exclude_absent_classes(shape):
    """Code 5 is "not class 2" and everywhere: not annotated in the first sample, and drawn in the second."""
    tables = torch.cat([LABEL_SETS, torch.tensor([[[True, True, False]]])], dim=1).repeat(2, 1, 1)
    codes = torch.full((2, *shape), 5)
    codes[:, ..., 5, :] = 1
    undrawn = torch.tensor([5, UNKNOWN])
    for stride in [(2,) * len(shape), (4,) * len(shape)]:
        coarse = downsample_codes(codes, tables, stride, UNKNOWN, undrawn)
        assert (coarse[0, ..., 5 // stride[0], :] == 1).all()
        assert (coarse[0] == 5).sum() + (coarse[0] == 1).sum() == coarse[0].numel()
        picked = codes[(slice(None), *(slice(step // 2, None, step) for step in stride))]
        assert torch.equal(coarse[1], picked[1])


def test_a_batch_of_wide_sets_only_comes_out_as_nearest_exact():
    codes = torch.full((1, 8, 8), 4)
    assert (downsample_codes(codes, LABEL_SETS, (2, 4), UNKNOWN, UNDRAWN) == 4).all()


@settings(max_examples=30, deadline=None)
@given(example=examples(), strides=st.sampled_from([(1, 2, 4), (2, 4), (2, 6), (3,), (1, 4, 8)]))
def test_no_scale_of_a_pyramid_loses_or_invents_annotation(example, strides):
    """A coarse voxel is informative exactly if one of its voxels is: for sets, unannotated voxels, single classes."""
    codes, tables = example.codes, example.label_sets
    unknown = tables.shape[2]
    informative = informative_codes(tables)
    steps = [(1, *(stride,) * (codes.ndim - 2)) for stride in strides]  # the first axis keeps its resolution
    for stride, coarse in zip(
        steps, code_pyramid(codes, tables, steps, unknown, torch.full((len(codes),), unknown)), strict=True
    ):
        for place in torch.cartesian_prod(*(torch.arange(edge) for edge in coarse.shape)).tolist():
            sample, *cell = place
            around = tuple(slice(i * step, (i + 1) * step) for i, step in zip(cell, stride, strict=True))
            inside = codes[sample][around].unique()
            actual = coarse[tuple(place)]
            assert informative[sample, actual] == informative[sample, inside].any()
            assert actual in inside or not informative[sample, actual]
