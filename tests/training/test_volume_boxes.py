"""A network learns from boxes of a volume what it learns from files, and its predictions are those of the boxes."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import toy_case

from autoseg.cases.cache import CaseCache, open_case
from autoseg.core.geometry import Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor
from autoseg.io.images import read_header, read_image, read_labels, write_labels
from autoseg.planning.files import PLAN_FILE, load_plan
from autoseg.preprocessing.runner import preprocess_dataset, stale_cases
from autoseg.training.evidence.sources import evidence_sources
from autoseg.training.evidence.teacher import Teacher
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.preview import preview_patches
from autoseg.training.run_config import RunOptions
from autoseg.training.validation import validate_fold

SHAPE = (24, 40, 36)
PLACES = [*product((0, 12), (0, 20), (0, 18))]
"""First voxel of each of eight toy cases that make up the volume."""
GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))
CONTENT = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "bright": 1, "brighter": 2}}
SETTINGS = (
    "precision=float32", "iterations_per_epoch=30", "validation_iterations=1", "batch_size=2", "augmentation=none",
    "learning_rate=0.02",
)  # fmt: skip


def write_boxes(folder: Path, boxes: dict[str, list[list[int]] | None]) -> Dataset:
    """Write a dense volume, of which boxes are cases; None is all of it."""
    folder.mkdir(parents=True)
    for name, array in zip(("image", "labels"), volume(), strict=True):
        write_labels(folder / f"{name}.nii.gz", array, GEOMETRY)
    entries = {
        name: {"image": "image.nii.gz", "label": "labels.nii.gz", **({"box": box} if box else {})}
        for name, box in boxes.items()
    }
    (folder / "dataset.json").write_text(json.dumps({**CONTENT, "boxes": entries}))
    return Dataset.load(folder)


def volume():
    image, labels = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for number, (z, y, x) in enumerate(PLACES):
        part = (slice(z, z + 12), slice(y, y + 20), slice(x, x + 18))
        image[part], labels[part] = toy_case((12, 20, 18), number)
    return image, labels


@pytest.mark.slow
def test_a_network_learns_from_boxes_and_is_scored_on_them(tmp_path, toy_preparation):
    torch.set_num_threads(1)
    boxes = {f"box_{number}": [[z, z + 12], [y, y + 20], [x + 1, x + 18]] for number, (z, y, x) in enumerate(PLACES)}
    workspace = Workspace(tmp_path)
    dataset = write_boxes(workspace.raw("Dataset008_Boxes"), boxes)
    toy_preparation(dataset, workspace)
    options = RunOptions("0", iterations=60, settings=SETTINGS, workers=0, device="cpu")
    request = prepare_fold(workspace, dataset, options)
    train_fold(request)
    summary = validate_fold(request)
    assert len(summary.metric_per_case) == len(request.val_cases) == 2
    assert summary.foreground_mean["Dice"] > 0.4
    predictor = Predictor.load(request.folder.parent, device="cpu")
    whole = predictor.predict_array(*read_image([dataset.folder / "image.nii.gz"]))
    for name in request.val_cases:
        files = dataset.case(name)
        predicted, geometry = read_labels(request.folder / "validation" / f"{name}.nii.gz")
        shape, of_box = read_header(files.images[0])
        assert predicted.shape == shape[1:] and not geometry.differs_from(of_box)
        same = predicted == whole[files.volume.box.slices]
        assert same.mean() > 0.97, same.mean()  # windows lie elsewhere, but nothing is padded inside the volume


def test_all_of_a_volume_is_cached_as_the_file_would_be(tmp_path, toy_preparation):
    workspace = Workspace(tmp_path)
    raw = workspace.raw("Dataset009_File")
    for name, array in zip(("imagesTr/toy_000_0000", "labelsTr/toy_000"), volume(), strict=True):
        (raw / name).parent.mkdir(parents=True)
        write_labels(raw / f"{name}.nii.gz", array, GEOMETRY)
    (raw / "dataset.json").write_text(json.dumps({**CONTENT, "file_ending": ".nii.gz"}))
    plain = Dataset.load(raw)
    toy_preparation(plain, workspace)
    folder = workspace.preprocessed(plain.name)
    plan = load_plan(folder / PLAN_FILE, "").model_copy(update={"crop": False})
    name = next(iter(plan.configurations))
    boxes = write_boxes(workspace.raw("Dataset010_Box"), {"toy_000": [[0, edge] for edge in SHAPE], "all": None})
    for dataset, cache in ((plain, tmp_path / "plain"), (boxes, tmp_path / "boxes")):
        preprocess_dataset(dataset, plan, name, cache)
    expected = open_case(tmp_path / "plain", "toy_000")
    for case in ("toy_000", "all"):
        found = open_case(tmp_path / "boxes", case)
        np.testing.assert_allclose(found.image, expected.image, atol=1e-5 * np.ptp(expected.image))
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert found.entry.images == expected.entry.images  # recognised when weights were trained on it


def test_a_preview_names_the_place_of_a_patch_in_the_volume(tmp_path, toy_preparation):
    boxes = {f"box_{number}": [[z, z + 12], [y, y + 20], [x + 1, x + 18]] for number, (z, y, x) in enumerate(PLACES)}
    workspace = Workspace(tmp_path)
    dataset = write_boxes(workspace.raw("Dataset012_Places"), boxes)
    toy_preparation(dataset, workspace)
    settings = (*SETTINGS, "mirror=false", "background_prior=0")
    request = prepare_fold(
        workspace, dataset, RunOptions("0", iterations=9, settings=settings, workers=0, device="cpu")
    )
    _, labels = volume()
    for view in preview_patches(request, 6):
        start = [round(at - (edge - 1) / 2) for at, edge in zip(view.centre_in_file, view.codes.shape, strict=True)]
        box = np.zeros(SHAPE, bool)
        box[dataset.case(view.case).volume.box.slices] = True
        inside = [np.arange(low, low + edge) for low, edge in zip(start, view.codes.shape, strict=True)]
        is_there = [(axis >= 0) & (axis < edge) for axis, edge in zip(inside, SHAPE, strict=True)]
        of_patch = np.ix_(*is_there)
        of_volume = np.ix_(*(axis[there] for axis, there in zip(inside, is_there, strict=True)))
        known = box[of_volume]
        assert known.any()
        np.testing.assert_array_equal(view.codes[of_patch][known], labels[of_volume][known])


def test_a_box_is_stale_when_box_volume_or_patch_changes(tmp_path, toy_preparation):
    workspace = Workspace(tmp_path)
    boxes = {"a": [[0, 12], [0, 20], [0, 18]], "b": [[14, 24], [0, 20], [0, 18]]}
    folder = workspace.raw("Dataset011_Stale")
    dataset = write_boxes(folder, boxes)
    toy_preparation(dataset, workspace)
    cache = workspace.preprocessed(dataset.name)
    plan = load_plan(cache / PLAN_FILE, "")
    (name,) = plan.configurations

    def stale(dataset, plan=plan):
        return set(stale_cases(dataset, plan, name, CaseCache.read(cache / name, "ab"), "ab"))

    assert stale(dataset) == set()
    configuration = plan.configuration(name).model_copy(update={"patch_size": (8, 16, 24)})
    assert stale(dataset, plan.model_copy(update={"configurations": {name: configuration}})) == {"a", "b"}
    content = json.loads((folder / "dataset.json").read_text())
    content["boxes"]["b"]["box"][0][0] = 13
    (folder / "dataset.json").write_text(json.dumps(content))
    assert stale(Dataset.load(folder)) == {"b"}
    image = folder / "image.nii.gz"
    image.write_bytes(image.read_bytes() + b"\0")
    assert stale(Dataset.load(folder)) == {"a", "b"}


@pytest.mark.parametrize(("box", "holds"), [([[0, 12], [0, 40], [0, 36]], False), (None, True)])
def test_objects_around_a_box_were_never_looked_for(tmp_path, toy_preparation, box, holds):
    workspace = Workspace(tmp_path)
    folder = workspace.raw("Dataset012_Touched")
    write_boxes(folder, {"a": box})
    content = json.loads((folder / "dataset.json").read_text())
    content["annotation_protocol"] = {"instances_touched": True}
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(folder)
    toy_preparation(dataset, workspace)
    options = RunOptions("0", iterations=9, settings=(*SETTINGS, "teacher_weight=1"), workers=0, device="cpu")
    sources = evidence_sources(prepare_fold(workspace, dataset, options), torch.device("cpu"))
    (teacher,) = [source for source in sources if isinstance(source, Teacher)]
    assert teacher.touches_all == holds
