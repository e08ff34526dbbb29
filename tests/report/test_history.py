from __future__ import annotations

import json

import pytest

from autoseg.report.history import EpochRecord, dice_name, draw_history, write_history
from autoseg.training.progress import SMOOTHING, smoothed


def record(**more):
    return EpochRecord(
        epoch=1, iteration=5, train_loss=1.0, validation_loss=None, dice=0.5, dice_per_head={"a": None},
        dice_smooth=0.5, learning_rate=0.1, seconds=1.0, **more,
    )  # fmt: skip


def test_the_online_dice_of_sparse_data_says_so():
    assert dice_name(record(scored_on="annotated voxels")) == "Dice (annotated voxels)"
    assert dice_name(record(scored_on="dense")) == "Dice"


def test_a_record_of_an_earlier_version_claims_no_more_than_annotated_voxels():
    assert record().scored_on == "annotated voxels"


@pytest.mark.parametrize(("kind", "label"), [("dense", "Dice"), ("annotated voxels", "Dice (annotated voxels)")])
def test_lines_and_picture_carry_the_name(tmp_path, monkeypatch, kind, label):
    labels = []
    monkeypatch.setattr("matplotlib.axes.Axes.set", lambda axes, **given: labels.append(given.get("ylabel")))
    draw_history(tmp_path / "progress.png", [record(scored_on=kind)])
    write_history(tmp_path / "history.jsonl", [record(scored_on=kind)])
    assert label in labels
    assert json.loads((tmp_path / "history.jsonl").read_text())["scored_on"] == kind


def test_a_run_without_an_epoch_is_drawn(tmp_path):
    draw_history(tmp_path / "progress.png", [])
    assert (tmp_path / "progress.png").stat().st_size > 0


def test_the_smoothed_loss_is_the_plain_mean_first_and_then_forgets():
    value, losses = None, [float(step) for step in range(100)]
    for step, loss in enumerate(losses):
        value = smoothed(value, loss, step)
    assert value == pytest.approx(sum(losses) / 100)
    assert smoothed(2.0, 1.0, 5000) == pytest.approx(SMOOTHING * 2 + (1 - SMOOTHING))
