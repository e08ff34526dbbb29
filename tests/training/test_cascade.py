"""The second stage of a cascade learns from out-of-fold predictions of the first, and predicts with it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import write_toy_dataset

from autoseg.cases.cache import open_case, read_entry
from autoseg.cases.case import Case
from autoseg.cases.layers import Layer, classes_layer
from autoseg.core.boxes import Box
from autoseg.core.errors import CacheError, ModelError
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.planning.files import PLAN_FILE, load_plan, save_plan
from autoseg.planning.plan_edits import choose_configurations
from autoseg.planning.preprocess_dataset import preprocess_by_plan
from autoseg.training.batches import training_batches
from autoseg.training.cascade import previous_maps_in
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_checkpoints import FINAL
from autoseg.training.run_config import RunOptions
from autoseg.training.validation import validate_fold

LOW, HIGH = "3d_lowres", "3d_cascade_fullres"
N_CASES = 4
SETTINGS = ("precision=float32", "iterations_per_epoch=6", "validation_iterations=1")

pytestmark = pytest.mark.slow


def train(workspace: Workspace, dataset: Dataset, fold: str, configuration: str, iterations: int = 6):
    torch.set_num_threads(1)
    options = RunOptions(fold, configuration, iterations=iterations, settings=SETTINGS, workers=0, device="cpu")
    request = prepare_fold(workspace, dataset, options)
    train_fold(request)
    validate_fold(request, workers=0)
    return request


def write_caches(workspace: Workspace, dataset: Dataset, *configurations: str) -> None:
    preprocess_by_plan(dataset, workspace, [*configurations], 1, previous=previous_maps_in(workspace, dataset))


@pytest.fixture(scope="module")
def cascade(tmp_path_factory, toy_preparation):
    """A data set of two folds whose low resolution is trained and whose cascade is preprocessed; do not change it."""
    root = tmp_path_factory.mktemp("cascade")
    folder = write_toy_dataset(root / "raw" / "Dataset901_Cascade", n_cases=N_CASES, sparse=False)
    workspace, dataset = Workspace(root), Dataset.load(folder)
    names = dataset.case_names
    preprocessed = workspace.preprocessed(dataset.name)
    preprocessed.mkdir(parents=True)
    halves = (names[::2], names[1::2])
    splits = [{"train": [*a], "val": [*b]} for a, b in (halves, halves[::-1])]
    (preprocessed / "splits.json").write_text(json.dumps(splits))
    toy_preparation(dataset, workspace)
    plan = load_plan(preprocessed / PLAN_FILE)
    full = plan.configuration("3d_fullres")
    low = full.model_copy(update={"name": LOW, "spacing": tuple(1.5 * edge for edge in full.spacing)})
    high = full.model_copy(update={"name": HIGH, "previous_stage": LOW})
    save_plan(plan.model_copy(update={"configurations": {LOW: low, "3d_fullres": full, HIGH: high}}),
              preprocessed / PLAN_FILE)  # fmt: skip
    write_caches(workspace, dataset, LOW)
    with pytest.raises(ModelError, match=rf"{N_CASES} cases.*Cascade 0 -c {LOW}.* 1 -c"):
        write_caches(workspace, dataset, HIGH)
    train(workspace, dataset, "0", LOW, 40)
    with pytest.raises(ModelError, match=rf"2 cases.*Cascade 1 -c {LOW}"):
        write_caches(workspace, dataset, HIGH)
    train(workspace, dataset, "1", LOW, 40)
    write_caches(workspace, dataset, HIGH)
    train(workspace, dataset, "0", HIGH)
    return workspace, dataset


def case_of(dataset: Dataset, name: str) -> Case:
    return Case(name, *read_image(dataset.case(name).images))


def predictor_of(workspace: Workspace, dataset: Dataset, fold: str = "0") -> Predictor:
    return Predictor.load(workspace.model(dataset.name, HIGH), [fold], device="cpu")


def test_every_case_is_cached_with_a_prediction_of_a_fold_that_did_not_see_it(cascade):
    workspace, dataset = cascade
    cache, results = workspace.preprocessed(dataset.name) / HIGH, workspace.model(dataset.name, LOW)
    plan = load_plan(workspace.preprocessed(dataset.name) / PLAN_FILE)
    for index, name in enumerate(dataset.case_names):
        fold = results / f"fold_{1 - index % 2}"
        assert name in json.loads((fold / "training.json").read_text())["val_cases"]
        predicted, _ = read_labels(fold / "validation" / f"{name}.nii.gz")
        case = open_case(cache, name)
        order = plan.voxel_order(case_of(dataset, name).geometry)
        assert case.entry.layers == (classes_layer("previous", 3),)
        assert case.entry.record.shape == case.entry.record.shape_after_crop  # full resolution: nothing is resampled
        low, high = case.entry.record.crop_low, case.entry.record.crop_high
        box = tuple(slice(*ends) for ends in zip(low, high, strict=True))
        whole = Box.whole(case.entry.record.shape)
        assert np.array_equal(case.read("previous", whole), order.apply(predicted)[box])
        assert np.array_equal(case.image, open_case(cache.parent / "3d_fullres", name).image)


def test_the_network_has_a_channel_for_each_class_and_learns_with_it(cascade):
    workspace, dataset = cascade
    request = prepare_fold(workspace, dataset, RunOptions("0", HIGH, iterations=2, workers=0, device="cpu"))
    batch = next(training_batches(request, torch.device("cpu"), 0))
    assert batch.network_input.shape[1] == 3 and batch.network_input[:, 1:].any()
    weights = load_checkpoint(workspace.model(dataset.name, HIGH) / "fold_0" / FINAL).weights
    assert next(iter(weights.values())).shape[1] == 3


def test_prediction_asks_the_previous_stage_and_gives_the_network_what_training_gave_it(cascade):
    workspace, dataset = cascade
    predictor = predictor_of(workspace, dataset)
    assert predictor.previous is not None and predictor.previous.model.folds == ("0",)
    for name in dataset.case_names[1::2]:  # validation of fold 0 in both stages
        cached = open_case(workspace.preprocessed(dataset.name) / HIGH, name)
        prepared = predictor.prepare(case_of(dataset, name))
        classes = cached.read("previous", Box.whole(cached.entry.record.shape))
        assert np.array_equal(prepared.image[1:], np.stack([classes == 1, classes == 2]).astype(np.float32))
        np.testing.assert_allclose(prepared.image[0], cached.image[0], atol=1e-5)


def test_a_seed_of_the_second_stage_takes_the_fold_of_the_first(cascade):
    workspace, dataset = cascade
    assert predictor_of(workspace, dataset, "0_seed0").previous.model.folds == ("0",)
    request = prepare_fold(workspace, dataset, RunOptions("0_seed1", HIGH, iterations=2, workers=0, device="cpu"))
    assert (request.folder.name, request.config.seed) == ("fold_0_seed1", 1)
    with pytest.raises(ModelError, match=f"fold all.*autoseg_train .*Cascade all -c {LOW}"):
        prepare_fold(workspace, dataset, RunOptions("all_seed1", HIGH, iterations=2, workers=0, device="cpu"))


def test_given_maps_take_the_place_of_the_previous_stage(cascade):
    workspace, dataset = cascade
    predictor = replace(predictor_of(workspace, dataset), previous=None)
    case = case_of(dataset, dataset.case_names[0])
    with pytest.raises(ModelError, match=f"no layer 'previous'.*{LOW}"):
        predictor.prepare(case)
    given = Layer(classes_layer("previous", 3), np.full(case.image.shape[1:], 2, np.uint8))
    prepared = predictor.prepare(replace(case, layers=(given,)))
    assert (prepared.image[2] == 1).all() and (prepared.image[1] == 0).all()
    assert predictor.predict_case(replace(case, layers=(given,))).shape == case.image.shape[1:]


def test_files_are_predicted_like_arrays(cascade, tmp_path):
    workspace, dataset = cascade
    predictor = predictor_of(workspace, dataset)
    report = predictor.predict_files(dataset.folder / "imagesTr", tmp_path / "out", workers=1)
    assert len(report.done) == N_CASES and not report.failed
    name = dataset.case_names[0]
    written, _ = read_labels(tmp_path / "out" / f"{name}.nii.gz")
    case = case_of(dataset, name)
    assert np.array_equal(written, predictor.predict_array(case.image, case.geometry))


def test_a_changed_prediction_makes_its_case_stale(cascade):
    workspace, dataset = cascade
    path = next((workspace.model(dataset.name, LOW) / "fold_0" / "validation").glob("*.nii.gz"))
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    with pytest.raises(CacheError, match=r"1 stale case.*previous stage changed"):
        prepare_fold(workspace, dataset, RunOptions("0", HIGH, iterations=2, workers=0, device="cpu"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    prepare_fold(workspace, dataset, RunOptions("0", HIGH, iterations=2, workers=0, device="cpu"))


def test_the_fold_of_all_cases_needs_that_of_the_previous_stage(cascade):
    workspace, dataset = cascade
    with pytest.raises(ModelError, match=f"fold all.*autoseg_train .*Cascade all -c {LOW}"):
        prepare_fold(workspace, dataset, RunOptions("all", HIGH, iterations=2, workers=0, device="cpu"))


def test_a_model_without_its_previous_stage_is_refused(cascade, tmp_path):
    workspace, dataset = cascade
    copy = tmp_path / f"default__{HIGH}"
    copy.symlink_to(workspace.model(dataset.name, HIGH).resolve())
    with pytest.raises(ModelError, match=f"default__{LOW}: found no such folder.*train it first"):
        Predictor.load(copy, device="cpu")


def test_a_cascade_is_preprocessed_only_if_it_is_asked_for(cascade):
    workspace, dataset = cascade
    folder = workspace.preprocessed(dataset.name)
    plan = load_plan(folder / PLAN_FILE)
    assert HIGH not in choose_configurations(plan, None, None)
    assert choose_configurations(plan, [HIGH], None) == (HIGH,)
    assert read_entry(folder / HIGH, dataset.case_names[0]) is not None


def test_a_map_that_is_no_prediction_is_named(cascade, tmp_path: Path):
    from autoseg.cases.label_codes import read_class_map
    from autoseg.core.errors import FileFormatError

    _, dataset = cascade
    case = case_of(dataset, dataset.case_names[0])
    shape, info = case.image.shape[1:], classes_layer("previous", 3)
    write_labels(tmp_path / "a.nii.gz", np.full(shape, 7, np.uint8), case.geometry)
    with pytest.raises(FileFormatError, match=r"a\.nii\.gz: .*values \[7\].*\[0, 1, 2\]"):
        read_class_map(tmp_path / "a.nii.gz", info, dataset.labels, shape)
    with pytest.raises(FileFormatError, match=r"a\.nii\.gz: found shape .*as the image"):
        read_class_map(tmp_path / "a.nii.gz", info, dataset.labels, (1, *shape[1:]))
