"""Numbers are predicted as means over folds and mirrored copies, in the axes and units of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from regression import NO_NUMBER
from tiny_models import make_checkpoint

from autoseg.cases.case import Case
from autoseg.core.errors import ConfigError
from autoseg.core.fingerprint import TargetProperties
from autoseg.core.geometry import Geometry
from autoseg.inference.predict_numbers import predict_numbers
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.io.images import read_image, write_values
from autoseg.nn.checkpoint import save_checkpoint

GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))
TARGETS = tuple(TargetProperties(mean=mean, std=std, min=0, max=1, n_voxels=9) for mean, std in ((500, 20), (-1, 0.5)))
DATASET = {
    "channel_names": {"0": "channel0"}, "file_ending": ".nii.gz", "task": "regression", "targets": ["depth", "height"],
    "unlabelled": NO_NUMBER, "numTraining": 1, "name": "Toy",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder with folds 0 and 1, two targets, 3-D, spacing (2, 1, 1)."""
    folder = tmp_path / "default__3d_fullres"
    for fold in ("0", "1"):
        made = make_checkpoint(fold)
        plan = made.plan.model_copy(update={"targets": TARGETS, "crop": False})
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", replace(made, dataset=DATASET, plan=plan))
    return folder


@pytest.fixture
def image() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(1, 9, 14, 12)).astype(np.float32)
    values[:, :, :3] = 0  # an empty border
    return values


def test_an_ensemble_predicts_the_mean_of_its_folds(model, image):
    whole, *folds = (
        predict_numbers(Predictor.load(model, chosen, device="cpu"), image, GEOMETRY) for chosen in (None, ["0"], ["1"])
    )
    assert whole.shape == (2, 9, 14, 12) and whole.dtype == np.float32 and not np.array_equal(*folds)
    np.testing.assert_allclose(whole, np.mean(folds, axis=0), rtol=1e-4, atol=1e-3)


def test_several_models_predict_the_mean_of_their_numbers_by_name(model, image, tmp_path):
    made = make_checkpoint("7")
    plan = made.plan.model_copy(update={"targets": TARGETS[::-1], "crop": False})
    turned = {**DATASET, "targets": DATASET["targets"][::-1]}
    save_checkpoint(tmp_path / "other" / "fold_0" / "checkpoint_final.pt", replace(made, dataset=turned, plan=plan))
    both = PredictorGroup((Predictor.load(model, device="cpu"), Predictor.load(tmp_path / "other", device="cpu")))
    first, second = (predict_numbers(item, image, GEOMETRY) for item in both.predictors)
    found = both.numbers(both.prepare(Case("image", image, GEOMETRY)))
    np.testing.assert_allclose(found, (first + second[::-1]) / 2, rtol=1e-5)


def test_mirrored_copies_are_averaged(model, image):
    image = image[:, :8, -8:, :8]  # one patch
    predictor = Predictor.load(model, ["0"], device="cpu")
    mirrored = predict_numbers(predictor, image, GEOMETRY)
    flipped = predict_numbers(predictor, np.ascontiguousarray(image[:, ::-1, ::-1, ::-1]), GEOMETRY)
    np.testing.assert_allclose(flipped[:, ::-1, ::-1, ::-1], mirrored, rtol=1e-4, atol=1e-3)
    plain = predict_numbers(replace(predictor, mirror=False), image, GEOMETRY)
    assert np.abs(plain - mirrored).max() > 1e-3


def test_outputs_are_in_the_units_of_the_plan_and_every_voxel_has_a_number(model, image):
    predictor = Predictor.load(model, ["0"], device="cpu")
    prepared = predictor.prepare(Case("a", image, GEOMETRY))
    outputs = predictor.logits(prepared.image)
    numbers = predict_numbers(predictor, image, GEOMETRY)
    np.testing.assert_allclose(numbers[0], 500 + 20 * outputs[0], rtol=1e-5)
    np.testing.assert_allclose(numbers[1], -1 + 0.5 * outputs[1], rtol=1e-5)
    assert np.isfinite(numbers).all()


def test_files_have_the_grid_of_their_image_and_other_spacings_are_resampled_back(model, image, tmp_path):
    geometry = Geometry(spacing=(3.0, 1.5, 1.0), origin=(4.0, 5.0, 6.0))
    (tmp_path / "in").mkdir()
    write_values(tmp_path / "in" / "a_0000.nii.gz", image, geometry)
    predictor = Predictor.load(model, device="cpu")
    report = predictor.predict_files(tmp_path / "in", tmp_path / "out", workers=0)
    assert report.done == ("a",)
    numbers, own = read_image([tmp_path / "out" / "a.nii.gz"])
    assert numbers.shape == (2, 9, 14, 12) and not own.differs_from(geometry)
    np.testing.assert_allclose(numbers, predict_numbers(predictor, *read_image([tmp_path / "in" / "a_0000.nii.gz"])))


def test_what_only_classes_have_is_refused(model, image, tmp_path, model_folder_of_classes):
    predictor = Predictor.load(model, device="cpu")
    (tmp_path / "in").mkdir()
    write_values(tmp_path / "in" / "a_0000.nii.gz", image, GEOMETRY)
    with pytest.raises(ConfigError, match=r"saving probabilities: found the task regression \(depth, height\)"):
        predictor.predict_files(tmp_path / "in", tmp_path / "out", save_probabilities=True)
    with pytest.raises(ConfigError, match="expected classes"):
        predictor.predict_array(image, GEOMETRY)
    with pytest.raises(ConfigError, match=r"a model of classes.*predict_array"):
        predict_numbers(Predictor.load(model_folder_of_classes, device="cpu"), image, GEOMETRY)


@pytest.fixture
def model_folder_of_classes(tmp_path: Path) -> Path:
    folder = tmp_path / "classes" / "default__3d_fullres"
    save_checkpoint(folder / "fold_0" / "checkpoint_final.pt", make_checkpoint("0"))
    return folder


def test_numbers_of_a_stack_are_those_of_its_slices(tmp_path, image):
    flat = (999.0, 1.3, 1.3)
    made = make_checkpoint("0", n_dims=2, spacing=flat)
    plan = made.plan.model_copy(update={"targets": TARGETS, "crop": False})
    save_checkpoint(tmp_path / "fold_0" / "checkpoint_final.pt", replace(made, dataset=DATASET, plan=plan))
    predictor = Predictor.load(tmp_path, device="cpu")
    found = predict_numbers(predictor, image, GEOMETRY)
    alone = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
    each = [predict_numbers(predictor, image[:, index : index + 1], alone) for index in range(len(image[0]))]
    np.testing.assert_array_equal(found, np.concatenate(each, axis=1))
