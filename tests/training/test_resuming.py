"""Messages after a training that ended with an error."""

from __future__ import annotations

import pytest

from autoseg.core.errors import StorageError, TrainingError
from autoseg.training.config import TrainingConfig
from autoseg.training.resuming import way_on


@pytest.mark.parametrize("error", [TrainingError("the loss is nan"), StorageError("no room")])
def test_a_loss_of_the_user_is_named_where_the_loss_is_no_longer_a_number(tmp_path, error):
    config = TrainingConfig(iterations=10)
    own, built_in = (
        way_on(error, tmp_path, each, " ".join, "autoseg_train 1 0")
        for each in (config.model_copy(update={"loss": "my_parts:Loss"}), config)
    )
    assert own.endswith(built_in) and "my_parts" not in built_in
    assert own.startswith("Check your loss 'my_parts:Loss' first.") == isinstance(error, TrainingError)
