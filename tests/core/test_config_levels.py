from __future__ import annotations

import pytest
from pydantic import BaseModel, Field, model_validator

from autoseg.core.config_levels import (
    Level,
    assignment_level,
    file_level,
    leaf_keys,
    matching_keys,
    resolve_levels,
    user_file,
    value_text,
)
from autoseg.core.errors import ConfigError


class Optimizer(BaseModel, extra="forbid"):
    name: str = "auto"
    learning_rate: float | None = Field(default=None, gt=0)


class Monitor(BaseModel, extra="forbid"):
    every: int = 10
    name: str = "plain"


class Range(BaseModel, extra="forbid"):
    low: int = 0
    high: int = 9

    @model_validator(mode="after")
    def _check(self):
        if self.low > self.high:
            raise ValueError("low is above high. Exchange them")
        return self


class Settings(BaseModel, extra="forbid"):
    seed: int = Field(default=0, ge=0)
    optimizer: Optimizer = Optimizer()
    monitor: Monitor = Monitor()
    range: Range = Range()


def resolved(*levels):
    return resolve_levels(Settings, levels)


def test_a_later_level_wins_key_by_key_and_each_value_knows_its_level():
    result = resolved(
        Level("user.toml", {"optimizer.learning_rate": 0.1, "seed": 3}), Level("run.toml", {"optimizer.name": "sgd"}),
        Level("--set", {"learning_rate": "0.5"}),
    )  # fmt: skip
    assert list(result.rows()) == [
        ("seed", 3, "user.toml"),
        ("optimizer.name", "sgd", "run.toml"),
        ("optimizer.learning_rate", 0.5, "--set"),
        ("monitor.every", 10, "default"),
        ("monitor.name", "plain", "default"),
        ("range.low", 0, "default"),
        ("range.high", 9, "default"),
    ]


def test_a_short_key_means_the_one_setting_that_ends_with_it():
    keys = leaf_keys(Settings)
    assert matching_keys("learning_rate", keys) == ["optimizer.learning_rate"]
    assert matching_keys("optimizer", keys) == ["optimizer.name"]
    assert matching_keys("name", keys) == ["optimizer.name", "monitor.name"]
    assert matching_keys("rate", keys) == []


def test_all_faults_are_named_at_once_with_their_level_and_the_nearest_key():
    with pytest.raises(ConfigError) as error:
        resolved(Level("user.toml", {"optimiser.lerning_rate": 1}), Level("--set", {"seed": -1, "name": "x"}))
    unknown, ambiguous, negative = str(error.value).splitlines()
    assert unknown.startswith("user.toml: optimiser.lerning_rate") and "optimizer.learning_rate" in unknown
    assert "optimizer.name" in ambiguous and "monitor.name" in ambiguous
    assert negative.startswith("--set: seed = -1: ")


def test_none_is_written_where_a_setting_may_be_none():
    level = assignment_level(["learning_rate=none", "monitor.name=none"], Settings)
    assert level.values == {"learning_rate": None, "monitor.name": "none"}
    with pytest.raises(ConfigError, match="--set seed: expected KEY=VALUE"):
        assignment_level(["seed"], Settings)


def test_a_toml_file_is_a_level_named_by_its_path(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('seed = 7\n[optimizer]\nname = "adamw"\n', encoding="utf-8")
    result = resolved(file_level(path))
    assert (result.config.seed, result.config.optimizer.name) == (7, "adamw")
    assert result.origins["optimizer.name"] == str(path)
    path.write_text("seed = __import__('os')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"run\.toml: is not valid TOML"):
        file_level(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        file_level(tmp_path / "other.toml")


def test_the_users_file_is_the_variable_or_lies_in_the_home_folder(tmp_path):
    assert user_file({"HOME": str(tmp_path)}) is None
    path = tmp_path / ".config" / "autoseg" / "config.toml"
    path.parent.mkdir(parents=True)
    path.touch()
    assert user_file({"HOME": str(tmp_path)}) == path
    assert user_file({"HOME": str(tmp_path), "AUTOSEG_CONFIG": "elsewhere.toml"}).name == "elsewhere.toml"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "none"), (True, "true"), (0.5, "0.5"), ("sgd", "sgd"), ((1, 2), "1,2"), ((), '""'), ({"a": 2}, "a=2"),
     (((3, 0.1), (5, 0.01)), "3:0.1,5:0.01")],
)  # fmt: skip
def test_a_value_is_printed_as_it_is_assigned(value, text):
    assert value_text(value) == text


def test_settings_that_disagree_are_named_with_the_levels_that_set_them():
    with pytest.raises(ConfigError) as caught:
        resolved(Level("run.toml", {"range.low": 5, "seed": 1}), Level("--set", {"range.high": 2}))
    assert str(caught.value) == "run.toml and --set: range: low is above high. Exchange them."
