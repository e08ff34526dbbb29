from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from autoseg.cases.case import Case
from autoseg.core.errors import ConfigError, DatasetError, ModelError
from autoseg.core.geometry import Geometry
from autoseg.inference import Predictor
from autoseg.nn.checkpoint import load_checkpoint, save_checkpoint

GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))


def random_image(shape=(9, 14, 12), n_channels=1, seed=0):
    return np.random.default_rng(seed).uniform(1, 200, size=(n_channels, *shape)).astype(np.float32)


def test_all_finished_folds_are_loaded_ready_to_predict(model_folder):
    predictor = Predictor.load(model_folder, device="cpu")
    model = predictor.model
    assert model.folds == ("0", "1")
    assert model.mirror_axes == (0, 1, 2)
    assert model.configuration.name == "3d_fullres"
    assert model.dataset.labels.n_heads == 2
    assert predictor.device == torch.device("cpu")
    for network, fold in zip(model.networks, model.folds, strict=True):
        assert not network.training
        assert not network.deep_supervision
        weights = load_checkpoint(model_folder / f"fold_{fold}" / "checkpoint_final.pt").weights
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_an_ensemble_predicts_from_the_mean_of_the_folds_logits(model_folder):
    image = random_image((8, 8, 8))
    both = replace(Predictor.load(model_folder, device="cpu"), autocast_dtype=None)
    single = [replace(Predictor.load(model_folder, [fold], "cpu"), autocast_dtype=None) for fold in (0, "1")]
    assert [item.model.folds for item in single] == [("0",), ("1",)]
    mean = np.mean([item.logits(image) for item in single], axis=0)
    np.testing.assert_allclose(both.logits(image), mean, rtol=1e-4, atol=1e-5)


def test_fold_all_is_used_only_if_there_is_no_other(model_folder, checkpoint_maker):
    save_checkpoint(model_folder / "fold_all" / "checkpoint_final.pt", checkpoint_maker("all"))
    assert Predictor.load(model_folder, device="cpu").model.folds == ("0", "1")
    assert Predictor.load(model_folder, ["all"], "cpu").model.folds == ("all",)
    for fold in ("0", "1"):
        (model_folder / f"fold_{fold}" / "checkpoint_final.pt").unlink()
    assert Predictor.load(model_folder, device="cpu").model.folds == ("all",)


def test_a_fold_is_all_its_seeds(model_folder, checkpoint_maker):
    for name in ("0_seed1", "all", "all_seed1", "all_seed2"):
        save_checkpoint(model_folder / f"fold_{name}" / "checkpoint_final.pt", checkpoint_maker(name))
    chosen = {
        None: ("0", "0_seed1", "1"), ("all",): ("all", "all_seed1", "all_seed2"), ("0_seed0", "1"): ("0", "1"),
        ("all_seed2",): ("all_seed2",), (0,): ("0", "0_seed1"), ("all_seed1", "all"): ("all_seed1", "all", "all_seed2"),
    }  # fmt: skip
    for folds, members in chosen.items():
        assert Predictor.load(model_folder, folds, "cpu").model.folds == members
    with pytest.raises(ModelError, match=r"no finished fold all_seed3, expected .* all, all_seed1, all_seed2\."):
        Predictor.load(model_folder, ["all_seed3"], "cpu")
    for fold in ("0", "0_seed1", "1"):
        (model_folder / f"fold_{fold}" / "checkpoint_final.pt").unlink()
    assert Predictor.load(model_folder, device="cpu").model.folds == ("all", "all_seed1", "all_seed2")


def test_the_best_checkpoint_stands_in_for_a_missing_final_one_with_a_warning(model_folder, caplog):
    final = model_folder / "fold_1" / "checkpoint_final.pt"
    final.rename(final.with_name("checkpoint_best.pt"))
    with caplog.at_level(logging.WARNING, logger="autoseg"):
        assert Predictor.load(model_folder, device="cpu").model.folds == ("0", "1")
    assert "fold_1: no checkpoint_final.pt, using checkpoint_best.pt" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="autoseg"):
        Predictor.load(model_folder, ["0"], "cpu")
    assert not caplog.text, "a warning of a fold that was not chosen"


def test_an_unfinished_fold_is_left_out_and_named(model_folder, caplog):
    final = model_folder / "fold_1" / "checkpoint_final.pt"
    final.rename(final.with_name("checkpoint_latest.pt"))
    with caplog.at_level(logging.WARNING, logger="autoseg"):
        assert Predictor.load(model_folder, device="cpu").model.folds == ("0",)
    assert "left out: 1" in caplog.text
    with pytest.raises(ModelError, match=r"fold 1, expected .* folds: 0\."):
        Predictor.load(model_folder, ["1"], "cpu")


def test_a_missing_folder_or_fold_is_named(model_folder, tmp_path):
    with pytest.raises(ModelError, match="nowhere: found no such folder"):
        Predictor.load(tmp_path / "nowhere", device="cpu")
    with pytest.raises(ModelError, match=r"fold 3, 4, expected .* 0, 1\."):
        Predictor.load(model_folder, [0, 3, 4], "cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no fold_<k> folder, expected .*checkpoint_final.pt"):
        Predictor.load(tmp_path / "empty", device="cpu")
    for fold in ("0", "1"):
        final = model_folder / f"fold_{fold}" / "checkpoint_final.pt"
        final.rename(final.with_name("checkpoint_latest.pt"))
    with pytest.raises(ModelError, match=r"found fold_0 \(checkpoint_latest.pt\), fold_1 \(checkpoint_latest.pt\)"):
        Predictor.load(model_folder, device="cpu")


def test_settings_that_do_not_exist_are_refused(model_folder):
    with pytest.raises(ConfigError, match="checkpoint: found 'last', expected 'final' or 'best'"):
        Predictor.load(model_folder, device="cpu", checkpoint="last")
    with pytest.raises(ConfigError, match="device: found 'tpu'"):
        Predictor.load(model_folder, device="tpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda item: replace(item, plan=item.plan.model_copy(update={"planner": "other"})), "different plan"),
        (
            lambda item: replace(item, dataset={**item.dataset, "labels": {"background": 0, "liver": 1}}),
            "different labels",
        ),
        (lambda item: replace(item, dataset={**item.dataset, "channel_names": {"0": "CT"}}), "different channels"),
    ],
)
def test_folds_of_different_trainings_are_refused(model_folder, checkpoint_maker, change, message):
    save_checkpoint(model_folder / "fold_1" / "checkpoint_final.pt", change(checkpoint_maker("1")))
    with pytest.raises(ModelError, match=f"folds 0 and 1 with {message}"):
        Predictor.load(model_folder, device="cpu")
    assert Predictor.load(model_folder, [1], "cpu").model.folds == ("1",)


def test_folds_are_mirrored_only_where_all_were_trained_so(model_folder, checkpoint_maker):
    save_checkpoint(model_folder / "fold_1" / "checkpoint_final.pt", replace(checkpoint_maker("1"), mirror_axes=(1, 2)))
    assert Predictor.load(model_folder, device="cpu").model.mirror_axes == (1, 2)


def test_weights_of_another_network_are_refused(model_folder, checkpoint_maker):
    other = checkpoint_maker("1", n_channels=2).weights
    save_checkpoint(model_folder / "fold_1" / "checkpoint_final.pt", replace(checkpoint_maker("1"), weights=other))
    with pytest.raises(ModelError, match=r"fold_1.*do not fit the network"):
        Predictor.load(model_folder, device="cpu")


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_an_array_is_predicted_in_its_own_axes(threshold_predictor, transpose):
    spacing = (2.0, 1.0, 0.5)
    planned = tuple(spacing[axis] for axis in transpose)
    predictor = threshold_predictor(spacing=planned, transpose=transpose)
    image = random_image()
    labels = predictor.predict_array(image, Geometry(spacing=spacing))
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, image[0] > 100)


def test_a_2d_model_predicts_every_slice(threshold_predictor):
    image = random_image((5, 14, 6))
    labels = threshold_predictor(n_dims=2).predict_array(image, Geometry(spacing=(7.0, 1.0, 1.0)))
    np.testing.assert_array_equal(labels, image[0] > 100)


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (1.0, 1.0, 1.0), (0.5, 1.5, 0.7), (6.0, 1.3, 1.0)])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
def test_resampling_there_and_back_leaves_objects_where_they_are(threshold_predictor, spacing, transpose):
    """A ball in world coordinates, off centre, on grids that the plan resamples: no shift, hardly another size."""
    shape, centre = tuple(round(36 / edge) for edge in spacing), (15.0, 20.0, 17.0)
    grid = np.indices(shape, dtype=np.float64) + 0.5
    squared = sum((axis * edge - mid) ** 2 for axis, edge, mid in zip(grid, spacing, centre, strict=True))
    image = (110 - np.sqrt(squared))[None].astype(np.float32)  # 100 on a sphere of radius 10
    labels = threshold_predictor(spacing=(2.0, 1.0, 1.0), transpose=transpose).predict_array(
        image, Geometry(spacing=spacing)
    )
    expected = image[0] > 100
    assert 2 * np.sum(labels * expected) / (labels.sum() + expected.sum()) > 0.97
    for mine, true, edge in zip(np.nonzero(labels), np.nonzero(expected), spacing, strict=True):
        assert abs(mine.mean() - true.mean()) * edge < 0.1


def test_the_target_of_a_case_is_not_looked_at_and_its_image_not_changed(threshold_predictor):
    predictor, image = threshold_predictor(), random_image()
    before = image.copy()
    np.testing.assert_array_equal(predictor.predict_case(Case("x", image, GEOMETRY)), image[0] > 100)
    np.testing.assert_array_equal(image, before)


def test_probabilities_come_with_the_labels(threshold_predictor):
    image = random_image()
    labels, values = threshold_predictor().predict_probabilities(image, GEOMETRY)
    np.testing.assert_array_equal(labels, image[0] > 100)
    np.testing.assert_allclose(values.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(values.argmax(0), labels)


@pytest.mark.parametrize("shape", [(3, 5, 4), (1, 1, 1), (9, 1, 30)])
def test_images_smaller_than_the_patch_are_predicted(threshold_predictor, shape):
    image = random_image(shape)
    np.testing.assert_array_equal(threshold_predictor().predict_array(image, GEOMETRY), image[0] > 100)


def test_an_image_without_anything_in_it_is_predicted(threshold_predictor):
    labels = threshold_predictor().predict_array(np.zeros((1, 9, 9, 9), np.float32), GEOMETRY)
    assert labels.shape == (9, 9, 9)
    assert not labels.any()


def test_a_trained_network_predicts_labels_of_the_images_shape(model_folder):
    labels = Predictor.load(model_folder, device="cpu").predict_array(random_image((7, 20, 15)), GEOMETRY)
    assert labels.shape == (7, 20, 15)
    assert set(np.unique(labels)) <= {0, 1}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_with_nan_or_inf_is_refused(threshold_predictor, value):
    image = random_image()
    image[0, 1, 2, 3] = value
    with pytest.raises(DatasetError, match="1 voxels that are NaN"):
        threshold_predictor().predict_array(image, GEOMETRY)


def test_an_image_with_other_channels_is_refused(threshold_predictor):
    with pytest.raises(DatasetError, match=r"found 2 channels, expected 1 \(channel0\)"):
        threshold_predictor().predict_array(random_image(n_channels=2), GEOMETRY)
