"""Of a validation case that is too large for memory a box is predicted and scored, as it is in the whole volume."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from toy import toy_case

from autoseg.assist.find_best import FindBestOptions, find_best
from autoseg.cli.evaluation_table import print_tables
from autoseg.core.boxes import Box, box_of
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.ranks import Ranks
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.inference import Predictor
from autoseg.inference.blockwise import VolumePredictor
from autoseg.io.images import read_header, read_labels
from autoseg.preprocessing import scored_boxes, volume_size
from autoseg.report.write_report import write_report
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions
from autoseg.training.validation import scored_dataset, validate_fold

SHAPE, UNLABELLED = (24, 40, 36), 255
DRAWN = Box((4, 8, 10), (16, 38, 34))
MOST = 9000


def write_volumes(folder: Path) -> Dataset:
    """Write three volumes, of which a part is annotated: two are cases as a whole, of one a box with own labels.

    The last two have a mask, on the same grid as their labels.
    """
    folder.mkdir(parents=True)
    boxes = {}
    for number, name in enumerate("abc"):
        image, labels = toy_case(SHAPE, number)
        labels[:4], labels[16:] = UNLABELLED, UNLABELLED
        labels[:, :8], labels[..., :10] = UNLABELLED, UNLABELLED
        for kind, array in (("image", image), ("labels", labels)):
            np.save(folder / f"{name}_{kind}.npy", array)
            (folder / f"{name}_{kind}.json").write_text(json.dumps({"spacing": [2.0, 1.0, 1.0]}))
        boxes[name] = {"image": f"{name}_image.npy", "label": f"{name}_labels.npy"}
    boxes["c"]["box"] = [[1, 24], [2, 40], [3, 36]]
    np.save(folder / "c_labels.npy", np.load(folder / "c_labels.npy")[1:24, 2:40, 3:36])
    for name in "bc":
        labels = np.load(folder / f"{name}_labels.npy")
        np.save(folder / f"{name}_mask.npy", (np.indices(labels.shape)[2] < 25).astype(np.uint8))
        boxes[name]["valid_mask"] = f"{name}_mask.npy"
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "bright": 1, "brighter": 2}}
    (folder / "dataset.json").write_text(json.dumps({**content, "unlabelled": UNLABELLED, "boxes": boxes}))
    return Dataset.load(folder)


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume_size, "IN_MEMORY_VOXELS", MOST)
        patch.setattr(scored_boxes, "SCORED_VOXELS", MOST)
        yield patch


@pytest.fixture(scope="module")
def trained(tmp_path_factory, toy_preparation, patched):
    """Return workspace, data set and the requests of its three folds, each trained for a step and validated."""
    torch.set_num_threads(1)
    workspace = Workspace(tmp_path_factory.mktemp("root"))
    dataset = write_volumes(workspace.raw("Dataset020_Large"))
    toy_preparation(dataset, workspace)
    settings = (
        "precision=float32",
        "validation_iterations=1",
        "batch_size=2",
        "augmentation=none",
        "learning_rate=0.05",
    )
    requests = []
    for fold in "012":
        options = RunOptions(fold, iterations=5, settings=settings, workers=0, device="cpu")
        requests.append(prepare_fold(workspace, dataset, options))
        train_fold(requests[-1])
        validate_fold(requests[-1], workers=0)
    return workspace, dataset, requests


def summary_of(request) -> dict:
    return json.loads((request.folder / "validation" / "summary.json").read_text())


def test_every_fold_is_scored_in_a_box_that_its_summary_names(trained):
    _, dataset, requests = trained
    for request in requests:
        (name,) = request.val_cases
        summary = summary_of(request)
        box = box_of(summary["boxes"][name])
        own = dataset.case(name).volume.box or Box.whole(SHAPE)
        assert box.n_voxels <= MOST and box.intersection(own) == box
        (case,) = summary["metric_per_case"]
        assert case["reference_file"].endswith(str(box)) and summary["faults"] == []
        predicted, geometry = read_labels(request.folder / "validation" / f"{name}.nii.gz")
        shape, of_box = read_header(Path(f"{dataset.folder}/{name}_image.npy{box}"))
        assert predicted.shape == shape[1:] == box.shape and not geometry.differs_from(of_box)
        labels = np.load(dataset.folder / f"{name}_labels.npy")
        if name != "a":
            labels[np.load(dataset.folder / f"{name}_mask.npy") == 0] = UNLABELLED
        labels = labels[box.slices] if labels.shape == SHAPE else labels[box.relative_to(own).slices]
        assert (labels == UNLABELLED).any()
        for value in (1, 2):
            found = case["metrics"][str(value)]
            assert found["TP"] == np.sum((labels == value) & (predicted == value))
            assert found["FP"] == np.sum((labels != value) & (predicted == value) & (labels != UNLABELLED))
            assert found["n_decided"] == np.sum(labels != UNLABELLED)
        assert (request.folder / "validation" / "calibration" / f"{name}.npz").is_file()
        assert (request.folder / "validation" / "quality" / f"{name}.json").is_file()
    calibration = json.loads((requests[0].folder.parent / "calibration.json").read_text())
    assert calibration["temperature"]["n_cases"] == 3 and calibration["quality"]["n_cases"] == 3


def test_labels_in_the_box_are_those_of_the_whole_volume(trained):
    """The network normalises each window by itself, so that windows must be those of the whole volume, too."""
    _, dataset, requests = trained
    for request in requests:
        (name,) = request.val_cases
        predicted, _ = read_labels(request.folder / "validation" / f"{name}.nii.gz")
        predictor = Predictor.load(request.folder.parent, folds=[request.fold], device="cpu")
        volume = VolumePredictor.open(predictor, str(dataset.folder / f"{name}_image.npy"))
        box = box_of(summary_of(request)["boxes"][name])
        np.testing.assert_array_equal(predicted, volume.predict_box(Box.whole(SHAPE))[box.slices])
        assert len(np.unique(predicted)) > 1


def test_ranks_resumed_runs_and_other_configurations_score_the_same_box(trained):
    workspace, dataset, requests = trained
    path = workspace.preprocessed(dataset.name) / scored_boxes.SCORED_BOXES_FILE
    before = path.read_bytes()
    for request in requests:
        (name,) = request.val_cases
        expected = scored_dataset(request).case(name)
        assert scored_dataset(replace(request, ranks=Ranks(1, 2))).case(name) == expected
        without_cache = replace(request, cache=replace(request.cache, entries={}))
        assert scored_dataset(without_cache).case(name) == expected  # of a configuration that is not preprocessed
    assert path.read_bytes() == before
    path.unlink()
    for request in requests:
        scored_dataset(request)
    assert path.read_bytes() == before


def test_other_annotation_gets_another_box_and_a_user_may_choose_one(trained, tmp_path, caplog):
    _, dataset, requests = trained
    (request,) = [request for request in requests if request.val_cases == ("a",)]
    before = scored_dataset(request).case("a").volume.box
    moved = replace(dataset.case("a").volume, label=str(tmp_path / "labels.npy"))
    np.save(tmp_path / "labels.npy", np.load(dataset.folder / "a_labels.npy"))
    files = replace(dataset.case("a"), label=moved.label_path, volume=moved)
    other = replace(dataset, cases=tuple(files if case.name == "a" else case for case in dataset.cases))
    folder = tmp_path / "preprocessed"
    folder.mkdir()
    (folder / scored_boxes.SCORED_BOXES_FILE).write_bytes(
        (request.cache.folder.parent / scored_boxes.SCORED_BOXES_FILE).read_bytes()
    )
    asked = []

    def opened(name):
        asked.append(name)
        return request.cache.source(name).open()

    chosen = scored_boxes.choose_scored_boxes(other, ["a"], folder, opened)
    assert asked == ["a"] and chosen.case("a").volume.box == before  # the cache is the same
    scored_boxes.choose_scored_boxes(other, ["a"], folder, opened)
    assert asked == ["a"]
    caplog.clear()
    content = json.loads((folder / scored_boxes.SCORED_BOXES_FILE).read_text())
    content["cases"]["a"]["box"] = [[3, 9], [1, 9], [1, 9]]  # of a user
    (folder / scored_boxes.SCORED_BOXES_FILE).write_text(json.dumps(content))
    chosen = scored_boxes.choose_scored_boxes(other, ["a"], folder, opened)
    assert chosen.case("a").volume.box == Box((3, 1, 1), (9, 9, 9)) and not caplog.text


@pytest.mark.parametrize(
    "spans",
    [
        [[3, 99], [1, 9], [1, 9]],
        [[-3, 9], [1, 9], [1, 9]],
        [[9, 3], [1, 9], [1, 9]],
        [[3, 3], [1, 9], [1, 9]],
        [[0, 24], [0, 40], [0, 36]],
    ],
    ids=["outside", "negative", "reversed", "empty", "too large"],
)
def test_a_box_that_the_volume_does_not_have_is_refused_and_stays(trained, spans, tmp_path):
    _, dataset, requests = trained
    content = json.loads((requests[0].cache.folder.parent / scored_boxes.SCORED_BOXES_FILE).read_text())
    content["cases"]["a"]["box"] = spans
    path = tmp_path / scored_boxes.SCORED_BOXES_FILE
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"scored_boxes.json: case a: found the box .*volume of \(24, 40, 36\)"):
        scored_boxes.choose_scored_boxes(dataset, ["a"], tmp_path, requests[0].cache.source)
    with pytest.raises(ConfigError, match="remove the case from the file"):
        scored_boxes.with_scored_boxes(dataset, tmp_path)
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize(
    ("text", "problem"),
    [("{", "file: Invalid JSON"), ('{"cases": {"a": {"box": [[0, 1], [0, 1]]}}}', r"cases\.a\.box\.2: Field required")],
)
def test_a_damaged_file_of_boxes_is_named(trained, text, problem, tmp_path):
    _, dataset, _ = trained
    (tmp_path / scored_boxes.SCORED_BOXES_FILE).write_text(text)
    with pytest.raises(ConfigError, match=rf"scored_boxes.json: found a file that cannot be read \({problem}.*remove"):
        scored_boxes.with_scored_boxes(dataset, tmp_path)


def test_models_are_compared_in_the_boxes(trained):
    workspace, dataset, requests = trained
    options = FindBestOptions(with_pairs=False, with_postprocessing=False, device="cpu")
    result = find_best(workspace, dataset, options)
    assert result.cases == ("a", "b", "c")
    assert {name: [list(span) for span in box] for name, box in result.boxes.items()} == {
        name: box for request in requests for name, box in summary_of(request)["boxes"].items()
    }
    path = workspace.preprocessed(dataset.name) / scored_boxes.SCORED_BOXES_FILE
    before = path.read_text()
    content = json.loads(before)
    content["cases"]["a"]["box"][0] = [4, 9]
    path.write_text(json.dumps(content))
    try:
        with pytest.raises(ModelError, match=r"predictions of a in other boxes than scored_boxes.json.*--resume"):
            find_best(workspace, dataset, options)
        path.unlink()
        with pytest.raises(ModelError, match=r"has no predictions of .* in validation/.*--resume"):
            find_best(workspace, dataset, options)
    finally:
        path.write_text(before)


def test_pairs_are_predicted_as_each_model_was(trained):
    """The mean of a model and its copy is the model, in every voxel."""
    workspace, dataset, requests = trained
    folder = requests[0].folder.parent
    copy = folder.with_name(f"copy__{folder.name.rpartition('__')[2]}")
    shutil.copytree(folder, copy)
    try:
        find_best(workspace, dataset, FindBestOptions(with_postprocessing=False, device="cpu"))
        (pair,) = (workspace.results(dataset.name) / "find_best").iterdir()
        for request in requests:
            file = f"{request.val_cases[0]}.nii.gz"
            expected, geometry = read_labels(request.folder / "validation" / file)
            found, of_pair = read_labels(pair / file)
            np.testing.assert_array_equal(found, expected)
            assert not of_pair.differs_from(geometry)
    finally:
        shutil.rmtree(copy)


def test_no_reader_takes_the_scores_for_those_of_the_whole_volume(trained, tmp_path, capsys):
    _, _, requests = trained
    summary = validate_fold(requests[0], workers=0)
    ((name, spans),) = summary.boxes.items()
    said = f"{name}: only the box {box_of(spans)} of its volume was predicted and scored"
    print_tables(summary)
    assert said in capsys.readouterr().out
    write_report(requests[0].folder, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert said in page and "scored in" in page and page.count(str(box_of(spans))) >= 2
    of_folds = summary.model_copy(update={"metric_per_case": 2 * summary.metric_per_case, "n_cases": 2})
    print_tables(of_folds, Console(width=200))
    assert f"{name} {box_of(spans)}" in capsys.readouterr().out


def test_objects_of_the_box_are_scored_and_parted_by_each_setting(tmp_path, toy_preparation, patched):
    """The values of the two classes are taken for the numbers of two objects."""
    workspace = Workspace(tmp_path)
    folder = workspace.raw("Dataset021_Objects")
    write_volumes(folder)
    content = json.loads((folder / "dataset.json").read_text())
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-3, 0, 0], [0, -3, 0], [0, 0, -3]]
    content |= {"labels": {"background": 0, "cell": 1}, "task": "instances", "affinities": offsets}
    content["boxes"] = {name: content["boxes"][name] for name in "ab"}
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(folder)
    toy_preparation(dataset, workspace)
    settings = ("precision=float32", "validation_iterations=1", "batch_size=2", "augmentation=none")
    request = prepare_fold(
        workspace, dataset, RunOptions("0", iterations=1, settings=settings, workers=0, device="cpu")
    )
    train_fold(request)
    summary = validate_fold(request, workers=0)
    ((name, spans),) = summary.boxes.items()
    objects = np.load(folder / f"{name}_labels.npy")[box_of(spans).slices]
    assert summary.metric_per_case[0].instances["1"].n_ref == len(set(np.unique(objects)) - {0, UNLABELLED}) > 0
    tried = json.loads((request.folder / "validation" / "separation" / f"{name}.json").read_text())
    assert {row["n_ref"] for row in tried} == {summary.metric_per_case[0].instances["1"].n_ref}
