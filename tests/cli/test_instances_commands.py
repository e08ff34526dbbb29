"""Objects through the four commands: partly annotated label files in, touching objects parted in whole new images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from objects import UNLABELLED, write_objects
from scipy import ndimage

from autoseg.evaluation.instances import add_counts, match_instances
from autoseg.io.images import read_labels, write_labels

SMALL = ("--set", "network.levels=3", "network.features=12,24,24")
QUICK = (
    "-j", "0", "--device", "cpu", "--set", "iterations_per_epoch=20", "validation_iterations=2",
    "precision=float32", "batch_size=2", "optimizer=adamw", "learning_rate=0.01",
)  # fmt: skip
BAR = 0.8
"""Least AP50 on whole new images after the few steps below; connected components have 0.5."""
AFFINITIES = [[0, -1, 0], [0, 0, -1], [0, 3, 0], [0, 0, 3]]


def succeed(name: str, *arguments: object, root: Path | None = None) -> str:
    result = run_command(name, *arguments, root=root)
    assert result.returncode == 0, result.stderr
    return result.stdout


def average_precision(folder: Path, references: Path, *, components: bool = False) -> float:
    counts = []
    for path in sorted(folder.glob("c*")):
        predicted, _ = read_labels(path)
        reference, _ = read_labels(next(references.glob(f"{path.name.split('.')[0]}.*")))
        counts.append(match_instances(ndimage.label(predicted > 0)[0] if components else predicted, reference))
    score = add_counts(counts).average_precision()
    assert score is not None
    return score


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_flat", "keys", "iterations", "bar"),
    [(True, {}, 45, BAR), (False, {}, 40, BAR), (True, {"affinities": AFFINITIES}, 70, 0.65)],
    ids=["2d", "3d", "affinities"],
)
def test_the_four_commands_part_objects_that_touch(is_flat, keys, iterations, bar, tmp_path):
    folder = write_objects(tmp_path / "raw" / "Dataset001_Cells", is_flat=is_flat, **keys)
    name = "2d" if is_flat else "3d_fullres"
    succeed("plan_and_preprocess", 1, "-c", name, "--planner", "small", *SMALL, "-j", 1, root=tmp_path)
    succeed("train", 1, 0, "-c", name, "--iterations", iterations, *QUICK, root=tmp_path)
    model = tmp_path / "results" / folder.name / f"default__{name}"
    validated = json.loads((model / "fold_0" / "validation" / "summary.json").read_text(encoding="utf-8"))
    (of_kind,) = validated["instances"].values()
    n_reference = of_kind["1"]["pooled"]["n_ref"]
    assert n_reference > 2
    records = json.loads((model / "fold_0" / "validation" / "separation" / "c0.json").read_text(encoding="utf-8"))
    assert len(records) == 27 + 3 * bool(keys) and {record["n_ref"] for record in records} == {n_reference}
    out = tmp_path / "out"
    succeed("predict", "-i", folder / "imagesTs", "-o", out, "-m", model, "-j", 0, "--device", "cpu")
    shown = succeed("evaluate_folder", folder / "labelsTs", out, "-j", 1)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    of_components = average_precision(out, folder / "labelsTs", components=True)
    (of_kind,) = summary["instances"].values()
    score = of_kind["1"]["pooled"]["AP50"]
    assert score == pytest.approx(average_precision(out, folder / "labelsTs"))
    assert score > max(bar, of_components + 0.2) and "AP50" in shown


@pytest.mark.slow
def test_the_objects_of_a_model_of_classes_are_parted_beside_its_label_maps(tmp_path):
    folder = write_objects(tmp_path / "raw" / "Dataset001_Cells")
    references = tmp_path / "references"
    (folder / "labelsTs").rename(references)
    for path in (folder / "labelsTr").iterdir():
        values, geometry = read_labels(path)
        classes = np.where(values == UNLABELLED, 2, values > 0).astype(np.uint8)
        write_labels(path, classes, geometry)
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    content = {**content, "unlabelled": 2} | {"task": "semantic"}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    succeed("plan_and_preprocess", 1, "-c", "2d", "--planner", "small", *SMALL, "-j", 1, root=tmp_path)
    succeed("train", 1, 0, "-c", "2d", "--iterations", 40, *QUICK, root=tmp_path)
    model, out = tmp_path / "results" / folder.name / "default__2d", tmp_path / "out"
    (model / "separation.json").write_text('{"neck": 0.85}', encoding="utf-8")  # small discs that overlap
    predict = ("predict", "-i", folder / "imagesTs", "-m", model, "-j", 0, "--device", "cpu")
    succeed(*predict, "-o", out, "--instances")
    plain = tmp_path / "plain"
    succeed(*predict, "-o", plain)
    for path in plain.glob("*.png"):
        np.testing.assert_array_equal(read_labels(path)[0], read_labels(out / path.name)[0])
        objects, _ = read_labels(out / "instances" / f"{path.stem}.tif")
        assert ((objects > 0) <= (read_labels(path)[0] == 1)).all()
    score = average_precision(out / "instances", references)
    assert score > average_precision(out, references, components=True) + 0.1


def test_tools_that_read_classes_refuse_numbers_of_objects_before_they_read_a_file(tmp_path):
    folder = write_objects(tmp_path / "raw" / "Dataset001_Cells", n_cases=2, n_test=0)
    for path in (folder / "labelsTr").iterdir():
        path.write_bytes(b"")
    for line in (
        ("complete", folder, "-o", tmp_path / "new", "-c", "2d"),
        ("suggest", folder, "-c", "2d"),
        ("simulate_annotation", folder, "-o", tmp_path / "new", "--scribbles"),
        ("merge_datasets", folder, folder, "-o", tmp_path / "new"),
    ):
        result = run_command(*line, root=tmp_path)
        assert result.returncode == 2 and "the task instances, expected label files of classes" in result.stderr, line
    assert not (tmp_path / "new").exists()
