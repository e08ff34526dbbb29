from __future__ import annotations

import pytest

from autoseg.augmentation.misalignment import MisAlignment
from autoseg.augmentation.turn import Turn
from autoseg.core.config_levels import Resolved, value_text
from autoseg.core.errors import ConfigError
from autoseg.sampling.config import SamplingConfig
from autoseg.training.config import TrainingConfig, resolve_config
from autoseg.training.monitoring import parse_duration


def test_assignments_win_over_flags_and_types_are_converted():
    given = ["iterations=7", "mirror=false", "learning_rate=none", "optimizer=sgd"]
    config = resolve_config({"iterations": 100, "seed": 1}, given).config
    assert (config.iterations, config.seed, config.augmentation.mirror) == (7, 1, False)
    assert (config.optimizer.learning_rate, config.optimizer.name) == (None, "sgd")


@pytest.mark.parametrize(
    ("text", "names"), [("a", ("a",)), ("case_1, case_2", ("case_1", "case_2")), ("", ())], ids=repr
)
def test_cases_of_the_previews_are_assigned_with_commas(text, names):
    assert resolve_config({}, [f"preview_cases={text}"]).config.monitoring.preview_cases == names


def test_every_default_can_be_assigned_as_it_is_printed():
    """Also what is a list, or empty: ``--show-config`` shows nothing that ``--set`` does not read."""
    rows = [(key, value_text(value)) for key, value, _ in Resolved(TrainingConfig(), {}).rows()]
    given = [f"{key}={text.strip(chr(34))}" for key, text in rows]
    assert resolve_config({}, given).config == TrainingConfig()


def test_short_runs_still_have_ten_epochs_and_long_ones_nnunets():
    assert resolve_config({"iterations": 100}).config.iterations_per_epoch == 10
    assert resolve_config({"iterations": 3}).config.iterations_per_epoch == 1
    assert resolve_config({}).config == TrainingConfig()
    assert resolve_config({"iterations": 100}, ["iterations_per_epoch=50"]).config.iterations_per_epoch == 50


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("learning_rat=1", "--set: learning_rat = '1': .*optimizer.learning_rate"),
        ("n_steps=5", r"--set: n_steps = '5': no such setting.* Write iterations\."),
        ("LR_decay=0.9", r"Write optimizer\.decay_per_1000\."),
        ("nof_filters=8", r"Write network\.features\."),
        ("seed", "--set seed: expected KEY=VALUE"),
        ("seed=-1", "--set: seed = '-1'"),
        ("forced_fraction=2", "--set: sampling.forced_fraction = '2'"),
        ("precision=half", "--set: precision = 'half'"),
        ("optimizer.table=1:2:3", "optimizer.table=1:2:3: expected STEP:RATE"),
    ],
)
def test_wrong_settings_are_named(assignment, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config({}, [assignment])


def test_a_short_key_is_the_setting_of_that_name_in_its_group():
    sampling = resolve_config({"context_fraction": 0.7}, ["forced_fraction=0.5", "max_attempts=3"]).config.sampling
    assert sampling == SamplingConfig(forced_fraction=0.5, context_fraction=0.7, max_attempts=3)


def test_cases_of_previews_are_listed_with_commas():
    for text, names in (("case_1", ("case_1",)), ("case_1, case_2", ("case_1", "case_2"))):
        assert resolve_config({}, [f"preview_cases={text}"]).config.monitoring.preview_cases == names


def test_settings_without_groups_as_earlier_versions_wrote_them_are_read():
    config = TrainingConfig.model_validate(
        {"seed": 3, "optimizer": "sgd", "learning_rate": 0.5, "augmentation": "none", "teacher_weight": 0.1}
    )
    assert (config.seed, config.optimizer.name, config.optimizer.learning_rate) == (3, "sgd", 0.5)
    assert (config.augmentation.name, config.evidence.teacher_weight) == ("none", 0.1)
    assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config
    assert TrainingConfig.model_validate(config.flat()) == config


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        resolve_config({}, ["seed=-1", "batch_size=0"])
    assert "seed" in str(caught.value)
    assert "batch_size" in str(caught.value)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0s", "8", "5 years"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match="--max-runtime: found"):
        parse_duration(text)


def test_settings_of_time_are_read_as_they_are_printed():
    for text in ("90", "90.0", "1.5m"):
        assert resolve_config({}, [f"max_runtime={text}"]).config.max_runtime == 90


def test_what_is_inferred_needs_annotation_to_be_checked_on():
    with pytest.raises(ConfigError, match="held_out_fraction = 0"):
        resolve_config({"background_prior": 0.5}, ["held_out_fraction=0"])
    assert resolve_config({}, ["held_out_fraction=0"]).config.evidence.held_out_fraction == 0


def test_operations_of_em_are_settings_one_by_one():
    set_ = ["augmentation=em", "augmentation.misalignment.enabled=false", "augmentation.misalignment.displacement=8"]
    augmentation = resolve_config({}, [*set_, "flip.axes=1,2", "grayscale.mode=2D"]).config.augmentation
    assert augmentation.name == "em" and augmentation.rotate == Turn()
    assert augmentation.misalignment == MisAlignment(enabled=False, displacement=8)
    assert augmentation.flip.axes == (1, 2) and augmentation.grayscale.mode == "2D"
    assert not augmentation.copy_paste.enabled and not augmentation.mixup.enabled


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["misalignment.displacement=8"], "only the recipe em has this operation, found the recipe nnunet"),
        (["augmentation=em", "augmentation.misalignment=false"], r"Write augmentation\.misalignment\.enabled"),
        (["augmentation=em", "augmentation.misalignement.enabled=false"], r"Write augmentation\.misalignment\.enabled"),
        (["augmentation=em", "rescale.low=2"], r"augmentation\.rescale: low 2, high 1\.25: expected low <= high"),
        (["augmentation=em", "motion_blur.kernel_size=4"], "expected an odd number"),
        (["augmentation=em", "cut_noise.probability=2"], "less than or equal to 1"),
        (["augmentation=em", "elastic.enabled=perhaps"], "valid boolean"),
        (["augmentation=em", "flip.axes=3"], "less than or equal to 2"),
    ],
)
def test_wrong_settings_of_operations_are_named(assignments, message):
    with pytest.raises(ConfigError, match=message):
        resolve_config({}, assignments)


def test_operations_of_em_are_unused_by_other_recipes():
    assert TrainingConfig().unused[0] == "augmentation.rotate.enabled"
    assert not {"augmentation.name", "augmentation.mirror"} & set(TrainingConfig().unused)
    assert resolve_config({}, ["augmentation=em"]).config.unused == ()
