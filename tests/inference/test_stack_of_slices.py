"""Volumes for models of 2-D images: what follows from a stack is what follows from its slices, one by one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from objects import draw_objects
from slice_examples import FLAT, Bright, stack, write_model
from tiny_models import make_checkpoint

from autoseg.cases.case import Case
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.inference import Predictor
from autoseg.inference.calibration import Calibration, HeadTemperature, Temperature
from autoseg.inference.predict_group import predict_group
from autoseg.inference.predict_images import predict_images
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.uncertainty_files import MAPS
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.nn.checkpoint import save_checkpoint


@pytest.fixture
def files(tmp_path):
    """The slices as pictures in a folder, and as one stack in a file of its own."""
    pages = stack()
    for index, page in enumerate(pages):
        write_labels(tmp_path / "pictures" / f"p{index}_0000.png", page[None], Geometry(spacing=FLAT, ndim=2))
    (tmp_path / "stacks").mkdir()
    tifffile.imwrite(tmp_path / "stacks" / "s_0000.tif", pages, photometric="minisblack")
    write_labels(tmp_path / "volume" / "s_0000.nii.gz", pages, Geometry(spacing=(2.5, 1.0, 1.0)))
    return tmp_path


def of_slices(folder, pattern, read):
    return [read(folder / pattern.format(index)) for index in range(len(stack()))]


def read_npz(path):
    return np.load(path)["probabilities"]


def read_map(path):
    return read_image([path])[0][0]


@pytest.mark.parametrize("kind", ["classes", "regions"])
@pytest.mark.parametrize(("name", "ending"), [("stacks", ".tif"), ("volume", ".nii.gz")])
def test_a_stack_is_predicted_as_its_slices_are_one_by_one(files, kind, name, ending):
    model, every = write_model(files / "model", kind), {"save_probabilities": True, "save_uncertainty": True}
    names = ("background", "organ") if kind == "classes" else ("organ", "tumour")
    heads = tuple(HeadTemperature(name=head, temperature=1.5) for head in names)
    Calibration(temperature=Temperature(heads=heads, basis="dense", folds=("0",), n_cases=9, n_voxels=9)).write(model)
    for inputs, output in (("pictures", "each"), (name, "all")):
        report = predict_images(files / inputs, files / output, [model], device="cpu", workers=0, **every)
        assert report.done and not report.failed
    labels = np.concatenate(of_slices(files / "each", "p{}.png", lambda path: read_labels(path)[0]))
    np.testing.assert_array_equal(read_labels(files / "all" / f"s{ending}")[0], labels)
    assert len(np.unique(labels)) > 1
    probabilities = np.concatenate(of_slices(files / "each", "p{}.npz", read_npz), axis=1)
    np.testing.assert_array_equal(read_npz(files / "all" / "s.npz"), probabilities)
    for kind_of_map in MAPS:
        each = of_slices(files / "each" / "uncertainty" / kind_of_map, "p{}.tif", read_map)
        of_stack = read_map(files / "all" / "uncertainty" / kind_of_map / f"s{ending}")
        np.testing.assert_allclose(of_stack, np.concatenate(each), atol=1e-6)


def test_means_over_a_stack_are_those_of_its_voxels(files):
    model = write_model(files / "model")
    for inputs, output in (("pictures", "each"), ("stacks", "all")):
        predict_images(files / inputs, files / output, [model], device="cpu", save_uncertainty=True)
    each, of_stack = (
        json.loads((files / name / "uncertainty" / "uncertainty.json").read_text())["cases"] for name in ("each", "all")
    )
    voxels = [case["image"]["n_voxels"] for case in each.values()]
    assert of_stack["s"]["image"]["n_voxels"] == sum(voxels)
    mean = np.average([case["image"]["entropy"] for case in each.values()], weights=voxels)
    assert of_stack["s"]["image"]["entropy"] == pytest.approx(mean, rel=1e-5)


def test_the_quality_of_a_stack_counts_all_voxels_and_has_the_mean_features(files):
    model = write_model(files / "model")
    for inputs, output in (("pictures", "each"), ("volume", "all")):
        predict_images(files / inputs, files / output, [model], device="cpu")
    rows = {
        name: list(csv.DictReader((files / name / "quality.csv").read_text(encoding="utf-8").splitlines()))
        for name in ("each", "all")
    }
    (row,) = rows["all"]
    assert row["unit"] == "ml"
    assert float(row["volume"]) == pytest.approx(2.5e-3 * sum(float(own["volume"]) for own in rows["each"]), rel=1e-4)
    each = [json.loads(path.read_text())["features"] for path in sorted((files / "each" / "quality").glob("*.json"))]
    features = json.loads((files / "all" / "quality" / "s.json").read_text())["features"]
    np.testing.assert_allclose(features["intensity"], np.mean([own["intensity"] for own in each], axis=0), rtol=1e-5)
    np.testing.assert_allclose(features["size"], np.mean([own["size"] for own in each], axis=0))


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_objects_of_slices_are_parted_alone_and_have_numbers_of_their_own(tmp_path, kind):
    loaded = Predictor.load(write_model(tmp_path / "model", kind, folds=("0",), spacing=FLAT), device="cpu")
    networks = (Bright(3 if kind == "instances" else 2),)
    predictor = replace(loaded, model=replace(loaded.model, networks=networks), autocast_dtype=None)
    pages = np.concatenate([(draw_objects((1, 40, 40), 4.0, seed) > 0) * 100 + 1 for seed in range(3)]).astype(np.uint8)
    for index, page in enumerate(pages):
        write_labels(tmp_path / "pictures" / f"p{index}_0000.png", page[None], Geometry(spacing=FLAT, ndim=2))
    write_labels(tmp_path / "stacks" / "s_0000.tif", pages, Geometry(spacing=(1.0, 1.0, 1.0)))
    method, folder = (None, ".") if kind == "instances" else ("watershed", "instances")
    for inputs, output in (("pictures", "each"), ("stacks", "all")):
        predict_group(PredictorGroup((predictor,)), tmp_path / inputs, tmp_path / output, instances=method)
    each = [read_labels(tmp_path / "each" / folder / f"p{index}.tif")[0][0] for index in range(len(pages))]
    together = read_labels(tmp_path / "all" / folder / "s.tif")[0]
    highest = 0
    for own, of_stack in zip(each, together, strict=True):
        assert own.max() > 3
        np.testing.assert_array_equal(of_stack, np.where(own, own + highest, 0))
        highest += int(own.max())


@pytest.mark.parametrize(
    "direction",
    [(1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, 1, 0, 0, 0, -1), (0, 0, 1, 1, 0, 0, 0, 1, 0)],
    ids=["as planned", "flipped", "turned"],
)
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_slices_lie_across_the_first_axis_of_the_plan_however_the_file_is_stored(tmp_path, transpose, direction):
    spacing = (3.0, 1.3, 1.3)
    model = write_model(tmp_path / "model", folds=("0",), spacing=spacing, transpose=transpose)
    loaded = Predictor.load(model, device="cpu")
    plan = loaded.model.plan.model_copy(update={"direction": (1, 0, 0, 0, 1, 0, 0, 0, 1)})
    predictor = replace(loaded, model=replace(loaded.model, plan=plan))
    image = stack().astype(np.float32)[None]
    geometry = Geometry(spacing=(1.1, 1.2, 1.0), direction=direction)
    axis = plan.voxel_order(geometry).axes[0]
    alone = [*geometry.spacing]
    alone[axis] = spacing[0]
    labels = predictor.predict_array(image, geometry)
    assert labels.shape == image.shape[1:] and len(np.unique(labels)) > 1
    for index in range(image.shape[1 + axis]):
        of_slice = geometry.model_copy(update={"spacing": tuple(alone)})
        own = predictor.predict_array(image.take([index], 1 + axis), of_slice)
        np.testing.assert_array_equal(labels.take([index], axis), own)


def test_models_of_volumes_predict_a_volume_as_a_whole(tmp_path):
    """Its intensities are normalised together, also by a 2-D network."""
    save_checkpoint(tmp_path / "fold_0" / "checkpoint_final.pt", make_checkpoint(n_dims=2))
    group = PredictorGroup((Predictor.load(tmp_path, device="cpu"),))
    prepared = group.prepare(Case("x", stack().astype(np.float32)[None], Geometry(spacing=(2.0, 1.0, 1.0))))
    ((only,),) = prepared.images
    assert len(only.image[0]) == len(stack()) and prepared.slice_axis is None


def test_what_is_wrong_with_a_slice_is_said_with_its_number(files):
    model = write_model(files / "model", folds=("0",))
    predictor = Predictor.load(model, device="cpu")
    image = stack().astype(np.float32)[None]
    image[0, 3, 5, 5] = np.nan
    with pytest.raises(DatasetError, match="case image, slice 3: found 1 voxels that are NaN"):
        predictor.predict_array(image, Geometry(spacing=(1.0, 1.0, 1.0)))
    with pytest.raises(DatasetError, match="found a volume of 5 slices, expected a 2-D image"):
        predictor.predict_probabilities(stack().astype(np.float32)[None], Geometry(spacing=(1.0, 1.0, 1.0)))
