"""Several real processes train as one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing
from toy import IGNORE, write_toy_dataset

from autoseg.core.geometry import Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.nn.ranks import current_ranks, end_process_group
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.request import FoldRequest
from autoseg.training.run_checkpoints import FINAL, LATEST
from autoseg.training.run_config import RunOptions
from autoseg.training.validation import predict_validation, score_validation, validate_fold

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available(), reason="torch without torch.distributed"),
]
SETTINGS = (
    "precision=float32", "optimizer=sgd", "iterations_per_epoch=4", "validation_iterations=2", "background_prior=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory, toy_preparation) -> tuple[Path, Path]:
    """Folder and workspace of a data set of which every second case has ten annotated voxels only."""
    root = tmp_path_factory.mktemp("ranks")
    folder = write_toy_dataset(root / "raw" / "Dataset001_Unequal", n_cases=6)
    for path in sorted((folder / "labelsTr").iterdir())[::2]:
        labels, geometry = read_labels(path)
        annotated = np.flatnonzero(labels != IGNORE)
        kept = np.concatenate([annotated[labels.flat[annotated] == k][:n] for k, n in ((0, 4), (1, 3), (2, 3))])
        sparse = np.full_like(labels, IGNORE)
        sparse.flat[kept] = labels.flat[kept]
        write_labels(path, sparse.astype(np.uint8), Geometry(spacing=geometry.spacing, ndim=3))
    toy_preparation(Dataset.load(folder), Workspace(root))
    return folder, root


def request_of(data: tuple[Path, Path], folder: Path, settings: tuple[str, ...], iterations: int = 10) -> FoldRequest:
    torch.set_num_threads(1)
    options = RunOptions(
        "0", iterations=iterations, settings=(*SETTINGS, *settings), workers=0, device="cpu"
    )  # fmt: skip
    return replace(prepare_fold(Workspace(data[1]), Dataset.load(data[0]), options), folder=folder / "fold_0")


def train_as_rank(rank, size, data, folder, settings, stops) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}.meeting", rank=rank, world_size=size)
    request = replace(request_of(data, folder, settings), ranks=current_ranks())
    result = train_fold(request, should_stop=lambda: stops and rank == 1)
    if result.is_finished:
        predict_validation(request)
        if rank == 0:
            score_validation(request)
    end_process_group()


def train_together(size: int, data, folder: Path, *settings: str, stops: bool = False) -> None:
    multiprocessing.spawn(train_as_rank, (size, data, folder, settings, stops), nprocs=size)


def difference(one: Path, other: Path) -> float:
    mine, theirs = (load_checkpoint(folder / "fold_0" / FINAL).weights for folder in (one, other))
    assert mine.keys() == theirs.keys()
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "fold_0" / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        (2, ("batch_size=2", "class_weights=0.5,1,5")),
        (3, ("batch_size=4", "teacher_weight=0.5", "teacher_start=0.2", "teacher_confidence=0.51")),
    ],
    ids=["two ranks, class weights", "three ranks, four samples, a teacher"],
)
def test_ten_steps_of_several_processes_are_those_of_one(data, tmp_path, size, settings):
    train_together(size, data, tmp_path / "together", *settings)
    alone = request_of(data, tmp_path / "alone", settings)
    train_fold(alone)
    validate_fold(alone)
    fresh = request_of(data, tmp_path / "fresh", settings, iterations=1)
    train_fold(fresh)
    assert difference(tmp_path / "alone", tmp_path / "together") < 1e-5
    assert difference(tmp_path / "alone", tmp_path / "fresh") > 1e-3
    for mine, theirs in zip(history(tmp_path / "alone"), history(tmp_path / "together"), strict=True):
        for key in ("iteration", "train_loss", "validation_loss", "dice", "dice_smooth"):
            assert mine[key] == pytest.approx(theirs[key], abs=1e-4), key
    predictions = [
        sorted(path.name for path in (tmp_path / name / "fold_0" / "validation").iterdir())
        for name in ("alone", "together")
    ]
    assert predictions[0] == predictions[1] and "summary.json" in predictions[0]


def test_a_run_of_two_processes_that_one_of_them_stops_goes_on_in_one(data, tmp_path):
    train_together(2, data, tmp_path / "together", stops=True)
    stopped = load_checkpoint(tmp_path / "together" / "fold_0" / LATEST)
    assert stopped.state["progress"]["iteration"] == 4  # the first time they ask each other
    assert train_fold(request_of(data, tmp_path / "together", ()), resume=True).is_finished
    train_fold(request_of(data, tmp_path / "alone", ()))
    assert difference(tmp_path / "alone", tmp_path / "together") < 1e-5
