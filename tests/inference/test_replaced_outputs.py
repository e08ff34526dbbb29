"""Files beside a label map describe that label map, or are not there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.inference.predict_group import predict_group
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.io.images import write_labels

KINDS = {
    "probabilities": {"save_probabilities": True},
    "uncertainty": {"save_uncertainty": True},
    "instances": {"instances": "watershed"},
    "quality": {"predict_quality": True},
}
DIMENSIONS = pytest.mark.parametrize("shape", [(1, 12, 10), (5, 12, 10)], ids=["2d", "3d"])
EVERY = {name: value for kind in KINDS.values() for name, value in kind.items()}


def write_images(folder, shape, names="ab", seed=0):
    ending = ".png" if shape[0] == 1 else ".nii.gz"
    for number, name in enumerate(names):
        values = np.random.default_rng([seed, number]).integers(1, 200, shape).astype(np.uint8)
        geometry = Geometry(spacing=(2.0, 1.0, 1.0), ndim=2 if shape[0] == 1 else 3)
        write_labels(folder / f"{name}_0000{ending}", values, geometry)
    return folder


def made(threshold_predictor, shape):
    return threshold_predictor(n_dims=2, ending=".png") if shape[0] == 1 else threshold_predictor()


def predict(predictor, images, output, **options):
    report = predict_group(
        PredictorGroup((predictor,)), images, output, workers=0, **{"predict_quality": False, **options}
    )
    assert not report.failed
    return report.done


def kinds_beside(output, case):
    """Return the kinds of further outputs of a case: of every trace of it."""
    table = output / "uncertainty" / "uncertainty.json"
    maps = list((output / "uncertainty").glob(f"*/{case}.*"))
    in_table = table.is_file() and case in json.loads(table.read_text())["cases"]
    assert len(maps) == (4 if in_table else 0)  # three and their means
    rows = (output / "quality.csv").read_text() if (output / "quality.csv").is_file() else ""
    record = (output / "quality" / f"{case}.json").is_file()
    assert record == (f"\n{case}," in rows)
    there = {
        "probabilities": (output / f"{case}.npz").is_file(),
        "uncertainty": in_table,
        "instances": bool(list((output / "instances").glob(f"{case}.*"))),
        "quality": record,
    }
    return {kind for kind, is_there in there.items() if is_there}


@DIMENSIONS
@pytest.mark.parametrize("kind", KINDS)
def test_a_replaced_label_map_leaves_nothing_that_described_it(kind, shape, threshold_predictor, tmp_path):
    predictor, output = made(threshold_predictor, shape), tmp_path / "out"
    both, one = write_images(tmp_path / "both", shape), write_images(tmp_path / "one", shape, "a", seed=1)
    predict(predictor, both, output, **KINDS[kind])
    assert kinds_beside(output, "a") == kinds_beside(output, "b") == {kind}
    assert predict(predictor, one, output) == () and kinds_beside(output, "a") == {kind}  # skipped
    predict(predictor, one, output, overwrite=True)
    assert (kinds_beside(output, "a"), kinds_beside(output, "b")) == (set(), {kind})
    predict(predictor, both, output, overwrite=True)
    assert kinds_beside(output, "b") == set()
    assert not (output / "uncertainty" / "uncertainty.json").exists() and not (output / "quality.csv").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_written_again_stays_beside_a_replaced_label_map(kind, threshold_predictor, tmp_path):
    predictor, output = threshold_predictor(), tmp_path / "out"
    predict(predictor, write_images(tmp_path / "first", (5, 12, 10)), output, **EVERY)
    assert kinds_beside(output, "a") == {*KINDS}
    predict(predictor, write_images(tmp_path / "new", (5, 12, 10), seed=1), output, overwrite=True, **KINDS[kind])
    assert kinds_beside(output, "a") == {kind}


@DIMENSIONS
def test_an_output_that_is_added_keeps_the_others_of_the_same_label_map(shape, threshold_predictor, tmp_path):
    predictor, output = made(threshold_predictor, shape), tmp_path / "out"
    images = write_images(tmp_path / "images", shape)
    predict(predictor, images, output, save_probabilities=True)
    assert predict(predictor, images, output, save_uncertainty=True) == ("a", "b")
    assert kinds_beside(output, "a") == {"probabilities", "uncertainty"}
    write_images(images, shape, "a", seed=1)
    assert predict(predictor, images, output, instances="watershed") == ("a", "b")
    assert kinds_beside(output, "a") == {"instances"}
    assert kinds_beside(output, "b") == {"probabilities", "uncertainty", "instances"}


def test_what_cannot_be_read_is_no_label_map_of_the_same_values(threshold_predictor, tmp_path):
    predictor, output = threshold_predictor(), tmp_path / "out"
    images = write_images(tmp_path / "images", (5, 12, 10), "a")
    predict(predictor, images, output, save_probabilities=True)
    (output / "a.nii.gz").write_bytes(b"torn")
    predict(predictor, images, output, save_uncertainty=True)
    assert kinds_beside(output, "a") == {"uncertainty"}
