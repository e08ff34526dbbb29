"""Statistics that hardly move are kept, and small steps do not add up."""

from __future__ import annotations

import pytest
from toy import write_toy_dataset

from autoseg.core.fingerprint import IntensityProperties
from autoseg.dataset.dataset import Dataset
from autoseg.planning import extract_fingerprint, plan
from autoseg.planning.keep_statistics import keep_intensities

BEFORE = IntensityProperties(mean=50, median=50, std=20, min=-10, max=300, percentile_99_5=110, percentile_00_5=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes a plan with given statistics."""
    dataset = Dataset.load(write_toy_dataset(tmp_path_factory.mktemp("toy") / "Dataset900_Toy", n_cases=2))
    fingerprint = extract_fingerprint(dataset)

    def make(**changes) -> object:
        changed = {"0": BEFORE.model_copy(update=changes)}
        update = {"foreground_intensity_properties_per_channel": changed}
        return plan(dataset, fingerprint.model_copy(update=update), "small")

    return make


@pytest.mark.parametrize("name", ["mean", "std", "percentile_00_5", "percentile_99_5"])
def test_a_shift_of_a_twentieth_of_the_deviation_is_the_most_that_is_overlooked(made, name):
    former = made()
    near, far = (made(**{name: getattr(BEFORE, name) + shift}) for shift in (0.99, -1.01))
    assert keep_intensities(near, former) == former
    assert keep_intensities(far, former) == far


def test_extremes_do_not_matter_since_nothing_is_scaled_by_them(made):
    assert keep_intensities(made(max=3000, min=-1000, median=49), made()) == made()


def test_small_steps_do_not_add_up(made):
    kept = made()
    for mean in (50.4, 50.8):
        kept = keep_intensities(made(mean=mean), kept)
        assert kept.intensities[0].mean == 50
    assert keep_intensities(made(mean=51.2), kept).intensities[0].mean == 51.2


def test_without_a_former_plan_or_with_other_channels_nothing_is_kept(made):
    planned = made(mean=50.1)
    assert keep_intensities(planned, None) is planned
    other = made().model_copy(update={"channel_names": ("another",)})
    assert keep_intensities(planned, other) is planned
