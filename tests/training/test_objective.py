"""The target of a task: it says of classes what the annotation says, and nothing of voxels that nobody annotated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from split_task import ODD, Split, split_logits

from autoseg.cases.code_table import CodeTable
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Head, Labels
from autoseg.nn.losses import LabelSetLoss, label_set_cross_entropy
from autoseg.sampling.batch import BatchTable
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.source import Evidence
from autoseg.training.objective import Objective

CPU = torch.device("cpu")
K, UNKNOWN = 3, 3
SETS = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)
"""The classes, unknown, a lazy set, and a second code of which nothing is known."""
SHAPES = pytest.mark.parametrize("shape", [(2, 7, 5), (2, 4, 6, 5)], ids=["2d", "3d"])


def labels(*, regions: bool = False) -> Labels:
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(("background", "a", "b")))
    if regions:
        heads = (Head("ab", (1, 2), (1, 2)), Head("b", (2,), (2,)))
    return Labels((0, 1, 2), ("background", "a", "b"), heads, paint_values=(1, 2) if regions else None, ignore=3)


def evidence(shape: tuple[int, ...], *, weighed: bool = True) -> Evidence:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, len(SETS), shape, generator=generator, dtype=torch.uint8)
    sets = SETS.numpy()
    table = BatchTable.stack([CodeTable.of_sets(sets, sets, UNKNOWN)] * shape[0])
    weights = torch.rand(shape[0], len(SETS), generator=generator) if weighed else None
    return Evidence(codes, table, weights)


def of_voxel(table: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Return the row (B, *P, ...) of each voxel's code."""
    return torch.stack([rows[index.long()] for rows, index in zip(table, codes, strict=True)])


def random_logits(shape: tuple[int, ...], n_outputs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape[0], n_outputs, *shape[1:], generator=generator).requires_grad_()


@pytest.mark.parametrize("task", [Semantic(labels()), Regions(labels(regions=True))])
def test_built_in_tasks_learn_the_annotation_as_it_is(task):
    batch = evidence((2, 7, 5))
    objective = Objective(task, CPU)
    assert objective.target(batch) is batch
    assert objective.output_sets(batch.table.drawn) is batch.table.drawn
    assert (objective.regions is None) == task.is_exclusive


@SHAPES
def test_a_refined_target_says_of_classes_what_the_annotation_says(shape):
    batch = evidence(shape)
    target = Objective(Split(labels()), CPU).target(batch)
    outputs = of_voxel(target.table.drawn, target.codes)  # (B, *P, K + 1)
    classes = torch.cat([outputs[..., : K - 1], outputs[..., K - 1 :].any(-1, keepdim=True)], -1)
    assert torch.equal(classes, of_voxel(batch.table.drawn, batch.codes))
    assert torch.equal(of_voxel(target.weights, target.codes), of_voxel(batch.weights, batch.codes))


@SHAPES
def test_the_rule_of_a_voxel_chooses_among_the_outputs_of_its_class(shape):
    batch = evidence(shape)
    target = Objective(Split(labels()), CPU).target(batch)
    outputs = of_voxel(target.table.drawn, target.codes)
    is_last = batch.codes == K - 1
    assert outputs[:, 1::2][is_last[:, 1::2]].tolist() == [[False, False, False, True]] * int(is_last[:, 1::2].sum())
    assert outputs[:, ::2][is_last[:, ::2]].tolist() == [[False, False, True, False]] * int(is_last[:, ::2].sum())


@SHAPES
def test_unannotated_voxels_of_a_refined_target_have_no_gradient(shape):
    batch = evidence(shape)
    logits = random_logits(shape, K + 1)
    objective = Objective(Split(labels()), CPU)
    EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)([logits], objective.target(batch)).backward()
    is_unknown = SETS.all(1)[batch.codes.long()]
    assert logits.grad is not None
    assert not logits.grad.movedim(1, -1)[is_unknown].any()
    assert logits.grad.movedim(1, -1)[~is_unknown].any(-1).all()


@SHAPES
def test_a_refined_loss_does_not_see_which_code_says_that_nothing_is_known(shape):
    batch = evidence(shape, weighed=False)
    other = batch._replace(codes=torch.where(batch.codes == UNKNOWN, 5, batch.codes))
    logits = random_logits(shape, K + 1)
    loss, objective = EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN), Objective(Split(labels()), CPU)
    assert loss([logits], objective.target(batch)) == loss([logits], objective.target(other))


@SHAPES
def test_where_only_classes_are_known_the_refined_loss_is_that_of_the_classes(shape):
    class Open(Split):
        """A task that never knows more than the class."""

        def __init__(self, labels: Labels) -> None:
            super().__init__(labels)
            self.refinement.rules = lambda codes, label_sets, objects: torch.zeros_like(codes, dtype=torch.long)

    batch, task = evidence(shape, weighed=False), Open(labels())
    target, logits = Objective(task, CPU).target(batch), random_logits(shape, K + 1)
    refined = label_set_cross_entropy(logits, target.codes, target.table.drawn)
    torch.testing.assert_close(refined, label_set_cross_entropy(task.scores(logits), batch.codes, batch.table.drawn))


def test_what_lies_beyond_the_patch_is_unknown_at_every_resolution_of_a_refined_target():
    shape = (1, 7, 5)
    batch = evidence(shape, weighed=False)._replace(codes=torch.full(shape, UNKNOWN, dtype=torch.uint8))
    logits = [random_logits(shape, K + 1), random_logits((1, 4, 3), K + 1), random_logits((1, 2, 2), K + 1)]
    loss = EvidenceLoss(LabelSetLoss(None, False), [(1, 1), (2, 2), (4, 4)], UNKNOWN)
    value = loss(logits, Objective(Split(labels()), CPU).target(batch))
    value.backward()
    assert value == 0 and not any(output.grad.any() for output in logits)


@SHAPES
def test_scores_during_training_are_counted_per_class_however_many_outputs_there_are(shape):
    batch = evidence(shape)
    logits = random_logits(shape, K).detach()
    wide = torch.from_numpy(np.stack([split_logits(item.numpy()) for item in logits]))
    counts = Objective(Semantic(labels()), CPU).count(logits, batch)
    assert torch.equal(Objective(Split(labels()), CPU).count(wide, batch), counts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sets: sets[..., :-1], r"shape \(3, 3, 3\), expected \(M, 3, 4\)"),
        (lambda sets: sets[0], r"shape \(3, 4\)"),
        (lambda sets: sets[[ODD, 0]], "rule 0 to allow whatever any rule does"),
        (lambda sets: sets[[1]], "every output to be that of some class"),
        (lambda sets: sets * (np.arange(len(sets)) != ODD)[:, None, None], "no output that rule 2 allows for class"),
    ],
)
def test_a_refinement_that_contradicts_itself_is_refused(change, message):
    task = Split(labels())
    task.refinement.sets = change(task.refinement.sets)
    with pytest.raises(ConfigError, match=message):
        Objective(task, CPU)
