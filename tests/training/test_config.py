from __future__ import annotations

import pytest

from autoseg.core.errors import ConfigError
from autoseg.sampling.config import SamplingConfig
from autoseg.training.config import TrainingConfig, parse_duration, resolve_config


def test_assignments_win_over_flags_and_types_are_converted():
    config = resolve_config({"iterations": 100, "seed": 1}, ["iterations=7", "mirror=false", "learning_rate=none"])
    assert (config.iterations, config.seed, config.mirror, config.learning_rate) == (7, 1, False, None)


def test_short_runs_still_have_ten_epochs_and_long_ones_nnunets():
    assert resolve_config({"iterations": 100}).iterations_per_epoch == 10
    assert resolve_config({"iterations": 3}).iterations_per_epoch == 1
    assert resolve_config({}) == TrainingConfig()
    assert resolve_config({"iterations": 100}, ["iterations_per_epoch=50"]).iterations_per_epoch == 50


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learning_rat=1", "--set learning_rat=1: expected key=value with key one of .*iterations"),
        ("seed", "--set seed: expected key=value"),
        ("seed=-1", "--set seed: found '-1'"),
        ("forced_fraction=2", "--set forced_fraction: found '2'"),
        ("precision=half", "--set precision: found 'half'"),
    ],
)
def test_wrong_settings_are_named(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config({}, [assignment])


def test_settings_of_sampling_are_settings_of_the_run():
    config = resolve_config({"context_fraction": 0.7}, ["forced_fraction=0.5", "max_attempts=3"])
    assert isinstance(config, SamplingConfig)
    assert (config.forced_fraction, config.context_fraction, config.max_attempts) == (0.5, 0.7, 3)
    assert config.model_dump()["forced_fraction"] == 0.5


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        resolve_config({}, ["seed=-1", "batch_size=0"])
    assert "seed" in str(caught.value)
    assert "batch_size" in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 years"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match="--max-runtime: found"):
        parse_duration(text)


def test_what_is_inferred_needs_annotation_to_be_checked_on():
    with pytest.raises(ConfigError, match="held_out_fraction=0: found nothing held out"):
        resolve_config({"background_prior": 0.5}, ["held_out_fraction=0"])
    assert resolve_config({}, ["held_out_fraction=0"]).held_out_fraction == 0
