from __future__ import annotations

import numpy as np
import pytest
from measure_seeds import N_MEMBERS, drawn_cases, members_of, training_set
from scipy import stats
from seed_scores import (
    Calibration,
    calibration,
    correlation_interval,
    entropy,
    markdown,
    mean_dice,
    rank_correlation,
    score_case,
)
from toy import write_toy_dataset

from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import Dataset
from autoseg.training.run_config import RunOptions


def one_hot(classes: np.ndarray, n_classes: int = 3) -> np.ndarray:
    return (np.arange(n_classes).reshape(-1, *[1] * classes.ndim) == classes).astype(np.float32)


def test_calibration_error_is_the_gap_between_confidence_and_right_voxels():
    probabilities = np.tile([[0.9], [0.1]], 10)
    reference = np.array([0] * 6 + [1] * 4)
    assert calibration(probabilities, reference).error == pytest.approx(0.3)
    assert calibration(one_hot(reference, 2), reference).error == 0
    assert calibration(probabilities, reference).mean_log_loss == pytest.approx(-0.6 * np.log(0.9) - 0.4 * np.log(0.1))


def test_calibration_of_parts_adds_up_to_that_of_the_whole():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 200).T
    reference = rng.integers(0, 3, 200)
    parts: Calibration = calibration(probabilities[:, :70], reference[:70]) + calibration(
        probabilities[:, 70:], reference[70:]
    )
    whole = calibration(probabilities, reference)
    assert parts.error == pytest.approx(whole.error)
    assert parts.mean_log_loss == pytest.approx(whole.mean_log_loss)


@pytest.mark.parametrize("shape", [(1, 6, 6), (4, 6, 6)], ids=["2d", "3d"])
def test_sure_members_that_agree_have_perfect_estimates(shape):
    classes = np.zeros(shape, dtype=np.uint8)
    classes[..., 1:3, 1:3], classes[..., 4, 4] = 1, 2
    scores = score_case([one_hot(classes)] * 3, classes)
    assert scores.dice == 1
    assert scores.estimates == {"pairs": 1.0, "soft_dice": 1.0, "entropy": 0.0, "information": 0.0}
    assert (scores.everywhere.error, scores.near.error) == (0, 0)


def test_disagreement_is_information_and_doubt_of_all_members_is_not():
    classes = np.ones((1, 1, 2), dtype=np.uint8)
    one, other = one_hot(classes, 2), one_hot(np.array([[[1, 0]]]), 2)
    assert score_case([one, other], classes).estimates["information"] == pytest.approx(-np.log(2))  # one voxel of two
    doubt = np.full((2, 1, 1, 2), 0.5)
    doubt[1] += 1e-6
    estimates = score_case([doubt, doubt], classes).estimates
    assert estimates["entropy"] == pytest.approx(-np.log(2), rel=1e-4)
    assert estimates["information"] == pytest.approx(0, abs=1e-9)
    assert entropy(one)[0, 0].tolist() == [0, 0]


def test_a_case_without_foreground_has_no_dice_and_no_estimate():
    scores = score_case([one_hot(np.zeros((1, 4, 4), dtype=np.uint8))] * 2, np.zeros((1, 4, 4), dtype=np.uint8))
    assert np.isnan([scores.dice, *scores.estimates.values()]).all()
    assert scores.near.error == 0


def test_dice_is_the_mean_over_classes_that_are_there():
    assert mean_dice(np.array([1, 1, 0]), np.array([1, 0, 0]), 3) == pytest.approx(2 / 3)
    assert mean_dice(np.array([1, 2]), np.array([1, 0]), 3) == 0.5


def test_rank_correlation_is_spearmans_with_ties_and_without_undefined_cases():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 6, 30).astype(float), rng.random(30)
    value = rank_correlation([*one, np.nan], [*other, 0.5])
    assert value == pytest.approx(stats.spearmanr(one, other).statistic)
    low, high = correlation_interval([*one, np.nan], [*other, 0.5])
    assert low < value < high
    assert np.isnan([rank_correlation([1, 1, 1], [1, 2, 3]), *correlation_interval([1, 1, 1], [1, 2, 3])]).all()
    assert np.isnan([rank_correlation([1, 2], [1, 2]), *correlation_interval([], [])]).all()


def test_the_table_shows_medians_of_single_members_and_intervals_of_ensembles():
    rng = np.random.default_rng(2)
    classes = rng.integers(0, 3, (6, 1, 8, 8))
    members = [0.7 * one_hot(rng.integers(0, 3, classes.shape)) + 0.1 for _ in range(2)]
    together = [score_case([member[:, i] for member in members], classes[i]) for i in range(len(classes))]
    singles = [[score_case([member[:, i]], classes[i]) for i in range(len(classes))] for member in members]
    table = markdown({"one": singles, "both": [together]}).splitlines()
    assert table[2].split(" | ")[5] == "-"  # a single member has no pairs
    assert " to " in table[3].split(" | ")[5]


def test_training_and_test_cases_are_disjoint_and_linked(tmp_path):
    source = Dataset.load(write_toy_dataset(tmp_path / "Dataset900_Dense", n_cases=8, sparse=False))
    training, test = drawn_cases(source, 5, 3, seed=1)
    assert not {*training} & {*test}
    assert len({*training} | {*test}) == 8
    assert training_set(source, training, tmp_path / "new").case_names == tuple(training)
    with pytest.raises(ConfigError, match="found 8 cases, expected 9"):
        drawn_cases(source, 5, 4, seed=1)


def test_seeds_train_on_all_cases_and_folds_share_a_seed():
    members = members_of(RunOptions("all", "2d", iterations=1, seed=1))
    assert [(run.fold, run.seed, run.name) for run in members["seeds"]] == [
        ("all", 1 + k, f"seed{1 + k}") for k in range(N_MEMBERS)
    ]
    assert [(run.fold, run.seed, run.name) for run in members["folds"]] == [
        (str(k), 1, "folds") for k in range(N_MEMBERS)
    ]
