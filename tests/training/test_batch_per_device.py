from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from autoseg.core.errors import ConfigError
from autoseg.core.ranks import Ranks
from autoseg.dataset.dataset import Dataset
from autoseg.sampling.loader import share_of_batch
from autoseg.training.batches import batch_size, training_batches
from autoseg.training.fold import train_fold
from autoseg.training.optim import optimizer_settings
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions


@pytest.fixture
def request_of(toy_folder, toy_workspace, tmp_path):
    def make(*settings: str, **options):
        fixed = ("precision=float32", "validation_iterations=1", "batch_picture=0", "batch_size=3")
        run = RunOptions(
            "0", name=tmp_path.name, iterations=1, settings=(*fixed, *settings), workers=0, device="cpu", **options
        )
        return prepare_fold(toy_workspace, Dataset.load(toy_folder), run)

    return make


def test_the_batch_is_that_of_all_devices_unless_it_is_per_device(request_of):
    assert batch_size(request_of(devices=4)) == 3
    with pytest.raises(ConfigError, match="batch_size=4"):
        share_of_batch(batch_size(request_of(devices=4)), Ranks(size=4))
    per_device = request_of("batch_per_device=true", devices=4)
    assert batch_size(per_device) == 12
    assert [len(share_of_batch(12, Ranks(rank, 4))) for rank in range(4)] == [3, 3, 3, 3]
    assert batch_size(request_of("batch_per_device=true")) == 3


def test_each_rank_builds_a_whole_batch_of_its_own(request_of):
    request = replace(request_of("batch_per_device=true", devices=2), ranks=Ranks(1, 2))
    batch = next(training_batches(request, torch.device("cpu"), 0))
    assert len(batch.images) == 3


def test_the_learning_rate_does_not_follow_the_batch(request_of):
    one, four = request_of(devices=4), request_of("batch_per_device=true", devices=4)
    rates = [optimizer_settings(each.config.optimizer, 100).learning_rate for each in (one, four)]
    assert rates[0] == rates[1]


@pytest.mark.slow
def test_a_run_keeps_its_batch_when_it_goes_on_with_another_number_of_devices(request_of):
    train_fold(request_of("batch_per_device=true", devices=2))
    again = request_of("batch_per_device=true", devices=1, resume=True)
    assert batch_size(again) == 6
    assert train_fold(again, resume=True).is_finished
