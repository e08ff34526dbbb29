"""Random batches that mix dense, sparse, lazy and empty cases, and the ways through the losses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from autoseg.nn.losses import fused_sigmoid as sigmoid_sums
from autoseg.nn.losses import fused_softmax as softmax_sums
from autoseg.nn.losses import voxel_blocks as blockwise
from autoseg.nn.losses.label_sets import LabelSetLoss, label_set_bce, label_set_cross_entropy, label_set_dice

FEW = settings(max_examples=15, deadline=None)
STYLES = ("dense", "sparse", "lazy", "absent", "empty")


class Example(NamedTuple):
    logits: Tensor
    """(B, K, *P) float32."""
    codes: Tensor
    """(B, *P): 0 to K - 1 classes, K unknown, then three sets of the sample, K + 4 the empty set."""
    label_sets: Tensor
    """(B, K + 5, K)."""
    voxel_weights: Tensor
    """(B, *P), a third of them 0."""
    regions: Tensor
    """(R, K)."""


@st.composite
def examples(draw, styles=STYLES, scales=(1.0, 8.0)):
    """Batches of 1 to 3 samples, each annotated in another style."""
    shape = draw(st.sampled_from([(6, 5), (2, 4, 3)]))
    n_classes = draw(st.integers(2, 6))
    chosen = draw(st.lists(st.sampled_from(styles), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tables = torch.zeros(len(chosen), n_classes + 5, n_classes, dtype=torch.bool)
    tables[:, :n_classes] = torch.eye(n_classes).bool()
    tables[:, n_classes] = True
    tables[:, n_classes + 1 : -1] = torch.rand(len(chosen), 3, n_classes, generator=generator) < 0.6
    classes = torch.randint(0, n_classes, (len(chosen), *shape), generator=generator)
    sets = torch.randint(n_classes, n_classes + 5, classes.shape, generator=generator)
    dice = torch.rand(classes.shape, generator=generator)
    codes = torch.stack(
        [
            {
                "dense": classes[i],
                "sparse": torch.where(dice[i] < 0.8, n_classes, classes[i]),
                "lazy": torch.where(dice[i] < 0.6, sets[i], classes[i]),
                "absent": sets[i],
                "empty": torch.full(shape, n_classes),
            }[style]
            for i, style in enumerate(chosen)
        ]
    )
    scale = draw(st.sampled_from(scales))
    regions = torch.rand(draw(st.integers(1, 4)), n_classes, generator=generator) < 0.5
    regions[:, 0], regions[:, -1] = False, True
    return Example(
        logits=scale * torch.randn(len(chosen), n_classes, *shape, generator=generator),
        codes=codes,
        label_sets=tables,
        voxel_weights=(3 * torch.rand(classes.shape, generator=generator) - 1).clamp_min(0),
        regions=regions,
    )


def heads_as_logits(example):
    """(B, R, *P): the first R logits, repeated where there are fewer classes."""
    index = torch.arange(len(example.regions)) % example.logits.shape[1]
    return example.logits[:, index]


def every_loss(example):
    """Yield (loss, logits) of each kind."""
    regions = example.regions
    yield label_set_cross_entropy, example.logits
    yield label_set_dice, example.logits
    yield LabelSetLoss(None, True), example.logits
    yield lambda *a: label_set_dice(*a, regions=regions, batch=True), heads_as_logits(example)
    yield lambda *a: label_set_bce(*a, regions), heads_as_logits(example)
    yield LabelSetLoss(regions, False), heads_as_logits(example)
    yield LabelSetLoss(None, True, weights=torch.linspace(0, 2, example.logits.shape[1])), example.logits
    yield LabelSetLoss(regions, True, weights=torch.linspace(0, 2, len(regions))), heads_as_logits(example)


def sets_of(example):
    """(B, *P, K) bool: what each voxel may be."""
    return torch.stack([table[sample] for sample, table in zip(example.codes, example.label_sets, strict=True)])


def gradient(loss, logits, *arguments):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, *arguments)
    (slope,) = torch.autograd.grad(value, leaf)
    return value.detach(), slope


def assert_same(actual, expected, *, rtol=1e-4, atol=2e-6):
    """Values and gradients agree, the latter relative to the largest, or to 1e-4 where all are saturated."""
    scale = max(1e-4, float(expected[1].abs().max()))
    torch.testing.assert_close(actual[0].double(), expected[0].double(), rtol=rtol, atol=atol)
    torch.testing.assert_close(actual[1].double() / scale, expected[1].double() / scale, rtol=rtol, atol=10 * rtol)


WAYS = ("at once", "in small blocks", "as on a device")


@contextmanager
def going(way):
    """Go one of the ways through a batch: all at once, block by block, or without asking what occurs."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "in small blocks":
            patch.setattr(blockwise, "BLOCK_ELEMENTS", 50)
        if way == "as on a device":
            for module in (blockwise, softmax_sums, sigmoid_sums):
                patch.setattr(module, "is_on_cpu", lambda tensor: False)
            patch.setattr(blockwise, "DEVICE_BLOCK_ELEMENTS", 70)
        yield
