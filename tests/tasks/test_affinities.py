"""Affinities: pairs are known where both voxels are, and a mirrored copy says the same as the plain one."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from exact_affinities import Exact
from objects import draw_objects
from test_object_parts import UNKNOWN, labels, scattered
from tiny_models import make_checkpoint
from torch import nn

from autoseg import Dataset
from autoseg.cases.code_table import CodeTable
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Topology
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.labels import Labels
from autoseg.evaluation.instances import match_instances
from autoseg.inference import Predictor
from autoseg.inference.window import join_slabs, predict_logits, stream_logits
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.nn.losses import LabelSetLoss
from autoseg.nn.losses.code_tables import head_states
from autoseg.sampling.batch import BatchTable
from autoseg.tasks.affinities import Affinities, output_offsets
from autoseg.tasks.separation import SeparationSettings, as_units, separate
from autoseg.tasks.task import task_of
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.source import Evidence
from autoseg.training.objective import Objective
from autoseg.training.run_loss import run_loss

SHAPES = pytest.mark.parametrize("shape", [(9, 11), (5, 7, 6)], ids=["2d", "3d"])
FLAT = ((0, -1, 0), (0, 0, -1), (0, 0, 3), (0, -2, 0))
DEEP = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (2, 0, 0), (0, -2, 0))


def task(shape: tuple[int, ...], n_classes: int = 2) -> Affinities:
    rule = InstanceNumbers(None if n_classes == 2 else 1000, FLAT if len(shape) == 2 else DEEP)
    built = task_of(replace(labels(n_classes), instances=rule))
    assert isinstance(built, Affinities)
    return built


def evidence_of(classes: np.ndarray, objects: np.ndarray) -> Evidence:
    sets = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)
    table = BatchTable.stack([CodeTable.of_sets(sets, sets, UNKNOWN)])
    codes, numbers = torch.from_numpy(classes)[None].to(torch.uint8), torch.from_numpy(objects)[None].int()
    return Evidence(codes, table, objects=numbers)


def states_of(classes: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (O, *P) bool twice: where each output is trained to be positive, and where to be negative."""
    objective = Objective(task(classes.shape), torch.device("cpu"))
    target = objective.target(evidence_of(classes, objects))
    assert objective.regions is not None
    positive, negative = head_states(target.table.learnt, objective.regions)
    codes = target.codes[0].long()
    return positive[0][codes].movedim(-1, 0).numpy(), negative[0][codes].movedim(-1, 0).numpy()


def by_definition(classes: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what :func:`states_of` returns, voxel by voxel as docs/instances.md says."""
    offsets = task(classes.shape).offsets
    positive = np.zeros((1 + len(offsets), *classes.shape), dtype=bool)
    negative = np.zeros_like(positive)
    positive[0], negative[0] = classes == 1, classes == 0
    for index, offset in enumerate(offsets, start=1):
        for voxel in np.ndindex(classes.shape):
            other = tuple(np.add(voxel, offset[3 - classes.ndim :]))
            is_inside = all(0 <= at < edge for at, edge in zip(other, classes.shape, strict=True))
            if not is_inside or UNKNOWN in (classes[voxel], classes[other]):
                continue
            is_same = classes[voxel] == classes[other] == 1 and objects[voxel] == objects[other]
            (positive if is_same else negative)[(index, *voxel)] = True
    return positive, negative


@SHAPES
@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_known_as_defined(shape, seed):
    classes, objects = scattered(shape, seed)
    for found, expected in zip(states_of(classes, objects), by_definition(classes, objects), strict=True):
        np.testing.assert_array_equal(found, expected)
        assert expected.any() and not expected.all()


@SHAPES
def test_a_partial_annotation_says_nothing_that_the_complete_one_does_not(shape):
    classes, objects = scattered(shape, 1)
    hidden = np.random.default_rng(0).random(shape) < 0.3
    scrambled = np.where(hidden, np.random.default_rng(1).integers(0, 5, shape), objects)
    partial = states_of(np.where(hidden, UNKNOWN, classes), scrambled)
    for found, expected in zip(partial, states_of(classes, objects), strict=True):
        assert (found <= expected).all() and found.any()


@SHAPES
def test_the_loss_is_cross_entropy_and_dice_over_known_pairs(shape):
    classes, objects = scattered(shape, 2)
    own = task(shape)
    logits = torch.randn(1, len(own.outputs), *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    objective = Objective(own, torch.device("cpu"))
    target = objective.target(evidence_of(classes, objects))
    loss = EvidenceLoss(LabelSetLoss(objective.regions, True), None, UNKNOWN)([logits], target)
    positive, negative = map(torch.from_numpy, by_definition(classes, objects))
    known = positive | negative
    entropy = nn.functional.binary_cross_entropy_with_logits(logits[0][known], positive[known].float())
    axes = tuple(range(1, known.ndim))
    probabilities = logits[0].sigmoid() * known
    dice = 2 * (probabilities * positive).sum(axes) / (probabilities.sum(axes) + positive.sum(axes))
    torch.testing.assert_close(loss, entropy + 1 - dice.mean())
    loss.backward()
    assert logits.grad is not None and not logits.grad[0][~known].any() and logits.grad[0][known].all()


def configuration(patch: tuple[int, ...]) -> Configuration:
    topology = Topology(
        kind="plain", features=(4,), strides=((1,) * len(patch),), kernels=((3,) * len(patch),), encoder_blocks=(1,),
        decoder_blocks=(),
    )  # fmt: skip
    return Configuration(
        name="2d" if len(patch) == 2 else "3d_fullres", spacing=(1.0,) * len(patch), patch_size=patch, batch_size=2,
        median_shape=tuple(map(float, patch)), normalization=("zscore",), use_mask_for_norm=(False,), topology=topology,
        batch_dice=False,
    )  # fmt: skip


@SHAPES
def test_the_mean_over_mirrored_copies_of_exact_affinities_is_exact(shape):
    _, objects = scattered(shape, 4)
    own = task(shape)
    image = objects.reshape(1, *(1,) * (3 - len(shape)), *shape).astype(np.float32)
    network, settings, axes = Exact(own.offsets), configuration(shape), tuple(range(len(shape)))
    plain = predict_logits(network, image, settings)
    slabs = stream_logits(network, image, settings, mirror_axes=axes, offsets=output_offsets(own.labels))
    mirrored = join_slabs(slabs, image.shape[1])
    has_pair = plain != 0
    np.testing.assert_allclose(mirrored[has_pair], plain[has_pair], atol=1e-4)
    wrong = predict_logits(network, image, settings, mirror_axes=axes)
    assert all((abs(wrong - plain)[index][has_pair[index]] > 1).any() for index in range(1, len(plain)))


@SHAPES
def test_classes_follow_from_their_own_outputs(shape):
    own = task(shape, 3)
    logits = 3 * torch.randn(2, len(own.outputs), *shape, generator=torch.Generator().manual_seed(1))
    odds = torch.cat([torch.ones(2, 1, *shape), logits[:, :2].exp()], 1)
    probabilities = own.probabilities(logits)
    torch.testing.assert_close(probabilities, odds / odds.sum(1, keepdim=True))
    np.testing.assert_array_equal(own.decode(logits[0].numpy()), probabilities[0].argmax(0).numpy())
    assert own.outputs[:3] == ("cell", "nucleus", "affinity " + " ".join(map(str, own.offsets[0])))


@pytest.mark.parametrize("shape", [(1, 60, 60), (16, 40, 40)], ids=["2d", "3d"])
def test_exact_affinities_are_parted_into_the_objects(shape):
    objects = draw_objects(shape, 6.0 if shape[0] == 1 else 5.0, 0)
    flat = objects[0] if shape[0] == 1 else objects
    own = task(flat.shape)
    image = torch.from_numpy(flat.astype(np.float32))[None, None]
    cores = own.cores(Exact(own.offsets)(image))[0, 1].numpy()
    differs = np.zeros(flat.shape, dtype=bool)
    for axis in range(flat.ndim):
        ahead = np.take(flat, range(1, flat.shape[axis]), axis) != np.take(flat, range(flat.shape[axis] - 1), axis)
        after = np.moveaxis(differs, axis, 0)  # views: both ends of a pair within a slice, the later one across slices
        after[1:] |= np.moveaxis(ahead, axis, 0)
        if axis >= flat.ndim - 2:
            after[:-1] |= np.moveaxis(ahead, axis, 0)
    np.testing.assert_array_equal((cores > 0.4)[flat > 0], ~differs[flat > 0])
    parted = separate(flat > 0, as_units(cores), (1.0,) * flat.ndim, SeparationSettings(min_size=0))
    assert match_instances(parted, flat).average_precision() == 1


@pytest.mark.parametrize("mirror", [True, False], ids=["mirrored", "plain"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_predictor_finds_the_objects_of_exact_affinities_in_many_windows(n_dims, mirror, tmp_path):
    spacing = (999.0, 1.0, 1.0) if n_dims == 2 else (1.0, 1.0, 1.0)
    checkpoint = make_checkpoint(n_dims=n_dims, spacing=spacing)
    save_checkpoint(tmp_path / "fold_0" / "checkpoint_final.pt", checkpoint)
    loaded = Predictor.load(tmp_path, device="cpu", mirror=mirror)
    content = {
        **checkpoint.dataset, "task": "instances", "labels": {"background": 0, "cell": 1}, "unlabelled": 65535,
        "affinities": [list(offset) for offset in (FLAT if n_dims == 2 else DEEP)],
    }  # fmt: skip
    dataset = Dataset.from_json(content, name="d", folder=None)
    own = task_of(dataset.labels)
    assert isinstance(own, Affinities)
    model = replace(loaded.model, dataset=dataset, networks=(Exact(own.offsets),))
    predictor = replace(loaded, model=model, autocast_dtype=None)
    objects = draw_objects((1, 40, 44) if n_dims == 2 else (14, 24, 24), 5.0, 1)
    image, n_nearest = objects[None].astype(np.float32), n_dims
    seen = torch.from_numpy(image[:, 0] if n_dims == 2 else image)[None]
    exact = Exact(own.offsets)(seen)[0, 1 : 1 + n_nearest].reshape(n_nearest, *objects.shape).numpy()
    logits = predictor.logits(image)[1 : 1 + n_nearest]
    np.testing.assert_array_equal(np.sign(logits)[exact != 0], np.sign(exact)[exact != 0])
    found = predictor.predict_array(image, Geometry(spacing=spacing, ndim=n_dims))
    assert match_instances(found, objects).average_precision() == 1
    np.testing.assert_array_equal(found > 0, objects > 0)
    assert not mirror or predictor.is_mirrored


def test_patches_of_one_slice_do_not_learn_affinities_to_other_slices():
    of_slices = replace(labels(), instances=InstanceNumbers(None, DEEP))
    objective = Objective(task_of(of_slices), torch.device("cpu"))
    request = SimpleNamespace(config=SimpleNamespace(), configuration=configuration((9, 11)))
    with pytest.raises(ConfigError, match=r"configuration 2d: found affinities \[-1, 0, 0\].*-c 3d_fullres"):
        run_loss(request, objective, None, None, torch.device("cpu"))


def test_offsets_as_long_as_the_patch_are_refused_since_no_patch_holds_such_a_pair():
    objective = Objective(task((5, 7, 6)), torch.device("cpu"))
    request = SimpleNamespace(config=SimpleNamespace(), configuration=configuration((2, 7, 6)))
    with pytest.raises(ConfigError, match=r"found affinities \[2, 0, 0\].*shorter than the patch of 2 x 7 x 6"):
        run_loss(request, objective, None, None, torch.device("cpu"))


def test_affinities_are_a_choice_in_the_labels():
    assert output_offsets(labels()) == () and isinstance(task((3, 3)).labels, Labels)
    assert output_offsets(task((3, 3)).labels) == ((0, 0, 0), *FLAT)
