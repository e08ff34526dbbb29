"""Several real processes train a regression as one, and a resumed run is the one that was not stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from regression import write_regression
from torch import distributed, multiprocessing

from autoseg.core.geometry import Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_image, write_values
from autoseg.nn.checkpoint import load_checkpoint
from autoseg.nn.ranks import current_ranks, end_process_group
from autoseg.training.case_preview import draw_previews
from autoseg.training.fold import build_parts, train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.preview import preview_patches
from autoseg.training.request import FoldRequest
from autoseg.training.run_checkpoints import FINAL
from autoseg.training.run_config import RunOptions

pytestmark = pytest.mark.slow
SETTINGS = ("precision=float32", "optimizer=sgd", "iterations_per_epoch=4", "validation_iterations=2")


@pytest.fixture(scope="module")
def data(tmp_path_factory, toy_preparation) -> tuple[Path, Path]:
    """Folder and workspace of a regression of which every second case has five known voxels only."""
    root = tmp_path_factory.mktemp("numbers")
    folder = write_regression(root / "raw" / "Dataset001_Depth", n_test=0)
    for path in sorted((folder / "labelsTr").iterdir())[::2]:
        numbers, geometry = read_image([path])
        known = np.flatnonzero(np.isfinite(numbers) & (numbers > -900))[:5]
        sparse = np.full_like(numbers, np.nan)
        sparse.flat[known] = numbers.flat[known]
        write_values(path, sparse, Geometry(spacing=geometry.spacing))
    toy_preparation(Dataset.load(folder), Workspace(root))
    return folder, root


def request_of(data: tuple[Path, Path], folder: Path, *settings: str) -> FoldRequest:
    torch.set_num_threads(1)
    options = RunOptions("0", iterations=8, settings=(*SETTINGS, *settings), workers=0, device="cpu")
    return replace(prepare_fold(Workspace(data[1]), Dataset.load(data[0]), options), folder=folder / "fold_0")


def train_as_rank(rank, size, data, folder, settings) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}.meeting", rank=rank, world_size=size)
    train_fold(replace(request_of(data, folder, *settings), ranks=current_ranks()))
    end_process_group()


def difference(one: Path, other: Path) -> float:
    mine, theirs = (load_checkpoint(folder / "fold_0" / FINAL).weights for folder in (one, other))
    return max((mine[name] - theirs[name]).abs().max().item() for name in mine)


@pytest.mark.skipif(not distributed.is_available(), reason="torch without torch.distributed")
@pytest.mark.parametrize("loss", ["l2", "l1"])
def test_two_processes_have_the_weights_of_one(loss, data, tmp_path):
    settings = (f"loss={loss}",)
    train_fold(request_of(data, tmp_path / "one", *settings))
    multiprocessing.spawn(train_as_rank, (2, data, tmp_path / "two", settings), nprocs=2)
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-5


def test_a_stopped_and_resumed_run_has_the_weights_of_one_that_was_not(data, tmp_path):
    train_fold(request_of(data, tmp_path / "whole"))
    request, steps = request_of(data, tmp_path / "parts"), iter(range(100))
    train_fold(request, should_stop=lambda: next(steps) == 2)
    train_fold(request, resume=True)
    assert difference(tmp_path / "whole", tmp_path / "parts") == 0


def test_pictures_show_what_is_known_and_what_is_predicted(data, tmp_path):
    request = request_of(data, tmp_path)
    (picture,) = draw_previews(request, build_parts(request, "float32"), 3600)
    assert picture.is_file() and picture.parent.name == "previews"
    for view in preview_patches(request, 2):
        (numbers,) = view.numbers
        assert numbers.shape == view.codes.shape and np.isfinite(numbers).any() and np.isnan(numbers).any()


def test_nothing_learnt_depends_on_what_files_hold_where_nothing_is_known(data, tmp_path, toy_preparation):
    """The number that means unknown in one data set is NaN in the other."""
    folder = tmp_path / "raw" / "Dataset001_Depth"
    write_regression(folder, n_test=0)
    for path in sorted((folder / "labelsTr").iterdir()):
        numbers, geometry = read_image([data[0] / "labelsTr" / path.name])
        write_values(path, np.nan_to_num(numbers, nan=-999), geometry)
    toy_preparation(Dataset.load(folder), Workspace(tmp_path))
    train_fold(request_of(data, tmp_path / "nan"))
    train_fold(request_of((folder, tmp_path), tmp_path / "marked"))
    assert difference(tmp_path / "nan", tmp_path / "marked") == 0
