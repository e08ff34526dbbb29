from __future__ import annotations

import pytest

from autoseg.core import prediction_record
from autoseg.core.prediction_record import PREDICTION_FILE, read_prediction_record, record_prediction


def test_each_case_is_in_the_last_run_that_predicted_it(tmp_path):
    record_prediction(tmp_path, "first", "", {"a": [tmp_path / "a_0000.png"], "b": [tmp_path / "b_0000.png"]})
    record_prediction(tmp_path, "second", "", {"b": [tmp_path / "b_0000.png", tmp_path / "b_0001.png"]})
    record = read_prediction_record(tmp_path)
    assert [(run.model, [*run.images]) for run in record.runs] == [("first", ["a"]), ("second", ["b"])]
    assert record.images["b"] == (str(tmp_path / "b_0000.png"), str(tmp_path / "b_0001.png"))
    record_prediction(tmp_path, "third", "", {"a": [tmp_path / "a.png"]})
    assert [run.model for run in read_prediction_record(tmp_path).runs] == ["second", "third"]


def test_cases_of_another_model_or_of_other_images_are_named(tmp_path):
    images = {case: [tmp_path / f"{case}_0000.png"] for case in "ab"}
    record_prediction(tmp_path, "model", "", images)
    record = read_prediction_record(tmp_path)
    assert record.unlike("model", images) == () and record.unlike("other", images) == ("a", "b")
    assert record.unlike("model", {**images, "b": [tmp_path / "plate2" / "b_0000.png"]}) == ("b",)
    assert record.unlike("other", {"unrecorded": []}) == ()


def test_a_run_without_cases_is_no_run(tmp_path):
    record_prediction(tmp_path, "model", "", {})
    assert not [*tmp_path.iterdir()] and not read_prediction_record(tmp_path).runs


@pytest.mark.parametrize("content", ["", "[]", '{"runs": [{"command": 1}]}'])
def test_a_record_that_cannot_be_read_counts_as_none(tmp_path, content):
    (tmp_path / PREDICTION_FILE).write_text(content)
    assert not read_prediction_record(tmp_path).runs


def test_a_killed_process_keeps_no_other_from_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_record, "LOCK_S", 0.05)
    (tmp_path / f".{PREDICTION_FILE}.lock").touch()
    record_prediction(tmp_path, "model", "", {"a": [tmp_path / "a.png"]})
    assert [path.name for path in tmp_path.iterdir()] == [PREDICTION_FILE]
