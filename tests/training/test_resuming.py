"""Messages after a training that ended with an error, and the run that goes on."""

from __future__ import annotations

import pytest

from autoseg.core.errors import StorageError, TrainingError
from autoseg.training.config import TrainingConfig
from autoseg.training.resuming import find_run, way_on
from autoseg.training.run_checkpoints import LATEST, PREVIOUS


@pytest.mark.parametrize("error", [TrainingError("the loss is nan"), StorageError("no room")])
def test_a_loss_of_the_user_is_named_where_the_loss_is_no_longer_a_number(tmp_path, error):
    config = TrainingConfig(iterations=10)
    own, built_in = (
        way_on(error, tmp_path, each, " ".join, "autoseg_train 1 0")
        for each in (config.model_copy(update={"loss": "my_parts:Loss"}), config)
    )
    assert own.endswith(built_in) and "my_parts" not in built_in
    assert own.startswith("Check your loss 'my_parts:Loss' first.") == isinstance(error, TrainingError)


@pytest.mark.parametrize("checkpoint", [LATEST, PREVIOUS])
def test_a_run_that_was_killed_in_a_save_is_still_the_one_to_resume(tmp_path, checkpoint):
    """Without hard links there is a moment in which only the previous checkpoint is there."""
    folder = tmp_path / "mine__3d_fullres" / "fold_0"
    folder.mkdir(parents=True)
    (folder / checkpoint).touch()
    assert find_run(tmp_path, "0", None, None) == ("mine", "3d_fullres")
    assert find_run(tmp_path, "1", None, None) is None
