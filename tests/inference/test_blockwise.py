"""A box of a volume is predicted as it is in the whole, whatever the plan's grid, axes and task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from volume_examples import REGIONS, in_memory, make_predictor, noise, with_border, write_volume

from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inference.blockwise import VolumePredictor, read_box
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared_volume import prepare_volume
from autoseg.inference.saved_probabilities import ProbabilityBuffer
from autoseg.io.arrays import open_array, open_volume
from autoseg.io.images import write_values
from autoseg.io.zarr_writer import create_zarr
from autoseg.nn.architectures.registry import build_network
from autoseg.preprocessing.read_case import read_unlabelled
from autoseg.tasks.separation import SeparationSettings
from autoseg.tasks.task import outputs_of

BOX = Box((1, 2, 3), (20, 29, 25))


@pytest.mark.parametrize("n_dims", [2, 3], ids=["2d", "3d"])
@pytest.mark.parametrize(
    ("spacing", "transpose", "labels"),
    [
        ((2.0, 1.0, 1.0), (0, 1, 2), REGIONS),
        ((1.5, 0.8, 1.0), (1, 2, 0), None),
        ((4.0, 2.0, 2.0), (0, 1, 2), REGIONS),
        ((8.0, 1.0, 1.0), (0, 1, 2), None),
    ],
    ids=["same grid, regions", "finer and transposed, classes", "coarser, regions", "coarse axis, classes"],
)
def test_a_box_is_predicted_as_in_the_whole(n_dims, spacing, transpose, labels, tmp_path):
    options = {"labels": labels, "spacing": spacing, "transpose": transpose, "mirror": n_dims == 3 and labels is None}
    predictor = make_predictor(tmp_path / "model", n_dims=n_dims, **options)
    path = write_volume(tmp_path / "v.zarr", noise())
    expected, probabilities = in_memory(predictor, path)
    volume = VolumePredictor.open(predictor, path)
    np.testing.assert_allclose(volume.predict_probabilities(BOX), probabilities[(slice(None), *BOX.slices)], atol=1e-5)
    is_tie = (np.abs(probabilities - 0.5) < 1e-5).any(axis=0)[BOX.slices]
    assert ((volume.predict_box(BOX) == expected[BOX.slices]) | is_tie).all()
    group = PredictorGroup((predictor,))
    case = read_box(group, "v", [Path(f"{path}{BOX}")])
    kept = ProbabilityBuffer(tmp_path / "kept", case.record, predictor.model.dataset.labels)
    np.testing.assert_array_equal(group.label_map(case, observers=(kept,)), volume.predict_box(BOX))
    np.testing.assert_array_equal(np.stack([*kept.heads()]), volume.predict_probabilities(BOX))
    assert not case.record.geometry.differs_from(open_array(f"{path}{BOX}").geometry)
    assert case.images[0][0].image.shape[1:] == case.record.shape
    kept.close()


@pytest.mark.parametrize("method", ["watershed", "mutex"])
@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (2.0, 1.5, 1.5)], ids=["same grid", "resampled"])
def test_objects_of_a_case_that_is_a_box_are_those_of_its_classes(tmp_path, method, spacing):
    if method == "mutex":
        pytest.importorskip("bioimage_cpp")
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0], [0, -3, 0], [0, 0, -3]]
    content = {
        "channel_names": {"0": "channel0"}, "labels": {"background": 0, "cell": 1}, "task": "instances",
        "affinities": offsets, "file_ending": ".nii.gz",
    }  # fmt: skip
    predictor = make_predictor(tmp_path / "model", spacing=spacing)
    dataset = Dataset.from_json(content, name="toy", folder=None)
    torch.manual_seed(0)
    topology = predictor.model.configuration.topology
    network = build_network(topology, 1, len(outputs_of(dataset.labels)), deep_supervision=False).eval()
    predictor = replace(predictor, model=replace(predictor.model, dataset=dataset, networks=(network,)))
    group, path = PredictorGroup((predictor,)), write_volume(tmp_path / "v.zarr", noise())
    settings = SeparationSettings(method=method, min_size=0)
    parting = replace(group, separation=settings)
    found = parting.label_map(read_box(parting, "v", [Path(f"{path}{BOX}")]))
    classes = VolumePredictor.open(group, path).predict_box(BOX)
    assert found.shape == BOX.shape and found.max() > 1
    np.testing.assert_array_equal(found > 0, classes > 0)


def test_a_box_of_an_image_file_is_cropped_and_turned_as_in_memory(tmp_path):
    """A file of another voxel order than the training, with an empty border on two sides."""
    predictor = make_predictor(tmp_path / "model", spacing=(1.5, 0.8, 1.0), transpose=(1, 2, 0))
    plan = predictor.model.plan.model_copy(update={"direction": (0, 1, 0, -1, 0, 0, 0, 0, 1)})
    predictor = replace(predictor, model=replace(predictor.model, plan=plan))
    geometry = Geometry(spacing=(2.0, 1.0, 1.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))
    write_values(tmp_path / "v.nii.gz", with_border(noise())[None], geometry)
    expected, probabilities = in_memory(predictor, tmp_path / "v.nii.gz")
    volume = VolumePredictor.open(predictor, str(tmp_path / "v.nii.gz"))
    assert volume.record.flipped != (False,) * 3 and volume.record.shape_after_crop != volume.record.shape_before_crop
    found = volume.predict_probabilities(Box.whole(expected.shape))
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert (volume.predict_box(BOX) == expected[BOX.slices]).mean() > 0.999


def test_a_box_that_overhangs_is_of_the_volume_continued_by_reflection(tmp_path):
    predictor = make_predictor(tmp_path / "model")
    image = noise()
    volume = VolumePredictor.open(predictor, write_volume(tmp_path / "v.zarr", image))
    padded = write_volume(tmp_path / "p.zarr", np.pad(image, ((5, 0), (0, 0), (0, 40)), mode="reflect"))
    box = Box((-5, 3, 20), (4, 12, 66))
    expected = in_memory(predictor, padded)[0][0:9, 3:12, 20:66]
    found = volume.predict_box(box)
    assert found.shape == box.shape
    np.testing.assert_array_equal(found, expected)
    assert volume.predict_probabilities(box).shape == (2, *box.shape)
    assert volume.predict_box(Box((3, 3, 3), (3, 9, 9))).shape == (0, 6, 6)


def test_several_models_are_averaged_in_a_box(tmp_path):
    first = make_predictor(tmp_path / "first", folds=("0", "1"))
    second = make_predictor(tmp_path / "second", folds=("2",), spacing=(1.5, 0.8, 1.0))
    group, path = PredictorGroup((first, second)), write_volume(tmp_path / "v.zarr", noise())
    expected = group.label_map(group.prepare(read_unlabelled("v", [Path(path)], [])))
    volume = VolumePredictor.open(group, path)
    assert (volume.predict_box(BOX) == expected[BOX.slices]).mean() > 0.999


def test_a_level_of_the_pyramid_with_the_plans_spacing_is_read(tmp_path):
    """Halved voxels: the network sees the level itself, and the label map has the voxels of the finest level."""
    shape = (16, 24, 24)
    image = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    geometry = Geometry(spacing=(1.0, 1.0, 1.0))
    writer = create_zarr(
        tmp_path / "v.zarr", (1, *shape), "float32", geometry, chunk=(8, 8, 8), shard=(16, 24, 24), levels=2
    )
    writer.write(Box.whole(shape), image[None])
    writer.finish()
    predictor = make_predictor(tmp_path / "model", spacing=(2.0, 2.0, 2.0))
    volume = VolumePredictor.open(predictor, str(tmp_path / "v.zarr"))
    level = open_array(f"{tmp_path}/v.zarr:1")
    assert volume.prepared[0].source.array.location == level.location
    coarse = level.read(Box.whole(level.spatial_shape))
    np.testing.assert_array_equal(volume.prepared[0].read(Box((1, 2, 3), (8, 12, 9))), coarse[:, 1:8, 2:12, 3:9])
    assert volume.predict_box(Box.whole(shape)).shape == shape
    group, box = PredictorGroup((predictor,)), Box((3, 2, 1), (14, 21, 20))
    case = read_box(group, "v", [Path(f"{tmp_path / 'v.zarr'}{box}")])
    np.testing.assert_array_equal(group.label_map(case), volume.predict_box(Box.whole(shape))[box.slices])
    assert case.record.shape == case.images[0][0].image.shape[1:] == (7, 11, 11)  # what it follows from in the level
    overhanging = volume.predict_box(Box((-4, -4, -4), (20, 28, 28)))  # no level reaches there: resampled
    assert (overhanging[4:-4, 4:-4, 4:-4] == volume.predict_box(Box.whole(shape))).mean() > 0.5


def test_intensities_of_a_level_are_those_of_the_finest_as_training_on_boxes_has_them(tmp_path):
    """Halved voxels are means, which vary less: by their own statistics the network would see another contrast."""
    shape, channels = (16, 24, 24), []
    for name in ("a.zarr", "b.zarr"):
        channels.append(noise((1, *shape), seed=len(channels)))
        writer = create_zarr(
            tmp_path / name, (1, *shape), "float32", Geometry(spacing=(1.0, 1.0, 1.0)), chunk=(8, 8, 8), shard=shape,
            levels=2,
        )  # fmt: skip
        writer.write(Box.whole(shape), channels[-1])
        writer.finish()
    locations = [str(tmp_path / name) for name in ("a.zarr", "b.zarr")]
    predictor = make_predictor(tmp_path / "model", spacing=(2.0, 2.0, 2.0), n_channels=2)
    plan, configuration = predictor.model.plan, predictor.model.configuration
    configuration = configuration.model_copy(update={"normalization": ("zscore", "zscore")})
    prepared = prepare_volume(open_volume(locations), "v", locations, plan, configuration, is_file=False)
    assert prepared.source.shape == (8, 12, 12)  # of both channels
    for location, values, found in zip(locations, channels, prepared.read(Box.whole((8, 12, 12))), strict=True):
        level = open_array(f"{location}:1").read(Box.whole((8, 12, 12)))[0]
        np.testing.assert_allclose(found, (level - values.mean()) / values.std(), rtol=0, atol=1e-4)


def test_voxels_of_a_box_without_data_are_background(tmp_path, monkeypatch):
    predictor = make_predictor(tmp_path / "model")
    array = open_array(write_volume(tmp_path / "v.zarr", noise()))
    gap = Box((0, 10, 5), (9, 20, 26))
    holed = replace(array, find_missing=lambda box: tuple(part for part in [gap.intersection(box)] if part.n_voxels))
    monkeypatch.setattr("autoseg.inference.blockwise.open_volume", lambda locations: holed)
    group = PredictorGroup((predictor,))
    found = group.label_map(read_box(group, "v", [Path(f"{tmp_path / 'v.zarr'}{BOX}")]))
    expected = VolumePredictor.open(predictor, str(tmp_path / "v.zarr")).predict_box(BOX)
    np.testing.assert_array_equal(found, expected)
    assert not found[gap.intersection(BOX).relative_to(BOX).slices].any() and found.any()


def test_values_that_are_no_numbers_are_named(tmp_path):
    image = noise()
    image[10, 20, 5] = np.nan
    volume = VolumePredictor.open(make_predictor(tmp_path / "model"), write_volume(tmp_path / "v.zarr", image))
    with pytest.raises(
        FileFormatError, match=r"v\.zarr\[10:11, 20:21, 5:6\] \(z, y, x\): found 1 value that is NaN or infinite"
    ):
        volume.predict_box(BOX)


def test_what_does_not_fit_the_model_is_said_at_once(tmp_path):
    predictor = make_predictor(tmp_path / "model", n_channels=2)
    with pytest.raises(DatasetError, match="1 channel"):
        VolumePredictor.open(predictor, write_volume(tmp_path / "v.zarr", noise()))
