"""A volume is written as it would be predicted in memory, by any number of processes, however often they are killed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from killed_volume import predict
from tiny_models import make_checkpoint
from volume_examples import in_memory, make_predictor, noise, write_volume

from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError, EvaluationError, FileFormatError
from autoseg.core.fingerprint import TargetProperties
from autoseg.core.geometry import Geometry
from autoseg.core.prediction_record import read_prediction_record
from autoseg.evaluation import evaluate_folder
from autoseg.inference import predict_volume as module
from autoseg.inference import volume_arrays
from autoseg.inference.export import decide
from autoseg.inference.objects import ObjectMap
from autoseg.inference.predict_images import predict_images
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.volume_locations import case_name
from autoseg.inference.volume_options import VolumeOptions
from autoseg.inference.volume_units import Part
from autoseg.io.arrays import open_array
from autoseg.io.images import write_labels, write_values
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.preprocessing.read_case import read_unlabelled
from autoseg.tasks.separation import separate

GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(volume_arrays, "CHUNK", 4)
    monkeypatch.setattr(volume_arrays, "SHARD", 16)


def whole(location):
    """All values (C, z, y, x) of an array."""
    array = open_array(location)
    return array.read(Box.whole(array.spatial_shape))


def digests(folder):
    """Hash of every file of the arrays of a prediction."""
    files = [path for path in Path(folder).rglob("*") if path.is_file() and ".zarr" in str(path)]
    files = [path for path in files if ".tmp." not in path.name and path.suffix != ".lock"]  # left by a kill
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with two folds."""
    folder = tmp_path_factory.mktemp("model")
    make_predictor(folder, folds=("0", "1"))
    return folder


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """Location of a volume."""
    return write_volume(tmp_path_factory.mktemp("volume") / "v.zarr", noise((21, 40, 36)))


@pytest.fixture(scope="module")
def prediction(model, volume, tmp_path_factory):
    """Folder of a prediction by one process."""
    folder = tmp_path_factory.mktemp("prediction")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume_arrays, "CHUNK", 4)
        patch.setattr(volume_arrays, "SHARD", 16)
        predict(model, volume, folder)
    return folder


def test_arrays_hold_what_is_predicted_in_memory(model, volume, prediction):
    predictor = make_predictor(model, folds=())
    labels, probabilities = in_memory(predictor, volume)
    np.testing.assert_allclose(whole(prediction / "probabilities" / "v.zarr"), probabilities, atol=1e-3)
    is_tie = (np.abs(probabilities - 0.5) < 1e-5).any(axis=0)
    assert ((whole(prediction / "v.zarr")[0] == labels) | is_tie).all()
    uncertainty = whole(prediction / "uncertainty" / "v.zarr")
    assert uncertainty.shape == (3, 21, 40, 36) and uncertainty.min() >= 0 and uncertainty.max() <= 1
    assert (uncertainty[2] > 0).any()  # the folds differ
    assert {path.name for path in prediction.iterdir()} == {
        "v.zarr", "probabilities", "uncertainty", "dataset.json", "plans.json", "prediction.json"
    }  # fmt: skip
    assert json.loads((prediction / "dataset.json").read_text())["file_ending"] == ".zarr"


@pytest.mark.parametrize("n_parts", [2, 7])
def test_parts_together_write_the_same_bytes_as_one_process(n_parts, model, volume, prediction, tmp_path):
    for index in reversed(range(n_parts)):
        predict(model, volume, tmp_path, part=Part(index + 1, n_parts))
    assert digests(tmp_path) == digests(prediction)
    runs = read_prediction_record(tmp_path).runs
    assert {run.part for run in runs} == {f"{index + 1}/{n_parts}" for index in range(n_parts)}


def test_columns_of_one_shard_write_the_same_bytes(model, volume, prediction, tmp_path, monkeypatch):
    monkeypatch.setattr(module.MemoryNeed, "bytes_of", lambda self, column: 2**20 + column.n_voxels)
    monkeypatch.setattr(module, "memory_budget", lambda given: 2**20 + 21 * 16 * 16)
    predict(model, volume, tmp_path)
    assert digests(tmp_path) == digests(prediction)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_a_prediction_that_is_killed_20_times_ends_with_the_same_bytes(model, volume, prediction, tmp_path):
    n_kills = 20
    script = Path(__file__).with_name("killed_volume.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, script, model, volume, tmp_path, str(n_kills)]
    done = subprocess.run(command, check=False, capture_output=True, encoding="utf-8", env=environment, timeout=200)
    assert done.returncode == 0 and 1 <= int(done.stdout) < n_kills, done.stderr
    assert digests(tmp_path) == digests(prediction)


def test_only_what_is_left_is_predicted_again(model, volume, prediction, tmp_path, monkeypatch):
    predict(model, volume, tmp_path)
    done = sorted((tmp_path / "v.zarr" / "0" / ".done").iterdir())
    done[0].unlink()
    seen = []
    original = module.ShardLayers
    monkeypatch.setattr(
        module, "ShardLayers", lambda outputs, unit, *more: seen.append(unit) or original(outputs, unit, *more)
    )
    assert predict(model, volume, tmp_path).done == ("v",)
    assert [len(unit.layers) for unit in seen] == [1]
    assert digests(tmp_path) == digests(prediction)


def test_another_model_does_not_continue_a_prediction(model, volume, tmp_path):
    predict(model, volume, tmp_path / "out")
    make_predictor(tmp_path / "other", folds=("7",))
    with pytest.raises(ConfigError, match="other weights"):
        predict(tmp_path / "other", volume, tmp_path / "out")
    predict_images(volume, tmp_path / "out", [make_predictor(tmp_path / "other", folds=("7",))], overwrite=True)


def test_the_label_map_becomes_an_image_file_at_the_end(model, volume, prediction, tmp_path):
    expected = whole(prediction / "v.zarr")[0]
    predict(model, volume, tmp_path, write_as=".nii.gz")
    image = nib.load(tmp_path / "v.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, expected)
    assert image.header.get_zooms() == (1.0, 1.0, 2.0)
    predict(model, volume, tmp_path, write_as=".tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "v.tif"), expected)
    assert json.loads((tmp_path / "v.json").read_text()) == {"spacing": [2.0, 1.0, 1.0]}


def test_voxels_without_data_are_background_and_listed(model, tmp_path, caplog, monkeypatch):
    array = open_array(write_volume(tmp_path / "v.zarr", noise()))
    gap = Box((2, 10, 0), (9, 20, 26))
    holed = replace(array, find_missing=lambda box: tuple(part for part in [gap.intersection(box)] if part.n_voxels))
    monkeypatch.setattr("autoseg.inference.blockwise.open_volume", lambda locations: holed)
    with caplog.at_level(logging.WARNING):
        predict(model, str(tmp_path / "v.zarr"), tmp_path / "out")
    assert f"1 box without data, predicted as background: {gap}" in caplog.text
    assert read_prediction_record(tmp_path / "out").runs[0].missing == {"v": (str(gap),)}
    labels, background = whole(tmp_path / "out" / "v.zarr")[0], whole(tmp_path / "out" / "probabilities" / "v.zarr")[0]
    assert not labels[gap.slices].any() and (background[gap.slices] == 1).all()
    assert labels.any()


def test_a_box_of_a_volume_is_predicted_as_in_the_whole(model, volume, prediction, tmp_path):
    box = Box((2, 5, 3), (15, 33, 36))
    assert predict(model, f"{volume}{box}", tmp_path).done == ("v_2-15_5-33_3-36",)
    np.testing.assert_array_equal(
        whole(tmp_path / "v_2-15_5-33_3-36.zarr"), whole(prediction / "v.zarr")[(slice(None), *box.slices)]
    )
    assert open_array(tmp_path / "v_2-15_5-33_3-36.zarr").geometry.origin == (3.0, 5.0, 4.0)


def test_shards_outside_of_the_crop_of_an_image_file_are_background(model, tmp_path):
    image = np.zeros((21, 40, 36), dtype=np.float32)
    image[9:14, 3:12, 18:30] = noise((21, 40, 36))[9:14, 3:12, 18:30]
    write_values(tmp_path / "a.nii.gz", image[None], GEOMETRY)
    predict(model, str(tmp_path / "a.nii.gz"), tmp_path / "out")
    expected, _ = in_memory(make_predictor(model, folds=()), tmp_path / "a.nii.gz")
    assert expected.any()
    np.testing.assert_array_equal(whole(tmp_path / "out" / "a.zarr")[0], expected)


def test_numbers_of_a_regression_are_those_in_memory(tmp_path):
    targets = tuple(TargetProperties(mean=mean, std=2, min=0, max=1, n_voxels=9) for mean in (500, -1))
    made = make_checkpoint("0", spacing=(1.5, 0.8, 1.0))
    dataset = {key: value for key, value in made.dataset.items() if key != "labels"}
    dataset |= {"task": "regression", "targets": ["depth", "height"]}
    plan = made.plan.model_copy(update={"targets": targets, "crop": False})
    save_checkpoint(tmp_path / "m" / "fold_0" / "checkpoint_final.pt", replace(made, dataset=dataset, plan=plan))
    predictor = make_predictor(tmp_path / "m", folds=())
    path = write_volume(tmp_path / "v.zarr", noise())
    predict_images(path, tmp_path / "out", [predictor])
    group = PredictorGroup((predictor,))
    expected = group.numbers(group.prepare(read_unlabelled("v", [Path(path)], [])))
    np.testing.assert_allclose(whole(tmp_path / "out" / "v.zarr"), expected, rtol=1e-5, atol=1e-3)
    for wanted in ({"save_probabilities": True}, {"save_uncertainty": True}, {"instances": "watershed"}):
        with pytest.raises(ConfigError, match="regression"):
            predict_images(path, tmp_path / "more", [predictor], **wanted)
    assert not (tmp_path / "more").exists()


def test_of_objects_the_classes_and_the_inside_are_written(tmp_path):
    made = make_checkpoint("0")
    torch.manual_seed(0)
    weights = build_network(made.plan.configurations["3d_fullres"].topology, 1, 3).state_dict()
    labels = {"labels": {"background": 0, "cell": 1}, "task": "instances"}
    dataset = {**made.dataset, **labels}
    save_checkpoint(tmp_path / "m" / "fold_0" / "checkpoint_final.pt", replace(made, dataset=dataset, weights=weights))
    predictor = make_predictor(tmp_path / "m", folds=())
    path = write_volume(tmp_path / "v.zarr", noise())
    predict_images(path, tmp_path / "out", [predictor])
    prepared = predictor.prepare(read_unlabelled("v", [Path(path)], []))
    objects = ObjectMap(prepared.record, predictor.model.dataset.labels)
    decide(predictor.logits(prepared.image), prepared.record, predictor.model.dataset.labels, observers=[objects])
    classes, cores = objects.arrays()
    labels_numbers = predictor.model.dataset.labels.instances
    np.testing.assert_array_equal(whole(tmp_path / "out" / "v.zarr")[0], classes)
    np.testing.assert_array_equal(whole(tmp_path / "out" / "cores" / "v.zarr")[0], cores)
    expected = objects.objects(partial(separate, settings=predictor.model.separation), labels_numbers)
    found = whole(tmp_path / "out" / "instances" / "v.zarr")[0]
    np.testing.assert_array_equal(found > 0, expected > 0)
    assert classes.any() and cores.any() and found.max() == expected.max()


def test_objects_are_known_again_where_their_folder_was_moved(model, volume, tmp_path):
    predictor = make_predictor(model, folds=())
    predict_images(volume, tmp_path / "out", [predictor], instances="watershed")
    (tmp_path / "out").rename(tmp_path / "moved")
    assert predict_images(volume, tmp_path / "moved", [predictor], instances="watershed").skipped == ("v",)


def test_touching_objects_of_a_class_are_parted_if_asked(model, volume, tmp_path):
    predictor = make_predictor(model, folds=())
    predict_images(volume, tmp_path, [predictor], instances="watershed")
    objects, labels = whole(tmp_path / "instances" / "v.zarr")[0], whole(tmp_path / "v.zarr")[0]
    assert objects.any() and not objects[labels == 0].any()
    assert json.loads((tmp_path / "instances" / "dataset.json").read_text())["file_ending"] == ".zarr"
    assert predict_images(volume, tmp_path, [predictor], instances="watershed").skipped == ("v",)
    shutil.rmtree(tmp_path / "instances" / "v.zarr")
    assert predict_images(volume, tmp_path, [predictor], instances="watershed").done == ("v",)
    for expected in ("done", "skipped"):  # v.json, which the TIFF file brings, is no part of the label map
        options = VolumeOptions(write_as=".tif")
        report = predict_images(volume, tmp_path, [predictor], instances="watershed", volume=options)
        assert getattr(report, expected) == ("v",)
    with pytest.raises(ConfigError, match="cellpose needs the whole volume"):
        predict_images(volume, tmp_path, [predictor], instances="cellpose")


def test_a_2d_image_is_predicted_part_by_part_as_in_memory(tmp_path):
    predictor = make_predictor(tmp_path / "m", n_dims=2, spacing=(999.0, 1.0, 1.0), ending=".png")
    write_labels(tmp_path / "a.png", noise((1, 45, 50)).astype(np.uint8), Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    options = VolumeOptions(is_forced=True, write_as=".tif")
    predict_images(tmp_path / "a.png", tmp_path / "out", [predictor], volume=options)
    expected, _ = in_memory(predictor, tmp_path / "a.png")
    np.testing.assert_array_equal(whole(tmp_path / "out" / "a.zarr")[0], expected)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), expected[0])


def test_several_locations_are_channels(tmp_path):
    predictor = make_predictor(tmp_path / "model", n_channels=2)
    images = [noise(seed=seed) for seed in (0, 1)]
    locations = [write_volume(tmp_path / f"c{number}.zarr", image) for number, image in enumerate(images)]
    predict_images([locations], tmp_path / "out", [predictor])
    expected, _ = in_memory(predictor, write_volume(tmp_path / "both.zarr", np.stack(images)))
    assert (whole(tmp_path / "out" / "c0.zarr")[0] == expected).mean() > 0.999


def test_an_image_file_is_predicted_as_a_volume_only_if_asked(model, tmp_path):
    path = tmp_path / "a_0000.nii.gz"
    write_labels(path, noise().astype(np.uint8), GEOMETRY)
    predictor = make_predictor(model, folds=())
    predict_images(path, tmp_path / "out", [predictor], volume=VolumeOptions(is_forced=True, write_as=".nii.gz"))
    assert (tmp_path / "out" / "a.nii.gz").is_file() and (tmp_path / "out" / "a.zarr").is_dir()
    with pytest.raises(ConfigError, match="expected a volume"):
        predict_images(tmp_path, tmp_path / "cases", [predictor], volume=VolumeOptions(part=Part(1, 2)))


@pytest.mark.parametrize(
    ("location", "name"),
    [("a/v.zarr", "v"), ("a/b.h5:volumes/raw", "b_volumes_raw"), ("tiles.json", "tiles"), ("x_0000.nii.gz", "x")],
)
def test_a_case_is_named_after_its_location(location, name):
    assert case_name(location) == name


def test_too_little_memory_is_said_with_what_suffices(model, volume, tmp_path):
    with pytest.raises(ConfigError, match=r"Give --memory-gb \d+\.\d or more"):
        predict(model, volume, tmp_path, memory_gb=0.001)
    assert not [*tmp_path.rglob("*.zarr/0")]  # other programs would read background


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_a_part_that_does_not_exist_is_refused(text):
    with pytest.raises(ConfigError, match="1 <= i <= n"):
        Part.parse(text)


def test_objects_of_a_volume_are_not_scored_by_the_map_of_their_classes(tmp_path):
    """The classes read as numbers of objects would be one object each, with a precision of 0."""
    made = make_checkpoint("0")
    torch.manual_seed(0)
    weights = build_network(made.plan.configurations["3d_fullres"].topology, 1, 3).state_dict()
    dataset = {**made.dataset, "labels": {"background": 0, "cell": 1}, "task": "instances"}
    save_checkpoint(tmp_path / "m" / "fold_0" / "checkpoint_final.pt", replace(made, dataset=dataset, weights=weights))
    path = write_volume(tmp_path / "v.zarr", noise())
    predict_images(path, tmp_path / "out", [make_predictor(tmp_path / "m", folds=())])
    objects = whole(tmp_path / "out" / "instances" / "v.zarr")[0]
    (tmp_path / "references").mkdir()
    write_labels(tmp_path / "references" / "v.nii.gz", objects, GEOMETRY)
    summary = evaluate_folder(tmp_path / "references", tmp_path / "out" / "instances")
    assert summary.metric_per_case[0].instances["1"].AP50 == 1 and objects.max() > 1
    with pytest.raises(EvaluationError, match=r"undeclared values 2 .* more, expected only"):
        evaluate_folder(tmp_path / "references", tmp_path / "out")
    write_labels(tmp_path / "references" / "v.nii.gz", (objects > 0).astype(np.uint8), GEOMETRY)
    assert not evaluate_folder(tmp_path / "references", tmp_path / "out").metric_per_case[0].instances


def test_another_volume_of_the_same_name_does_not_continue_a_prediction(model, volume, prediction, tmp_path):
    other = write_volume(tmp_path / "v.zarr", noise((21, 40, 36), seed=5))
    with pytest.raises(ConfigError, match="other intensities"):
        predict(model, other, prediction)
    moved = write_volume(tmp_path / "moved" / "v.zarr", noise((21, 40, 36)))
    assert predict(model, moved, prediction).skipped == ("v",)


def test_a_file_as_output_folder_is_refused(model, volume, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="found a file, expected a folder"):
        predict(model, volume, tmp_path / "out")


def test_channels_have_the_same_box(tmp_path):
    predictor = make_predictor(tmp_path / "model", n_channels=2)
    first, second = (write_volume(tmp_path / f"c{number}.zarr", noise(seed=number)) for number in (0, 1))
    box = "[0:8, 0:16, 0:16]"
    for of_first, of_second in ((box, "[8:16, 0:16, 0:16]"), (box, ""), ("", box)):
        given = [f"{first}{of_first}", f"{second}{of_second}"]
        with pytest.raises(ConfigError, match="expected the same for each"):
            predict_images([given], tmp_path / "out", [predictor])
    predict_images([[f"{first}{box}", f"{second}{box}"]], tmp_path / "out", [predictor])
    assert whole(tmp_path / "out" / "c0_0-8_0-16_0-16.zarr").shape == (1, 8, 16, 16)


def test_a_volume_too_long_for_a_file_is_refused_before_it_is_predicted(model, volume, tmp_path, monkeypatch):
    monkeypatch.setattr("autoseg.io.write_stored.LONGEST_NIFTI", 39)
    with pytest.raises(FileFormatError, match=r"Write \.tif"):
        predict(model, volume, tmp_path / "out", write_as=".nii.gz")
    assert not (tmp_path / "out").exists()
