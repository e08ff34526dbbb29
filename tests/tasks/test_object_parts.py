"""Inside and boundary of objects: what is not annotated stays open, and touching objects have a boundary."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from autoseg.cases.code_table import CodeTable
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.labels import Head, Labels
from autoseg.nn.losses import LabelSetLoss
from autoseg.sampling.batch import BatchTable
from autoseg.tasks.instances import Instances, ObjectParts
from autoseg.tasks.task import task_of
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.source import Evidence
from autoseg.training.objective import Objective

SHAPES = pytest.mark.parametrize("shape", [(9, 11), (5, 7, 6)], ids=["2d", "3d"])
UNKNOWN = 2


def labels(n_classes: int = 2) -> Labels:
    names = ("background", "cell", "nucleus")[:n_classes]
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(names))
    rule = InstanceNumbers(None if n_classes == 2 else 1000)
    return Labels(tuple(range(n_classes)), names, heads, unlabelled=65535, instances=rule)


def scattered(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return classes (2: unknown) and objects of a random annotation in small blocks, so that every case occurs."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(
        [0, 1, 2, 70000, -1], size=tuple(-(-edge // 3) for edge in shape), p=[0.2, 0.3, 0.2, 0.15, 0.15]
    )
    for axis in range(len(shape)):
        coarse = coarse.repeat(3, axis)
    values = coarse[tuple(slice(0, edge) for edge in shape)]
    return np.where(values < 0, UNKNOWN, (values > 0).astype(int)), np.maximum(values, 0)


def outputs_of(classes: np.ndarray, objects: np.ndarray) -> torch.Tensor:
    """Return the outputs (*P, 3) bool that the task allows each voxel."""
    sets = torch.tensor([[[True, False], [False, True], [True, True]]])
    codes, numbers = torch.from_numpy(classes)[None].to(torch.uint8), torch.from_numpy(objects)[None].int()
    parts = ObjectParts(2)
    rules = parts.rules(codes, sets, numbers)
    allowed = torch.einsum("nk,mko->mno", sets[0].float(), torch.from_numpy(parts.sets).float()) > 0
    return allowed[rules[0], codes[0].long()]


def by_definition(classes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the outputs (*P, 3) bool as docs/instances.md says, voxel by voxel."""
    allowed = np.zeros((*classes.shape, 3), dtype=bool)
    for voxel in np.ndindex(classes.shape):
        if classes[voxel] == UNKNOWN:
            allowed[voxel] = True
        elif classes[voxel] == 0:
            allowed[voxel][0] = True
        else:
            neighbours = []
            for offset in product((-1, 0, 1), repeat=classes.ndim):
                place = tuple(np.add(voxel, offset))
                is_inside = all(0 <= at < edge for at, edge in zip(place, classes.shape, strict=True))
                neighbours.append(objects[place] if is_inside and classes[place] != UNKNOWN else None)
            is_boundary = any(number is not None and number != objects[voxel] for number in neighbours)
            allowed[voxel][1] = not is_boundary
            allowed[voxel][2] = is_boundary or None in neighbours
    return allowed


@SHAPES
@pytest.mark.parametrize("seed", range(4))
def test_partial_objects_are_label_sets_as_defined(shape, seed):
    classes, objects = scattered(shape, seed)
    np.testing.assert_array_equal(outputs_of(classes, objects).numpy(), by_definition(classes, objects))


@SHAPES
def test_nothing_depends_on_numbers_that_are_written_where_nothing_is_annotated(shape):
    classes, objects = scattered(shape, 9)
    scrambled = np.where(classes == UNKNOWN, np.random.default_rng(0).integers(0, 5, shape), objects)
    assert torch.equal(outputs_of(classes, scrambled), outputs_of(classes, objects))


@SHAPES
@pytest.mark.parametrize("seed", range(4))
def test_no_edge_is_invented_where_annotation_ends(shape, seed):
    classes, objects = scattered(shape, seed)
    hidden = np.random.default_rng(seed).random(shape) < 0.3
    hidden[: shape[0] // 2, 2:5] = True  # scattered voxels, and a slab that cuts objects
    partial = outputs_of(np.where(hidden, UNKNOWN, classes), objects)
    complete = outputs_of(classes, objects)
    assert (partial | ~complete).all(), "what the complete annotation allows, the partial one allows"
    assert not (partial == complete).all()


def test_objects_that_touch_at_one_voxel_have_a_boundary_there():
    objects = np.zeros((12, 12), dtype=int)
    objects[1:6, 1:6], objects[6:11, 6:11] = 1, 2  # they share a corner
    allowed = outputs_of((objects > 0).astype(int), objects)
    assert allowed[5, 5].tolist() == allowed[6, 6].tolist() == [False, False, True]
    assert allowed[3, 3].tolist() == allowed[8, 8].tolist() == [False, True, False]


def test_the_edge_of_the_patch_and_of_the_image_is_no_boundary():
    classes, objects = np.ones((6, 6), dtype=int), np.ones((6, 6), dtype=int)
    classes[:, 4:], objects[:, 4:] = 0, -1  # what a warp moves in from beyond the image, in a dense data set
    allowed = outputs_of(classes, objects)
    assert allowed[2, 1].tolist() == [False, True, False]
    assert allowed[2, 0].tolist() == allowed[2, 3].tolist() == [False, True, True]
    assert allowed[2, 5].tolist() == [True, False, False]


def test_foreground_that_lost_its_number_in_a_warp_is_boundary_beside_background_and_between_objects():
    objects = np.array([[1, 1, 1, 0, 2, 2, 2], [1, 1, 1, 0, 2, 2, 2], [1, 1, 1, 0, 2, 2, 2]])
    assert outputs_of(np.ones_like(objects), objects)[1, 3].tolist() == [False, False, True]
    objects = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]])
    assert outputs_of(np.ones_like(objects), objects)[1, 2].tolist() == [False, True, True]


@SHAPES
def test_scores_and_probabilities_of_classes_join_inside_and_boundary(shape):
    task = Instances(labels(3))
    logits = 3 * torch.randn(2, 4, *shape, generator=torch.Generator().manual_seed(1))
    parts, classes = logits.softmax(1), task.probabilities(logits)
    torch.testing.assert_close(classes.sum(1), torch.ones(2, *shape))
    torch.testing.assert_close(classes[:, 0], parts[:, 0])
    inside = parts[:, 1:3]
    torch.testing.assert_close(classes[:, 1:], inside + parts[:, 3:] * inside / inside.sum(1, keepdim=True))
    torch.testing.assert_close(task.cores(logits), parts[:, :3])
    decoded = task.decode(logits[0].numpy())
    np.testing.assert_array_equal(decoded, classes[0].argmax(0).numpy())


def test_the_task_follows_from_labels_that_hold_numbers_of_objects():
    task = task_of(labels())
    assert isinstance(task, Instances) and task.outputs == ("background", "cell", "boundary")
    far = np.array([[1e4, -1e4], [-1e4, 1e4], [-1e4, 1e4]], dtype=np.float32)
    assert task.decode(far).tolist() == [0, 1]


@SHAPES
def test_the_loss_has_no_gradient_where_nothing_is_annotated_and_open_voxels_may_be_either(shape):
    classes, objects = scattered(shape, 3)
    sets = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    table = BatchTable.stack([CodeTable.of_sets(sets, sets, UNKNOWN)])
    codes, numbers = torch.from_numpy(classes)[None].to(torch.uint8), torch.from_numpy(objects)[None].int()
    evidence = Evidence(codes, table, objects=numbers)
    logits = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(2)).requires_grad_()
    target = Objective(Instances(labels()), torch.device("cpu")).target(evidence)
    EvidenceLoss(LabelSetLoss(None, False), None, UNKNOWN)([logits], target).backward()
    assert logits.grad is not None
    gradient = logits.grad[0].movedim(0, -1)
    assert not gradient[torch.from_numpy(classes == UNKNOWN)].any()
    assert gradient[torch.from_numpy(classes != UNKNOWN)].any(-1).all()
