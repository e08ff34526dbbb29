"""The examples of docs/extending.md, run as a user would: one file, nothing in autoseg changed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy import write_toy_dataset

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", (REPOSITORY / "docs/extending.md").read_text(), re.S | re.M)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module of all examples and a small data set."""
    folder = tmp_path_factory.mktemp("extending")
    (folder / "my_parts.py").write_text("from __future__ import annotations\n\n" + "\n\n".join(EXAMPLES))
    write_toy_dataset(folder / "raw" / "Dataset001_Toy")
    return folder


def run(place: Path, command: str, *arguments: str, refused: bool = False) -> str:
    line = [sys.executable, "-m", f"autoseg.cli.{command}", *arguments, "--root", str(place)]
    path = os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        line, env={**os.environ, "PYTHONPATH": path}, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == (2 if refused else 0), done.stderr
    return done.stderr if refused else done.stdout


@pytest.mark.slow
def test_the_examples_are_planned_trained_and_predicted(place):
    run(place, "plan_and_preprocess", "1", "-c", "3d_fullres", "--planner", "my_parts:PLANNER", "-q")
    settings = ["augmentation=my_parts:strong", "loss=my_parts:FocalLoss", "optimizer=my_parts:nadam", "batch_size=2"]
    run(place, "train", "1", "0", "-c", "3d_fullres", "--iterations", "3", "--device", "cpu", "-q", "--set", *settings)
    training = json.loads(
        (place / "results/Dataset001_Toy/default__3d_fullres/fold_0/training.json").read_text(encoding="utf-8")
    )
    assert (training["loss"], training["augmentation"]["name"]) == ("my_parts:FocalLoss", "my_parts:strong")
    assert training["optimizer"]["name"] == "my_parts:nadam"
    assert training["n_parameters"] < 50_000  # not the U-Net of the small planner
    images, predictions = place / "raw/Dataset001_Toy/imagesTr", place / "predictions"
    arguments = ["-i", str(images), "-o", str(predictions), "-d", "1", "-c", "3d_fullres", "--device", "cpu", "-q"]
    run(place, "predict", *arguments)
    assert len(list(predictions.glob("*.nii.gz"))) == len(list(images.iterdir()))


@pytest.mark.slow
def test_a_task_with_an_output_for_boundaries_is_trained_with_all_evidence_and_predicts_classes(place):
    import numpy as np
    import SimpleITK as sitk  # noqa: N813

    from autoseg.nn.checkpoint import load_checkpoint

    data = write_toy_dataset(place / "raw" / "Dataset002_Boundary", shape=(4, 20, 18))
    content = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    (data / "dataset.json").write_text(json.dumps(content | {"task": "my_parts:Boundary"}), encoding="utf-8")
    run(place, "plan_and_preprocess", "2", "-c", "2d", "--planner", "small", "-q")
    settings = ["batch_size=2", "background_prior=1", "teacher_weight=0.1", "teacher_start=0"]
    run(place, "train", "2", "0", "-c", "2d", "--iterations", "3", "--device", "cpu", "-q", "--set", *settings)
    model = place / "results/Dataset002_Boundary/default__2d"
    weights = load_checkpoint(model / "fold_0/checkpoint_final.pt").weights
    assert {len(tensor) for name, tensor in weights.items() if name.startswith("heads.")} == {4}
    history = (model / "fold_0/history.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(json.loads(history[-1])["dice_per_head"]) == {"bright", "brighter"}
    predictions = place / "boundary_predictions"
    arguments = ["-i", str(data / "imagesTr"), "-o", str(predictions), "-m", str(model), "-f", "0", "--device", "cpu"]
    run(place, "predict", *arguments, "--save-probabilities", "-q")
    assert len(list(predictions.glob("*.nii.gz"))) == 5
    for path in predictions.glob("*.npz"):
        probabilities = np.load(path)["probabilities"]
        np.testing.assert_allclose(probabilities.sum(0), np.ones((4, 20, 18)), atol=1e-5)
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path.with_suffix(".nii.gz"))))
        assert (probabilities.argmax(0) == labels).mean() > 0.99


@pytest.mark.slow
def test_parts_for_classes_are_refused_for_regions_before_anything_is_written(place):
    data = write_toy_dataset(place / "raw" / "Dataset003_Regions")
    content = json.loads((data / "dataset.json").read_text(encoding="utf-8"))
    content["labels"] |= {"bright": [1, 2], "brighter": [2]}
    content["regions_class_order"] = [1, 2]
    (data / "dataset.json").write_text(json.dumps(content | {"task": "my_parts:Boundary"}), encoding="utf-8")
    message = run(place, "plan_and_preprocess", "3", "-c", "2d", "--planner", "small", "-q", refused=True)
    assert "my_parts:Boundary" in message and "regions" in message and "Traceback" not in message
    assert not (place / "preprocessed" / "Dataset003_Regions" / "plans.json").exists()
    (data / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    run(place, "plan_and_preprocess", "3", "-c", "2d", "--planner", "small", "-q")
    options = ["--iterations", "1", "--device", "cpu", "-q", "--set", "loss=my_parts:FocalLoss"]
    message = run(place, "train", "3", "0", "-c", "2d", *options, refused=True)
    assert "my_parts:FocalLoss" in message and "my_parts.py, line" in message and "Traceback" not in message


def test_the_loss_of_the_document_passes_its_own_test_without_a_warning(place, monkeypatch, caplog):
    monkeypatch.syspath_prepend(str(place))
    import my_parts

    my_parts.test_the_loss()
    assert not caplog.records


@pytest.mark.parametrize("edges", [(12, 11), (9, 8, 10)], ids=["2d", "3d"])
def test_a_boundary_is_where_annotated_neighbours_differ_and_open_where_one_is_not_annotated(place, monkeypatch, edges):
    import numpy as np
    import torch

    monkeypatch.syspath_prepend(str(place))
    import my_parts

    n_classes = unknown = boundary = 3
    label_sets = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.bool)
    blocks = np.random.default_rng(0).integers(0, 4, (6, *(3,) * len(edges)))
    codes = np.kron(blocks, np.ones((1, *(4,) * len(edges)), dtype=int))[(..., *map(slice, edges))].astype(np.uint8)
    target = my_parts.InsideOrBoundary(n_classes)
    rules = target.rules(torch.from_numpy(codes), label_sets.expand(6, -1, -1), None).numpy()
    padded = np.pad(codes, [(0, 0), *[(1, 1)] * len(edges)], constant_values=unknown)
    met = {"unknown": 0, "background": 0, "boundary": 0, "either": 0, "inside": 0}
    for index in np.ndindex(codes.shape):
        own = int(codes[index])
        near = set(padded[(index[0], *(slice(low, low + 3) for low in index[1:]))].ravel().tolist()) - {own}
        if own == unknown:
            kind, expected = "unknown", [*range(n_classes + 1)]
        elif own == 0:
            kind, expected = "background", [0]
        elif near - {unknown}:
            kind, expected = "boundary", [boundary]
        elif near:
            kind, expected = "either", [own, boundary]
        else:
            kind, expected = "inside", [own]
        classes = label_sets[own].numpy()
        assert np.flatnonzero(target.sets[rules[index]][classes].any(0)).tolist() == expected
        met[kind] += 1
    assert all(met.values())


def test_the_slip_moves_image_and_labels_alike(place, monkeypatch):
    import numpy as np
    import torch

    monkeypatch.syspath_prepend(str(place))
    import my_parts

    from autoseg.augmentation.move_labels import move_codes
    from autoseg.augmentation.recipes import Recipe, draw_warp
    from autoseg.augmentation.warp import move_image

    codes = torch.zeros(8, 20, 20, dtype=torch.uint8)
    codes[:, 8:12, 8:12] = 1
    warp = draw_warp(Recipe((my_parts.Slip(probability=1),)), (8, 20, 20), np.random.default_rng(1))
    moved = move_codes(codes, warp, (3.5, 9.5, 9.5), (8, 20, 20), unknown=2, outside=2)
    image = move_image(codes[None].float(), warp, (3.5, 9.5, 9.5), (8, 20, 20))[0]
    assert not torch.equal(moved[0], moved[-1]) and torch.equal(moved[0], codes[0])
    assert ((image > 0.5) == (moved == 1)).float().mean() > 0.99


@pytest.mark.slow
def test_patches_of_another_store_are_those_of_the_cache(place, monkeypatch):
    import torch

    from autoseg import Dataset
    from autoseg.cases.cache import open_case
    from autoseg.planning.files import load_plan
    from autoseg.sampling.config import SamplingConfig
    from autoseg.sampling.loader import make_loader

    monkeypatch.syspath_prepend(str(place))
    import my_parts

    run(place, "plan_and_preprocess", "1", "-c", "2d", "--planner", "small", "-q")
    cache = place / "preprocessed" / "Dataset001_Toy"
    dataset = Dataset.load(place / "raw" / "Dataset001_Toy")
    configuration = load_plan(cache / "plans.json").configuration("2d")
    cases = [open_case(cache / "2d", name) for name in dataset.case_names]
    planes = [my_parts.split_into_planes(case, place / "planes" / case.name) for case in cases]
    sampling = SamplingConfig(min_annotated=0.1)
    mine, theirs = (
        list(make_loader(sources, configuration, sampling, None, labels=dataset.labels, start=0, stop=3, seed=1))
        for sources in (planes, [case.source for case in cases])
    )
    for one, other in zip(mine, theirs, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.codes, other.codes)
    (batch,) = my_parts.batches(place, "1", "2d", place / "more_planes", stop=1)
    assert batch.images.shape[2:] == configuration.patch_size
