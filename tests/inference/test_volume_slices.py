"""Volumes of any size for models of 2-D images: what is written of a slice is what is predicted of that image alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from objects import draw_objects
from slice_examples import FLAT, Bright, stack, write_model
from test_predict_volume import digests, whole
from tiny_models import make_checkpoint
from volume_examples import make_predictor, noise, write_volume

from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError, DatasetError, FileFormatError
from autoseg.core.fingerprint import TargetProperties
from autoseg.core.geometry import Geometry
from autoseg.core.prediction_record import read_prediction_record
from autoseg.inference import Predictor, volume_arrays
from autoseg.inference.blockwise import VolumePredictor
from autoseg.inference.predict_images import predict_images
from autoseg.inference.predict_numbers import predict_numbers
from autoseg.inference.uncertainty_files import MAPS
from autoseg.inference.volume_options import VolumeOptions
from autoseg.inference.volume_slices import VolumeSlices
from autoseg.inference.volume_units import Part
from autoseg.io.arrays import open_array
from autoseg.io.images import read_image, read_labels, write_labels, write_values
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import save_checkpoint

EVERY = {"save_probabilities": True, "save_uncertainty": True}


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch):
    monkeypatch.setattr(volume_arrays, "FLAT_CHUNK", 4)
    monkeypatch.setattr(volume_arrays, "FLAT_SHARD", 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with two folds, whose crop and normalisation follow from the slice."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def volume(tmp_path):
    return write_volume(tmp_path / "v.zarr", stack(), (2.5, 1.0, 1.0))


def predict(model, inputs, output, *, further=EVERY, **options):
    return predict_images(inputs, output, [model], device="cpu", workers=0, volume=VolumeOptions(**options), **further)


def of_pictures(model, folder, pages, **options):
    """Label maps (n, y, x) of pages that are predicted as pictures, one by one."""
    for index, page in enumerate(pages):
        write_labels(folder / "pictures" / f"p{index}_0000.png", page[None], Geometry(spacing=FLAT, ndim=2))
    predict_images(folder / "pictures", folder / "each", [model], device="cpu", workers=0, **options)
    return np.concatenate([read_labels(folder / "each" / f"p{index}.png")[0] for index in range(len(pages))])


@pytest.mark.parametrize("kind", ["classes", "regions"])
def test_a_volume_holds_what_is_predicted_of_its_slices_as_pictures(tmp_path, volume, kind):
    model, n_slices = write_model(tmp_path / kind, kind), len(stack())
    labels = of_pictures(model, tmp_path, stack(), save_probabilities=True)
    assert predict(model, volume, tmp_path / "out").done == ("v",)
    np.testing.assert_array_equal(whole(tmp_path / "out" / "v.zarr")[0], labels)
    assert len(np.unique(labels)) > 1
    each = [np.load(tmp_path / "each" / f"p{index}.npz")["probabilities"] for index in range(n_slices)]
    probabilities = whole(tmp_path / "out" / "probabilities" / "v.zarr")
    np.testing.assert_array_equal(probabilities, np.concatenate(each, axis=1).astype(np.float16))
    assert open_array(tmp_path / "out" / "v.zarr").chunk[0] == 1


def test_a_volume_that_fits_into_memory_is_predicted_alike_either_way(model, tmp_path):
    write_labels(tmp_path / "s_0000.nii.gz", stack(), Geometry(spacing=(2.5, 1.0, 1.0)))
    predict_images(tmp_path / "s_0000.nii.gz", tmp_path / "memory", [model], device="cpu", workers=0, **EVERY)
    predict(model, tmp_path / "s_0000.nii.gz", tmp_path / "parts", is_forced=True, write_as=".nii.gz")
    expected, _ = read_labels(tmp_path / "memory" / "s.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "parts" / "s.nii.gz")[0], expected)
    found = whole(tmp_path / "parts" / "uncertainty" / "s.zarr")
    for channel, kind in zip(found, MAPS, strict=True):
        own, _ = read_image([tmp_path / "memory" / "uncertainty" / kind / "s.nii.gz"])
        np.testing.assert_allclose(channel, own[0], atol=1e-3)


def test_parts_are_whole_slices_and_change_no_byte(model, volume, tmp_path, monkeypatch):
    predict(model, volume, tmp_path / "one")
    predicted = []
    original = VolumeSlices._prepare
    monkeypatch.setattr(VolumeSlices, "_prepare", lambda self, index: predicted.append(index) or original(self, index))
    for index in range(1, 8):  # of which two are empty: there are five slices
        predict(model, volume, tmp_path / "parts", part=Part(index, 7))
    assert sorted(predicted) == [0, 1, 2, 3, 4]
    assert digests(tmp_path / "parts") == digests(tmp_path / "one")
    assert [run.part for run in read_prediction_record(tmp_path / "parts").runs][:2] == ["1/7", "2/7"]
    assert predict(model, volume, tmp_path / "one").skipped == ("v",)


def test_a_prediction_goes_on_with_the_slices_that_are_not_done(model, volume, tmp_path, monkeypatch):
    predict(model, volume, tmp_path / "one")
    original, predicted = VolumeSlices._prepare, []

    def interrupted(self, index):
        if index == 3 and not predicted:
            raise KeyboardInterrupt
        return original(self, index)

    monkeypatch.setattr(VolumeSlices, "_prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(model, volume, tmp_path / "out")
    monkeypatch.setattr(VolumeSlices, "_prepare", lambda self, index: predicted.append(index) or original(self, index))
    predict(model, volume, tmp_path / "out")
    assert predicted in ([2, 3, 4], [3, 4])
    assert digests(tmp_path / "out") == digests(tmp_path / "one")


def test_a_box_holds_a_part_of_whole_slices(model, volume, tmp_path):
    predict(model, volume, tmp_path / "all")
    box = Box((2, 3, 5), (5, 17, 18))
    predict(model, f"{volume}{box}", tmp_path / "box")
    for folder in (".", "probabilities", "uncertainty"):
        found = whole(tmp_path / "box" / folder / "v_2-5_3-17_5-18.zarr")
        np.testing.assert_array_equal(found, whole(tmp_path / "all" / folder / "v.zarr")[(slice(None), *box.slices)])


def test_a_box_in_memory_is_that_of_the_volume(model, volume, tmp_path):
    predict(model, volume, tmp_path / "all")
    opened = VolumePredictor.open(Predictor.load(model, device="cpu"), volume)
    labels, probabilities = (whole(tmp_path / "all" / folder / "v.zarr") for folder in (".", "probabilities"))
    box = Box((1, 2, 3), (4, 20, 15))
    np.testing.assert_array_equal(opened.predict_box(box), labels[0][box.slices])
    found = opened.predict_probabilities(box)
    np.testing.assert_array_equal(found.astype(np.float16), probabilities[(slice(None), *box.slices)])
    mirrored = opened.predict_box(Box((-1, 0, 0), (5, 21, 18)))  # one more slice, a copy of the second
    np.testing.assert_array_equal(mirrored[1:], labels[0])
    np.testing.assert_array_equal(mirrored[0], labels[0][1])


@pytest.mark.parametrize(
    "direction",
    [(1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 1, 1, 0, 0, 0, 1, 0)],
    ids=["as planned", "flipped", "turned"],
)
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_slices_lie_across_the_first_axis_of_the_plan(tmp_path, transpose, direction):
    folder = write_model(tmp_path / "model", folds=("0",), spacing=(3.0, 1.3, 1.3), transpose=transpose)
    loaded = Predictor.load(folder, device="cpu")
    plan = loaded.model.plan.model_copy(update={"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)})
    predictor = replace(loaded, model=replace(loaded.model, plan=plan))
    geometry = Geometry(spacing=(1.1, 1.2, 1.0), direction=direction)
    write_values(tmp_path / "v.nii.gz", stack().astype(np.float32)[None], geometry)
    predict(predictor, tmp_path / "v.nii.gz", tmp_path / "out", further={}, is_forced=True)
    expected = predictor.predict_array(*read_image([tmp_path / "v.nii.gz"]))
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(whole(tmp_path / "out" / "v.zarr")[0], expected)


def test_a_fast_prediction_leaves_out_the_windows_that_it_leaves_out_in_a_picture(model, volume, tmp_path):
    labels = of_pictures(model, tmp_path, stack(), fast=True)
    predict(model, volume, tmp_path / "out", further={"fast": True})
    np.testing.assert_array_equal(whole(tmp_path / "out" / "v.zarr")[0], labels)
    slow = replace(Predictor.load(model, device="cpu", fast=True), leaves_out_windows=False)
    with pytest.raises(ConfigError, match="begun with other leaves_out"):
        predict(slow, volume, tmp_path / "out")


def test_several_models_predict_their_mean(model, volume, tmp_path):
    other = write_model(tmp_path / "other", folds=("2",), spacing=(FLAT[0], 0.9, 1.1))
    for index, page in enumerate(stack()):
        write_labels(tmp_path / "pictures" / f"p{index}_0000.png", page[None], Geometry(spacing=FLAT, ndim=2))
    predict_images(tmp_path / "pictures", tmp_path / "each", [model, other], device="cpu", workers=0)
    predict_images(volume, tmp_path / "out", [model, other], device="cpu", workers=0)
    each = [read_labels(tmp_path / "each" / f"p{index}.png")[0] for index in range(len(stack()))]
    np.testing.assert_array_equal(whole(tmp_path / "out" / "v.zarr")[0], np.concatenate(each))


def test_several_locations_are_channels(tmp_path):
    predictor = make_predictor(tmp_path / "m", n_dims=2, n_channels=2, spacing=(FLAT[0], 1.3, 1.3))
    images = [noise((3, 21, 18), seed=seed) for seed in (0, 1)]
    locations = [write_volume(tmp_path / f"c{number}.zarr", image) for number, image in enumerate(images)]
    predict(predictor, [locations], tmp_path / "out", further={})
    expected = predictor.predict_array(np.stack(images), Geometry(spacing=(2.0, 1.0, 1.0)))
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(whole(tmp_path / "out" / "c0.zarr")[0], expected)


def test_voxels_without_data_are_background(model, volume, tmp_path, monkeypatch):
    array, gap = open_array(volume), Box((2, 4, 0), (4, 12, 18))
    holed = replace(array, find_missing=lambda box: tuple(part for part in [gap.intersection(box)] if part.n_voxels))
    monkeypatch.setattr("autoseg.inference.blockwise.open_volume", lambda locations: holed)
    predict(model, volume, tmp_path / "out")
    assert read_prediction_record(tmp_path / "out").runs[0].missing == {"v": (str(gap),)}
    labels = whole(tmp_path / "out" / "v.zarr")[0]
    assert not labels[gap.slices].any() and labels.any()


def test_numbers_of_a_regression_are_those_of_its_slices(tmp_path):
    targets = (TargetProperties(mean=500, std=2, min=0, max=1, n_voxels=9),)
    made = make_checkpoint("0", n_dims=2, ending=".png", spacing=(FLAT[0], 1.3, 1.3))
    dataset = {key: value for key, value in made.dataset.items() if key != "labels"}
    dataset |= {"task": "regression", "targets": ["depth"]}
    plan = made.plan.model_copy(update={"targets": targets, "crop": False})
    weights = build_network(plan.configurations["2d"].topology, 1, 1).state_dict()
    checkpoint = replace(made, dataset=dataset, plan=plan, weights=weights)
    save_checkpoint(tmp_path / "m" / "fold_0" / "checkpoint_final.pt", checkpoint)
    predictor = make_predictor(tmp_path / "m", folds=())
    path = write_volume(tmp_path / "v.zarr", noise((3, 21, 18)))
    predict(predictor, path, tmp_path / "out", further={})
    expected = predict_numbers(predictor, noise((3, 21, 18))[None], Geometry(spacing=(2.0, 1.0, 1.0)))
    np.testing.assert_array_equal(whole(tmp_path / "out" / "v.zarr"), expected)


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_objects_of_slices_are_parted_alone_and_no_two_have_a_number(tmp_path, kind):
    loaded = Predictor.load(write_model(tmp_path / "model", kind, folds=("0",), spacing=FLAT), device="cpu")
    networks = (Bright(3 if kind == "instances" else 2),)
    predictor = replace(loaded, model=replace(loaded.model, networks=networks), autocast_dtype=None)
    pages = np.concatenate([(draw_objects((1, 40, 40), 4.0, seed) > 0) * 100 + 1 for seed in (0, 0, 1)])
    pages = pages.astype(np.uint8)
    path = write_volume(tmp_path / "v.zarr", pages)
    further = {"instances": None if kind == "instances" else "watershed"}
    predict(predictor, path, tmp_path / "out", further=further)
    write_labels(tmp_path / "s_0000.tif", pages, Geometry(spacing=(2.0, 1.0, 1.0)))
    predict_images(tmp_path / "s_0000.tif", tmp_path / "memory", [predictor], **further)
    expected, _ = read_labels(tmp_path / "memory" / ("." if kind == "instances" else "instances") / "s.tif")
    found = whole(tmp_path / "out" / "instances" / "v.zarr")[0]
    pairs = {(int(one), int(other)) for one, other in zip(found.ravel(), expected.ravel(), strict=True)}
    assert len(pairs) == expected.max() + 1 == found.max() + 1 > 10  # one to one
    assert predict(predictor, path, tmp_path / "out", further=further).skipped == ("v",)
    if kind == "classes":
        with pytest.raises(ConfigError, match=r"cellpose needs whole slices in memory.*the slices as images"):
            predict(predictor, path, tmp_path / "out", further={"instances": "cellpose"})


def test_a_slice_that_takes_more_memory_is_refused_with_what_it_takes(model, volume, tmp_path):
    with pytest.raises(
        ConfigError, match=r"one slice of \(1, 21, 18\) voxels.* Give --memory-gb \d+\.\d or more"
    ) as error:
        predict(model, volume, tmp_path / "out", memory_gb=0.001)
    enough = float(str(error.value).split("--memory-gb ")[1].split()[0])
    predict(model, volume, tmp_path / "out", memory_gb=enough)


def test_models_of_boxes_of_one_slice_predict_the_volume_as_a_whole(model, volume, tmp_path):
    """Their slices were normalised by the statistics of the volume."""
    boxes = {"boxes": {"a": {"image": "v.zarr", "box": [[0, 1], [0, 9], [0, 9]], "label": "l.zarr"}}}
    predictor = make_predictor(tmp_path / "m", labels=boxes, n_dims=2, spacing=(FLAT[0], 1.0, 1.0))
    assert VolumePredictor.open(predictor, volume).slices is None
    assert VolumePredictor.open(Predictor.load(model, device="cpu"), volume).slices is not None


def test_what_does_not_fit_the_model_is_said_with_its_location(model, tmp_path):
    colour = write_volume(tmp_path / "colour.zarr", np.stack([noise()] * 3))
    with pytest.raises(DatasetError, match=r"colour\.zarr.*found 3 channels, expected 1 \(channel0\)"):
        predict(model, colour, tmp_path / "out")
    broken = noise((3, 21, 18))
    broken[1, 4, 5] = np.nan
    with pytest.raises(
        FileFormatError, match=r"broken\.zarr\[1:2, 4:5, 5:6\] \(z, y, x\): found 1 value that is NaN or infinite"
    ):
        predict(model, write_volume(tmp_path / "broken.zarr", broken), tmp_path / "out")
