"""Further outputs of one prediction together: of objects, of several models, and what is refused before anything."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import make_checkpoint

import autoseg
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.evaluation.likeness import fit_likeness
from autoseg.evaluation.predicted_dice import DiceCurve
from autoseg.evaluation.quality import Quality
from autoseg.inference.calibration import Calibration
from autoseg.inference.predict_images import predict_images
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import save_checkpoint

CELLS = {"task": "instances", "labels": {"background": 0, "cell": 1}, "unlabelled": 65535}
DIMENSIONS = pytest.mark.parametrize("n_dims", [2, 3], ids=["2d", "3d"])


def write_model(folder, folds, n_dims, **keys):
    """Write a model folder; that of the task instances has one output more, for boundaries."""
    for fold in folds:
        made = make_checkpoint(fold.partition("_")[0], n_dims=n_dims, ending=ending_of(n_dims))
        configuration = next(iter(made.plan.configurations.values()))
        network = build_network(configuration.topology, 1, 3 if "task" in keys else 2)
        checkpoint = replace(made, fold=fold, dataset={**made.dataset, **keys}, weights=network.state_dict())
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", checkpoint)
    return folder


def ending_of(n_dims):
    return ".png" if n_dims == 2 else ".nii.gz"


def write_images(folder, n_dims):
    shape = (1, 20, 18) if n_dims == 2 else (6, 12, 10)
    for seed, name in enumerate("ab"):
        values = np.random.default_rng(seed).integers(1, 200, shape).astype(np.uint8)
        geometry = Geometry(spacing=(2.0, 1.0, 1.0), ndim=n_dims)
        write_labels(folder / f"{name}_0000{ending_of(n_dims)}", values, geometry)
    return folder


def table_of(folder):
    with (folder / "quality.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@DIMENSIONS
@pytest.mark.parametrize(
    ("folds", "kind"),
    [([["0"]], "one"), ([["0", "0_seed1"]], "seeds"), ([["0", "1"], ["0"]], "models and folds")],
    ids=["one", "seeds", "models"],
)
def test_a_model_of_objects_has_the_outputs_of_its_classes(n_dims, folds, kind, tmp_path):
    models = [write_model(tmp_path / f"m{number}", own, n_dims, **CELLS) for number, own in enumerate(folds)]
    images, every = write_images(tmp_path / "images", n_dims), {"save_probabilities": True, "save_uncertainty": True}
    plain = autoseg.predict(images, tmp_path / "plain", models, device="cpu")
    report = autoseg.predict(images, tmp_path / "out", models, device="cpu", **every)
    assert plain.done == report.done == ("a", "b") and not report.failed
    members = json.loads((tmp_path / "out" / "uncertainty" / "uncertainty.json").read_text())["cases"]["a"]["members"]
    assert (members["kind"], members["number"]) == (kind, sum(map(len, folds)))
    ending = ".tif" if n_dims == 2 else ".nii.gz"
    for case in "ab":
        objects, _ = read_labels(tmp_path / "out" / f"{case}{ending}")
        np.testing.assert_array_equal(objects, read_labels(tmp_path / "plain" / f"{case}{ending}")[0])
        probabilities = np.load(tmp_path / "out" / f"{case}.npz")["probabilities"]
        assert probabilities.shape == (2, *objects.shape)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        entropy, _ = read_image([tmp_path / "out" / "uncertainty" / "entropy" / f"{case}{ending}"])
        assert entropy.shape == (1, *objects.shape) and entropy.min() >= 0 and entropy.max() <= 1
    assert {(row["case"], row["class"]) for row in table_of(tmp_path / "out")} == {("a", "cell"), ("b", "cell")}


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path):
    model = write_model(tmp_path / "model", ["0"], 3, **CELLS)
    images = write_images(tmp_path / "images", 3)
    with pytest.raises(ConfigError, match="already hold objects"):
        autoseg.predict(images, tmp_path / "out", model, device="cpu", instances="watershed")
    assert not (tmp_path / "out").exists()


@DIMENSIONS
def test_objects_of_several_models_of_classes_are_parted_from_python(n_dims, tmp_path):
    models = [write_model(tmp_path / name, ["0"], n_dims) for name in ("a", "b")]
    images, out = write_images(tmp_path / "images", n_dims), tmp_path / "out"
    autoseg.predict(images, out, models, device="cpu", instances="watershed", save_uncertainty=True)
    for path in sorted(out.glob(f"[ab]{ending_of(n_dims)}")):
        (found,) = (out / "instances").glob(f"{path.name[0]}.*")
        objects, _ = read_labels(found)
        assert ((objects > 0) <= (read_labels(path)[0] == 1)).all()
    assert json.loads((out / "instances" / "dataset.json").read_text())["task"] == "instances"


def test_the_dice_of_several_models_is_not_predicted_but_what_it_would_be_is_named(tmp_path):
    models = [write_model(tmp_path / name, ["0"], 3) for name in ("a", "b")]
    curve = DiceCurve(
        name="organ", scored_on="annotated voxels", n_pairs=20, confidence=(0.0, 1.0), dice=(0.2, 0.8), half_width=0.1,
        occurrence=0.75,
    )  # fmt: skip
    quality = Quality(curves=(curve,), likeness=fit_likeness({}, ["channel0"]), folds=("0",), n_cases=20)
    for model in models:
        Calibration(quality=quality).write(model)
    images = write_images(tmp_path / "images", 3)
    predict_images(images, tmp_path / "one", models[:1], device="cpu")
    predict_images(images, tmp_path / "both", models, device="cpu")
    one, both = table_of(tmp_path / "one"), table_of(tmp_path / "both")
    assert all(row["predicted_dice"] or float(row["volume"]) == 0 for row in one)
    assert not any(row["predicted_dice"] for row in both)
    assert {row["target"] for row in (*one, *both)} == {"Dice on annotated voxels"}
