"""Weights of annotated voxels multiply their terms of the loss, and training runs with them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from evidence_examples import SETS, TOTALS, UNKNOWN, K, batch, silent
from toy import write_toy_dataset

from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.nn.losses.label_sets import LabelSetLoss
from autoseg.training.batches import training_batches
from autoseg.training.evidence.drawn import drawn_evidence
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.promises import Promises
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions

SHAPES = pytest.mark.parametrize("shape", [(2, 6, 5), (2, 4, 6, 5)], ids=["2d", "3d"])
OF_CODE = torch.tensor([1.0, 0.5, 0.25, 1.0, 1.0, 0.75])


def weighted_batch(codes, **options):
    one = batch(codes, **options)
    return replace(one, table=one.table._replace(weight=OF_CODE.expand(len(codes), -1)))


def plain_loss(logits, codes):
    """Dice + cross entropy of label sets with a weight per voxel, voxel by voxel in float64, from their definition."""
    sets = SETS[codes].movedim(-1, 1).double()  # (B, K, *P)
    weight = OF_CODE.double()[codes]
    probabilities = logits.double().softmax(1)
    size = SETS.sum(1)[codes]
    counts = weight * ((size > 0) & (size < K))
    likelihood = -(probabilities * sets).sum(1).clamp_min(1e-300).log()
    entropy = (counts * likelihood).sum() / counts.sum()
    dices = []
    for sample in range(len(codes)):
        for head in range(1, K):
            single = sets[sample, head] * (size[sample] == 1)
            decided = (single + (sets[sample, head] == 0)) * weight[sample]
            overlap = (decided * probabilities[sample, head] * single).sum()
            total = (decided * (probabilities[sample, head] + single)).sum()
            dices.append((2 * overlap + 1e-5) / (total + 1e-5))
    return entropy + 1 - torch.stack(dices).mean()


@SHAPES
def test_loss_and_gradient_are_those_of_a_plain_formula(shape):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, shape, generator=generator)
    logits = torch.randn(shape[0], K, *shape[1:], generator=generator, requires_grad=True)
    loss = EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)([logits], drawn_evidence(weighted_batch(codes)))
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = plain_loss(logits, codes)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(loss, expected.float())
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-7)
    assert not gradient.movedim(1, -1)[codes == UNKNOWN].any()


@SHAPES
def test_weights_of_1_change_no_bit(shape):
    codes = torch.randint(0, 6, shape, generator=torch.Generator().manual_seed(1))
    logits = torch.randn(shape[0], K, *shape[1:], generator=torch.Generator().manual_seed(2))
    loss = EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)
    one = batch(codes)
    ones = replace(one, table=one.table._replace(weight=torch.ones(shape[0], 6)))
    assert torch.equal(loss([logits], drawn_evidence(one)), loss([logits], drawn_evidence(ones)))


def test_promises_leave_the_weights_of_annotation_and_the_unannotated_their_own():
    one = weighted_batch(torch.zeros(1, 2, 2, dtype=torch.long), promised=True)
    promises = Promises(2.5, TOTALS)
    weights = promises.adjust(drawn_evidence(one), one, silent()).weights[0]
    plain = batch(torch.zeros(1, 2, 2, dtype=torch.long), promised=True)
    without = promises.adjust(drawn_evidence(plain), plain, silent()).weights[0]
    torch.testing.assert_close(weights, without * torch.where(without == 1, OF_CODE, 1.0))


@pytest.mark.parametrize("shape", [(1, 40, 36), (12, 20, 18)], ids=["2d", "3d"])
def test_training_runs_with_weights(shape, toy_preparation, tmp_path):
    torch.set_num_threads(1)
    folder = write_toy_dataset(tmp_path / "raw" / "Dataset001_Soft", n_cases=2, shape=shape)
    for path in (folder / "labelsTr").iterdir():
        labels, geometry = read_labels(path)
        is_doubtful = np.random.default_rng(0).random(labels.shape) < 0.3
        write_labels(path, np.where((labels == 1) & is_doubtful, 4, labels).astype(np.uint8), geometry)
    content = json.loads((folder / "dataset.json").read_text())
    content["label_weights"] = {"4": {"label": "bright", "weight": 0.4}}
    (folder / "dataset.json").write_text(json.dumps(content))
    workspace = Workspace(tmp_path)
    toy_preparation(Dataset.load(folder), workspace)
    options = RunOptions(
        "all", iterations=4, settings=("iterations_per_epoch=2", "validation_iterations=1"), workers=0, device="cpu"
    )
    request = prepare_fold(workspace, Dataset.load(folder), options)
    batches = list(islice(training_batches(request, torch.device("cpu"), 0), 4))
    tables = [one.table.weight for one in batches if one.table.weight is not None]
    assert len(tables) == 4 and min(float(weight.min()) for weight in tables) == pytest.approx(0.4)
    light = [one.table.weight.lt(1).gather(1, one.codes.flatten(1).long()).any() for one in batches]
    assert any(light)
    train_fold(request)
    assert (request.folder / "checkpoint_final.pt").is_file()
