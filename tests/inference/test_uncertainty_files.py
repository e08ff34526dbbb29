from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import entropy as scipy_entropy
from tiny_models import make_checkpoint

from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.evaluation import evaluate_folder
from autoseg.inference import Predictor
from autoseg.inference.calibration import Calibration, HeadTemperature, Temperature
from autoseg.inference.predict_images import predict_images
from autoseg.io.images import read_header, read_image, read_labels, write_labels
from autoseg.nn.checkpoint import save_checkpoint

MAPS = ("entropy", "expected_entropy", "mutual_information")
REGIONS = {
    "labels": {"background": 0, "organ": [1, 2], "tumour": 2}, "regions_class_order": [1, 2],
    "channel_names": {"0": "channel0"}, "numTraining": 1, "name": "Toy",
}  # fmt: skip


def make_model(folder, *, folds=("0", "1", "2"), n_dims=3, regions=False):
    ending = ".png" if n_dims == 2 else ".nii.gz"
    for fold in folds:
        checkpoint = make_checkpoint(
            fold, n_dims=n_dims, ending=ending, spacing=(999.0 if n_dims == 2 else 2.0, 1.0, 1.0)
        )
        checkpoint = replace(checkpoint, mirror_axes=(0,))
        if regions:
            checkpoint = replace(checkpoint, dataset={**REGIONS, "file_ending": ending})
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", checkpoint)
    return folder


def write_inputs(folder, names=("a",), *, n_dims=3):
    folder.mkdir()
    for seed, name in enumerate(names):
        shape = (1, 20, 18) if n_dims == 2 else (7, 14, 12)
        image = np.zeros(shape, dtype=np.uint8)
        image[..., 3:, 2:-2] = np.random.default_rng(seed).integers(1, 9, size=shape)[..., 3:, 2:-2]
        ending = ".png" if n_dims == 2 else ".nii.gz"
        geometry = Geometry(spacing=(999.0 if n_dims == 2 else 2.0, 1.0, 1.0), ndim=n_dims, origin=(3.0, 2.0, 1.0))
        write_labels(folder / f"{name}_0000{ending}", image, geometry)
    return folder


def with_temperatures(folder, **values):
    heads = tuple(HeadTemperature(name=name, temperature=value) for name, value in values.items())
    Calibration(temperature=Temperature(heads=heads, basis="dense", folds=("0",), n_cases=9, n_voxels=9)).write(folder)


def read_maps(folder, case="a", ending=".nii.gz"):
    return [read_image([folder / "uncertainty" / name / f"{case}{ending}"])[0][0] for name in MAPS]


def table_of(folder):
    return json.loads((folder / "uncertainty" / "uncertainty.json").read_text())["cases"]


def own_entropy(probabilities, *, regions):
    if regions:
        with np.errstate(divide="ignore", invalid="ignore"):
            bits = -probabilities * np.log2(probabilities) - (1 - probabilities) * np.log2(1 - probabilities)
        return np.nan_to_num(bits).mean(axis=0)
    return scipy_entropy(probabilities, base=len(probabilities), axis=0)


@pytest.mark.parametrize("temperatures", [None, (2.0, 0.7)], ids=["plain", "tempered"])
@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_maps_follow_from_the_saved_probabilities_of_each_member(tmp_path, n_dims, regions, temperatures):
    model = make_model(tmp_path / "model", n_dims=n_dims, regions=regions)
    inputs = write_inputs(tmp_path / "in", n_dims=n_dims)
    members = []
    for fold in ("0", "1", "2"):
        Predictor.load(model, [fold], "cpu").predict_files(inputs, tmp_path / fold, save_probabilities=True)
        members.append(np.load(tmp_path / fold / "a.npz")["probabilities"].astype(float))
    Predictor.load(model, None, "cpu").predict_files(inputs, tmp_path / "plain", save_probabilities=True)
    names = ("organ", "tumour") if regions else ("background", "organ")
    if temperatures is not None:
        with_temperatures(model, **dict(zip(names, temperatures, strict=True)))
        t = np.reshape(temperatures, (2, 1, 1, 1))
        if regions:
            members = [expit(logit(np.clip(member, 1e-30, 1)) / t) for member in members]
        else:
            members = [member ** (1 / t) / (member ** (1 / t)).sum(axis=0) for member in members]
    Predictor.load(model, None, "cpu").predict_files(
        inputs, tmp_path / "out", save_uncertainty=True, save_probabilities=True
    )

    ending = ".png" if n_dims == 2 else ".nii.gz"
    total, expected, mutual = read_maps(tmp_path / "out", ending=".tif" if n_dims == 2 else ending)
    np.testing.assert_allclose(total, own_entropy(np.mean(members, axis=0), regions=regions), atol=1e-4)
    own = np.mean([own_entropy(member, regions=regions) for member in members], axis=0)
    np.testing.assert_allclose(expected, own, atol=1e-4)
    np.testing.assert_allclose(mutual, total - expected, atol=1e-6)
    assert mutual.max() > 1e-3

    labels, geometry = read_labels(tmp_path / "out" / f"a{ending}")
    np.testing.assert_array_equal(labels, read_labels(tmp_path / "plain" / f"a{ending}")[0])
    plain, saved = (np.load(tmp_path / name / "a.npz")["probabilities"] for name in ("plain", "out"))
    np.testing.assert_allclose(saved, plain, atol=1e-6)
    if n_dims == 3:
        _, of_map = read_header(tmp_path / "out" / "uncertainty" / "entropy" / "a.nii.gz")
        assert not of_map.differs_from(geometry)
    case = table_of(tmp_path / "out")["a"]
    assert case["members"]["kind"] == "folds" and case["members"]["number"] == 3
    assert case["members"]["temperatures"] == [dict(zip(names, temperatures or (1.0, 1.0), strict=True))]
    assert case["image"]["n_voxels"] == labels.size
    assert case["image"]["entropy"] == pytest.approx(total.mean(), rel=1e-4)
    for name, values in {"organ": (1, 2), "tumour": (2,)}.items():
        inside = np.isin(labels, values)
        if name in case["classes"]:
            assert case["classes"][name]["n_voxels"] == inside.sum()
            mean = case["classes"][name]["mutual_information"]
            assert mean == (pytest.approx(mutual[inside].mean(), rel=1e-3) if inside.any() else None)


def test_members_of_several_model_folders_have_the_temperatures_of_their_own(tmp_path):
    inputs, folders, members = write_inputs(tmp_path / "in"), [], []
    for name, folds, temperatures in (("x", ("0", "1"), (2.0, 0.7)), ("y", ("2",), (1.0, 1.5))):
        folder = make_model(tmp_path / name, folds=folds)
        with_temperatures(folder, **dict(zip(("background", "organ"), temperatures, strict=True)))
        folders.append(folder)
        for fold in folds:
            Predictor.load(folder, [fold], "cpu").predict_files(inputs, tmp_path / fold, save_probabilities=True)
            powers = np.load(tmp_path / fold / "a.npz")["probabilities"] ** (1 / np.reshape(temperatures, (2, 1, 1, 1)))
            members.append(powers / powers.sum(axis=0))
    for output, save_uncertainty in (("plain", False), ("out", True)):
        predict_images(inputs, tmp_path / output, folders, device="cpu", save_uncertainty=save_uncertainty)
    total, expected, _ = read_maps(tmp_path / "out")
    np.testing.assert_allclose(total, own_entropy(np.mean(members, axis=0), regions=False), atol=1e-4)
    own = np.mean([own_entropy(member, regions=False) for member in members], axis=0)
    np.testing.assert_allclose(expected, own, atol=1e-4)
    case = table_of(tmp_path / "out")["a"]["members"]
    assert (case["kind"], case["number"]) == ("models and folds", 3)
    assert case["temperatures"] == [{"background": 2.0, "organ": 0.7}, {"background": 1.0, "organ": 1.5}]
    labels = [read_labels(tmp_path / output / "a.nii.gz")[0] for output in ("plain", "out")]
    np.testing.assert_array_equal(*labels)


def test_one_network_has_no_mutual_information_and_the_table_says_so(tmp_path, caplog):
    model = make_model(tmp_path / "model", folds=("0",))
    Predictor.load(model, None, "cpu", mirror=False).predict_files(
        write_inputs(tmp_path / "in"), tmp_path / "out", save_uncertainty=True
    )
    total, expected, mutual = read_maps(tmp_path / "out")
    np.testing.assert_array_equal(total, expected)
    assert total.any() and not mutual.any()
    members = table_of(tmp_path / "out")["a"]["members"]
    assert (members["kind"], members["number"], members["mirrored"]) == ("one", 1, False)
    assert members["remark"].startswith("one network cannot disagree with itself")
    assert "uncertainty: one network cannot disagree with itself" in caplog.text


def test_without_predicted_foreground_means_are_null(tmp_path, threshold_predictor):
    threshold_predictor().predict_files(write_inputs(tmp_path / "in"), tmp_path / "out", save_uncertainty=True)
    case = table_of(tmp_path / "out")["a"]
    empty = {"n_voxels": 0, "entropy": None, "expected_entropy": None, "mutual_information": None}
    assert case["foreground"] == case["classes"]["organ"] == empty
    assert case["image"]["entropy"] == pytest.approx(0, abs=1e-6)


def test_a_case_is_done_only_with_its_maps_and_means(tmp_path):
    model, inputs, out = (
        make_model(tmp_path / "model"),
        write_inputs(tmp_path / "in", ("a", "a_entropy", "b")),
        tmp_path / "out",
    )
    predictor = Predictor.load(model, None, "cpu")
    predictor.predict_files(inputs, out)
    assert predictor.predict_files(inputs, out).skipped == ("a", "a_entropy", "b")
    assert predictor.predict_files(inputs, out, save_uncertainty=True).done == ("a", "a_entropy", "b")
    assert list(table_of(out)) == ["a", "a_entropy", "b"]
    assert predictor.predict_files(inputs, out, save_uncertainty=True).skipped == ("a", "a_entropy", "b")
    (out / "uncertainty" / "entropy" / "b.nii.gz").unlink()
    (out / "uncertainty" / "means" / "a_entropy.json").write_text("{")
    again = predictor.predict_files(inputs, out, save_uncertainty=True)
    assert (again.done, again.skipped) == (("a_entropy", "b"), ("a",))
    assert list(table_of(out)) == ["a", "a_entropy", "b"]
    assert not [path for path in out.rglob("*") if ".tmp." in path.name]


def test_maps_are_no_predictions(tmp_path):
    model, inputs = make_model(tmp_path / "model"), write_inputs(tmp_path / "in")
    Predictor.load(model, None, "cpu").predict_files(inputs, tmp_path / "out", save_uncertainty=True)
    labels, geometry = read_labels(tmp_path / "out" / "a.nii.gz")
    (tmp_path / "truth").mkdir()
    write_labels(tmp_path / "truth" / "a.nii.gz", labels, geometry)
    assert evaluate_folder(tmp_path / "truth", tmp_path / "out").n_cases == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.nii.gz", "dataset.json", "plans.json", "prediction.json", "quality", "quality.csv", "uncertainty",
    ]  # fmt: skip


def test_what_is_in_the_way_is_named_before_anything_is_predicted(tmp_path):
    predictor, inputs = Predictor.load(make_model(tmp_path / "model"), None, "cpu"), write_inputs(tmp_path / "in")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "uncertainty").touch()
    with pytest.raises(ConfigError, match="other/uncertainty: found a file, expected a folder for maps"):
        predictor.predict_files(inputs, tmp_path / "other", save_uncertainty=True)
    assert [path.name for path in tmp_path.glob("o*/*")] == ["uncertainty"]
