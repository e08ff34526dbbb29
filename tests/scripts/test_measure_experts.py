from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from expert_labs import UNLABELLED, dice_of_masks, find_labs, fused, write_masks
from expert_run_table import LabScores, ModelRun, fusion_table, model_table, pair_table, verdict
from measure_experts import TITLES, Measurement, chosen_systems, finished_runs, held_out_of, lab_scores, run_once
from skimage.io import imsave

from autoseg.core.errors import ConfigError
from autoseg.io.images import read_labels
from autoseg.training.run_config import RunOptions

CASES = ("1", "2", "10")


@pytest.fixture
def data(tmp_path) -> Path:
    """One lab of three images; expert_a agrees with the truth, expert_b marks one of its two columns, c as a does."""
    folder = tmp_path / "data" / "lab"
    columns = {"est_GT": slice(2, 4), "expert_a": slice(2, 4), "expert_b": slice(3, 4), "expert_c": slice(2, 4)}
    for name in ("images", "ignored_regions", *(f"labels/{expert}" for expert in columns)):
        (folder / name).mkdir(parents=True)
    for case in CASES:
        imsave(folder / "images" / f"{case}.png", np.full((8, 8), 100, np.uint8), check_contrast=False)
        for name, where in columns.items():
            mask = np.zeros((8, 8), np.uint8)
            mask[:, where] = 255
            imsave(folder / "labels" / name / f"{case}_cell.png", mask, check_contrast=False)
        ignored = np.zeros((8, 8, 3), np.uint8)
        ignored[:2] = 255
        imsave(folder / "ignored_regions" / f"{case}_ignore.png", ignored, check_contrast=False)
    return folder.parent


def measurement_in(work: Path) -> Measurement:
    return Measurement(work, RunOptions("0", "2d", device="cpu", iterations=1), "small", 1, 1, None)


def test_single_experts_and_fused_masks_are_scored_outside_ignored_regions(data, tmp_path):
    (lab,) = find_labs(data, None)
    scores = lab_scores(measurement_in(tmp_path / "work"), lab)
    assert (lab.cases, scores.held_out) == (("1", "10", "2"), ("2",))
    assert scores.experts["expert_a"] == dict.fromkeys(CASES, 1.0)
    assert scores.experts["expert_b"] == dict.fromkeys(CASES, pytest.approx(2 / 3))
    assert scores.fused["majority"] == dict.fromkeys(CASES, 1.0)
    assert scores.undecided == {"staple": 0, "majority": 0, "sets": 0.5}
    assert scores.expert_scores() == [pytest.approx(2 / 3), 1.0, 1.0]


def test_a_prediction_in_an_ignored_region_costs_nothing(data, tmp_path):
    (lab,) = find_labs(data, None)
    write_masks(lab, tmp_path)
    values, geometry = read_labels(tmp_path / "truth" / "1.png")
    assert set(np.unique(values[:, :2])) == {UNLABELLED}
    assert geometry.ndim == 2
    assert dice_of_masks(tmp_path, tmp_path / "masks" / "expert_a", "a", ["1"]) == {"1": 1.0}


def test_sets_decide_nothing_where_experts_disagree_and_hold_out_the_last_images(data, tmp_path):
    (lab,) = find_labs(data, ["lab"])
    write_masks(lab, tmp_path)
    dataset = fused(lab, tmp_path, "sets", 902, held_out_of(lab, 1))
    assert '"val": [\n      "2"' in (dataset.folder / "splits_final.json").read_text()
    values, _ = read_labels(dataset.case("1").label)
    assert values[0, 5].tolist() == [0, 0, dataset.labels.ignore, 1, 0, 0, 0, 0]


def test_labs_that_do_not_fit_are_named(data, tmp_path):
    with pytest.raises(ConfigError, match="other"):
        find_labs(data, ["lab", "other"])
    with pytest.raises(ConfigError, match="no lab"):
        find_labs(tmp_path / "work", None)
    (lab,) = find_labs(data, None)
    with pytest.raises(ConfigError, match="--held-out 3"):
        held_out_of(lab, 3)
    (data / "lab" / "labels" / "expert_a" / "2_cell.png").unlink()
    with pytest.raises(ConfigError, match="no mask of 2"):
        write_masks(lab, tmp_path / "work")


def test_without_its_interpreter_nnunet_is_left_out_or_refused():
    assert chosen_systems(None, None) == ["staple", "sets"]
    assert chosen_systems(None, Path("python")) == [*TITLES]
    with pytest.raises(ConfigError, match="--nnunet-python"):
        chosen_systems(["nnunet"], None)
    with pytest.raises(ConfigError, match="found other"):
        chosen_systems(["other"], None)


def test_a_finished_run_is_scored_and_not_done_again(data, tmp_path, monkeypatch):
    (lab,) = find_labs(data, None)
    measurement = measurement_in(tmp_path)
    lab_scores(measurement, lab)
    folder = tmp_path / "lab" / "runs" / "staple_seed1"
    (folder / "predictions").mkdir(parents=True)
    (folder / "result.json").write_text('{"processor_seconds": 2}')
    predicted = np.zeros((8, 8), np.uint8)
    predicted[:, 3] = 1  # half of the truth, and all that the experts agree on
    imsave(folder / "predictions" / "2.png", predicted, check_contrast=False)
    monkeypatch.setattr("measure_experts.run_autoseg", lambda *_: pytest.fail("trained again"))
    run = run_once(measurement, lab, "staple", 1)
    assert (run.dice, run.agreed, run.size) == ({"2": pytest.approx(2 / 3)}, {"2": 1.0}, {"2": 0.5})
    assert finished_runs(measurement, lab) == [run]


SCORES = LabScores(
    "lab",
    {"staple": {"1": 1.0, "2": 0.5}},
    {"a": {"1": 0.2, "2": 0.6}, "b": {"1": 0.9, "2": 0.8}},
    {"staple": 0.0, "sets": 1.25},
    ("2",),
)


def test_the_first_table_has_mean_and_smallest_dice_over_all_images():
    assert fusion_table([SCORES]).splitlines()[-1] == "| lab | 2 | 2 | 0.7500, 0.5000 | 0.400 to 0.850 | 0.00, 1.25 |"


def test_models_are_compared_with_experts_on_the_held_out_images():
    scores = [(1, 0.6), (2, 0.7), (3, 0.9)]
    runs = [ModelRun("lab", "staple", seed, 60.0, {"2": dice}, {"2": dice + 0.1}, {"2": 1.5}) for seed, dice in scores]
    row = model_table([SCORES], runs, {"staple": "ours", "sets": "other"}).splitlines()[-1]
    numbers = "0.700 (0.600 to 0.900) | 0.875 | between | 0.800 | 1.50 | 60"
    assert row == f"| lab | 0.600, 0.700, 0.800 | ours | 1, 2, 3 | {numbers} |"
    assert [verdict(score, [0.6, 0.8]) for score in (0.5, 0.6, 0.8, 0.9)] == [
        "below the worst", "between", "between", "above the best",
    ]  # fmt: skip


def test_pairs_have_the_same_lab_and_seed():
    runs = [
        ModelRun("lab", "staple", 1, 1.0, {"2": 0.5}, {}, {}),
        ModelRun("lab", "staple", 2, 1.0, {"2": 0.5}, {}, {}),
        ModelRun("lab", "sets", 1, 1.0, {"2": 0.6}, {}, {}),
        ModelRun("lab", "sets", 3, 1.0, {"2": 0.0}, {}, {}),
    ]
    table = pair_table(runs, "staple", {"staple": "ours", "sets": "sets"})
    assert table.splitlines()[2:] == ["| sets | 1 | +0.100 (+0.100 to +0.100) | 1.200 | 1, 0 |"]
