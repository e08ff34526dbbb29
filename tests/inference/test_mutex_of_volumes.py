"""Models of affinities part the objects of a volume by the mutex watershed as they do in memory."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from command_line import run_command
from exact_affinities import DEEP, MUTEX, predictor
from objects import draw_objects
from test_mutex_of_blocks import are_same
from test_predict_volume import digests, whole
from tiny_models import make_checkpoint
from volume_examples import noise, write_volume

from autoseg.cases.case import Case
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.inference import block_objects, volume_arrays, volume_objects
from autoseg.inference.predict_images import predict_images
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.stitching import RECORD
from autoseg.inference.volume_options import VolumeOptions
from autoseg.inference.volume_units import Part
from autoseg.io.images import write_values
from autoseg.io.zarr_writer import create_zarr
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.tasks.separation import SeparationSettings

LPS = Geometry(spacing=(1.0, 1.0, 1.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
SHAPE = (24, 30, 36)


@pytest.fixture(autouse=True)
def _small_shards_and_blocks(monkeypatch):
    monkeypatch.setattr(volume_arrays, "CHUNK", 4)
    monkeypatch.setattr(volume_arrays, "SHARD", 16)
    monkeypatch.setattr(block_objects, "CHUNK", 8)
    monkeypatch.setattr(block_objects, "LARGEST_BLOCK", 16)
    smaller = partial(block_objects.settings_within, halo=(12, 12, 12))
    monkeypatch.setattr(volume_objects, "settings_within", smaller)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of exact affinities, which says that objects are parted by the mutex watershed."""
    loaded = predictor(tmp_path_factory.mktemp("model"), 3, separation=MUTEX)
    return replace(loaded, mirror=False)


@pytest.fixture(scope="module")
def objects():
    """Numbers (z, y, x) of balls, most of which touch."""
    return draw_objects(SHAPE, 3.0, 1)


def directed(own):
    """Return a predictor whose plan has the axes of ``LPS``."""
    return replace(own, model=replace(own.model, plan=own.model.plan.model_copy(update={"direction": LPS.direction})))


def in_memory(own, image, geometry):
    """Return the objects of a volume (z, y, x) that is predicted at once."""
    group = PredictorGroup((own,))
    return group.label_map(group.prepare(Case("v", image[None], geometry)))


def arrays(folder):
    """Return the digest of every file of the arrays of a prediction, but for the record of when they were written."""
    return {name: digest for name, digest in digests(folder).items() if not name.endswith(RECORD)}


@pytest.mark.parametrize(
    "order",
    [VoxelOrder(), VoxelOrder((2, 0, 1), (True, False, True)), VoxelOrder((0, 2, 1), (False, True, True))],
    ids=str,
)
def test_objects_of_a_volume_are_those_in_memory_in_any_axes_of_the_file(model, objects, order, tmp_path):
    own = directed(model)
    image = order.apply(objects).astype(np.float32)
    image[:3] = 0  # an image file is cropped
    geometry = order.turned(LPS, SHAPE)
    write_values(tmp_path / "v.nii.gz", image[None], geometry)
    predict_images(tmp_path / "v.nii.gz", tmp_path / "out", [own], volume=VolumeOptions(is_forced=True))
    expected = in_memory(own, image, geometry)
    found = whole(tmp_path / "out" / "instances" / "v.zarr")[0]
    assert are_same(found, expected) and expected.max() > 10
    affinities = whole(tmp_path / "out" / "affinities" / "v.zarr")
    assert affinities.shape == (len(DEEP), *image.shape) and affinities.dtype == np.uint8
    assert not (tmp_path / "out" / "cores").exists()


@pytest.mark.slow
def test_parts_and_a_run_that_goes_on_write_the_bytes_of_one_run(model, objects, tmp_path):
    location = write_volume(tmp_path / "v.zarr", objects.astype(np.float32), spacing=(1.0, 1.0, 1.0))
    assert predict_images(location, tmp_path / "one", [model]).done == ("v",)
    assert are_same(whole(tmp_path / "one" / "instances" / "v.zarr")[0], in_memory(model, objects * 1.0, LPS))
    for index in (3, 1, 2):
        predict_images(location, tmp_path / "parts", [model], volume=VolumeOptions(part=Part(index, 3)))
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "one")
    done = sorted((tmp_path / "parts" / "affinities" / "v.zarr" / "0" / ".done").iterdir())
    done[0].unlink()
    assert predict_images(location, tmp_path / "parts", [model]).done == ("v",)
    assert predict_images(location, tmp_path / "parts", [model]).skipped == ("v",)
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "one")
    predict_images(location, tmp_path / "parts", [model], overwrite=True)
    assert arrays(tmp_path / "parts") == arrays(tmp_path / "one")


def test_the_method_is_that_of_the_model_unless_another_is_asked_for(model, objects, tmp_path):
    plain = replace(model, model=replace(model.model, separation=SeparationSettings(min_size=0)))
    location = write_volume(tmp_path / "v.zarr", objects.astype(np.float32), spacing=(1.0, 1.0, 1.0))
    for own, method, array in ((plain, "mutex", "affinities"), (model, "watershed", "cores")):
        output = tmp_path / f"{array}_{method}"
        predict_images(location, output, [own], instances=method)
        folders = {path.name for path in output.iterdir() if path.is_dir()}
        assert folders == {"v.zarr", "instances", array}
        assert ((whole(output / "instances" / "v.zarr")[0] > 0) == (objects > 0)).all()
    with pytest.raises(ConfigError, match="expected watershed or mutex"):
        predict_images(location, tmp_path / "cellpose", [model], instances="cellpose")


def test_several_models_part_by_the_mean_of_their_affinities(model, objects, tmp_path):
    other = replace(predictor(tmp_path / "other", 3, separation=MUTEX), mirror=False)
    location = write_volume(tmp_path / "v.zarr", objects.astype(np.float32), spacing=(1.0, 1.0, 1.0))
    predict_images(location, tmp_path / "out", [model, other])
    assert are_same(whole(tmp_path / "out" / "instances" / "v.zarr")[0], in_memory(model, objects * 1.0, LPS))


def test_a_2d_image_is_parted_as_in_memory_and_slices_of_a_volume_are_refused(tmp_path):
    own = predictor(tmp_path / "m", 2, separation=MUTEX)
    drawn = draw_objects((1, 60, 64), 5.0, 1).astype(np.float32)
    flat = Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2)
    write_values(tmp_path / "a.nii.gz", drawn[None], flat)
    predict_images(tmp_path / "a.nii.gz", tmp_path / "out", [own], volume=VolumeOptions(is_forced=True))
    expected = in_memory(own, drawn, flat)
    assert are_same(whole(tmp_path / "out" / "instances" / "a.zarr")[0], expected) and expected.max() > 10
    stack = own.model.plan.model_copy(update={"original_median_shape": (9, 16, 16)})
    deep = replace(own, model=replace(own.model, plan=stack))
    location = write_volume(tmp_path / "v.zarr", np.repeat(drawn, 3, axis=0), spacing=(FLAT_SPACING, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"v.zarr: found the affinities .*expected also one of one voxel along z"):
        predict_images(location, tmp_path / "stack", [deep])
    assert not (tmp_path / "stack").exists()


def test_affinities_of_another_voxel_size_are_refused_before_anything_is_predicted(model, objects, tmp_path):
    location = write_volume(tmp_path / "v.zarr", objects.astype(np.float32), spacing=(1.0, 0.5, 1.0))
    with pytest.raises(
        ConfigError, match=r"v.zarr.*: found voxels of 1 x 0.5 x 1 mm, expected 1 x 1 x 1 mm.*--instances watershed"
    ):
        predict_images(location, tmp_path / "out", [model])
    assert not (tmp_path / "out").exists()
    predict_images(location, tmp_path / "out", [model], instances="watershed")
    assert whole(tmp_path / "out" / "instances" / "v.zarr").any()


def test_the_level_whose_voxels_offsets_count_is_named_and_parted(model, objects, tmp_path):
    fine = objects.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2).astype(np.uint16)
    writer = create_zarr(
        tmp_path / "v.zarr", (1, *fine.shape), "uint16", Geometry(spacing=(0.5, 0.5, 0.5)), chunk=(32, 32, 32),
        shard=(32, 32, 32), levels=2, reduction="nearest",
    )  # fmt: skip
    for box in writer.pending():
        writer.write(box, fine[None][(slice(None), *box.slices)])
    writer.finish()
    with pytest.raises(ConfigError, match=r"v.zarr: .*expected 1 x 1 x 1 mm.* Predict \S+v.zarr:1, or write") as raised:
        predict_images(str(tmp_path / "v.zarr"), tmp_path / "out", [model])
    (named,) = re.findall(r"Predict (\S+),", str(raised.value))
    predict_images(named, tmp_path / "out", [model])
    assert are_same(whole(tmp_path / "out" / "instances" / "v_1.zarr")[0], in_memory(model, objects * 1.0, LPS))


def test_the_command_parts_a_volume_as_separation_json_says(tmp_path, objects):
    made = make_checkpoint(spacing=(1.0, 1.0, 1.0))
    torch.manual_seed(0)
    network = build_network(made.plan.configurations["3d_fullres"].topology, 1, 1 + len(DEEP))
    affinities = [list(offset) for offset in DEEP]
    keys = {"labels": {"background": 0, "cell": 1}, "task": "instances", "affinities": affinities}
    checkpoint = replace(made, dataset={**made.dataset, **keys}, weights=network.state_dict())
    save_checkpoint(tmp_path / "m" / "fold_0" / "checkpoint_final.pt", checkpoint)
    (tmp_path / "m" / "separation.json").write_text('{"method": "mutex", "min_size": 0}')
    location = write_volume(tmp_path / "v.zarr", noise(SHAPE), spacing=(1.0, 1.0, 1.0))
    arguments = "-i", location, "-o", tmp_path / "out", "-m", tmp_path / "m", "--device", "cpu", "--no-tta"
    done = run_command("predict", *arguments)
    assert done.returncode == 0, done.stderr
    found, classes = (whole(tmp_path / "out" / name)[0] for name in ("instances/v.zarr", "v.zarr"))
    np.testing.assert_array_equal(found > 0, classes > 0)
    assert found.max() > 1 and whole(tmp_path / "out" / "affinities" / "v.zarr").any()
    again = run_command("predict", *arguments, "--instances", "watershed")
    assert again.returncode == 2 and "not parted by cores/v.zarr, expected none" in " ".join(again.stderr.split())
    assert not (tmp_path / "out" / "cores").exists()


@pytest.mark.parametrize("order", [VoxelOrder(), VoxelOrder((1, 2, 0), (False, True, False))], ids=str)
def test_a_model_of_2d_images_parts_each_slice_of_a_volume_as_in_memory(order, tmp_path):
    own = directed(predictor(tmp_path / "m", 2, separation=MUTEX))
    image = np.concatenate([draw_objects((1, 40, 44), 3.0, seed) for seed in range(3)]).astype(np.float32)
    image[1, :, :6] = 0
    image = np.ascontiguousarray(order.apply(image))
    geometry = order.turned(LPS.model_copy(update={"spacing": (3.0, 1.0, 1.0)}), (3, 40, 44))
    write_values(tmp_path / "v.nii.gz", image[None], geometry)
    predict_images(tmp_path / "v.nii.gz", tmp_path / "out", [own], volume=VolumeOptions(is_forced=True))
    expected = in_memory(own, image, geometry)
    found = whole(tmp_path / "out" / "instances" / "v.zarr")[0]
    assert are_same(found, expected) and expected.max() > 30
