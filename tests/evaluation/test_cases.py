"""The voxels behind a score follow from the reference alone, class by class."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.dataset.labels import Labels
from autoseg.evaluation.cases import CaseMetrics, case_metrics
from autoseg.evaluation.metrics import count
from autoseg.evaluation.summary import summarise

NAMES = {"1": "a", "2": "b"}


def labels_of(statements: dict[str, object] | None = None, **more: object) -> Labels:
    content = {
        "channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}, "file_ending": ".png",
        **({} if statements is None else {"cases": {"x": statements}}), **more,
    }  # fmt: skip
    return Dataset.from_json(content, name="test", folder=None).labels


def scored(reference: list[int], prediction: list[int], labels: Labels, case: str = "x") -> CaseMetrics:
    truth, predicted = (np.array(values, dtype=np.uint8).reshape(1, 1, -1) for values in (reference, prediction))
    counts = count(truth, predicted, labels, case)
    return case_metrics(case, "r", "p", labels, counts, n_voxels=truth.size, voxel_volume=2.5)


def test_a_reference_without_unknown_voxels_is_dense() -> None:
    case = scored([0, 1, 2, 0], [0, 1, 1, 0], labels_of())
    assert case.scored_on == {"1": "dense", "2": "dense"}
    assert scored([0, 1, 2, 3], [0, 1, 1, 0], labels_of()).scored_on == dict.fromkeys("12", "annotated voxels")


def test_a_class_drawn_completely_is_dense_and_one_left_out_has_no_dice() -> None:
    """Value 0 means "not a". For b, only the voxels annotated as a are decided: they are not b."""
    case = scored([0, 0, 1, 1, 0], [2, 0, 1, 2, 1], labels_of({"annotated": ["a"]}))
    assert case.scored_on == {"1": "dense", "2": None}
    assert case.metrics["1"].Dice == 0.5
    assert (case.metrics["2"].Dice, case.metrics["2"].IoU) == (None, None)
    assert (case.metrics["2"].FP, case.metrics["2"].n_decided) == (1, 2)


def test_a_class_drawn_although_left_out_is_scored_on_annotated_voxels() -> None:
    case = scored([0, 0, 1, 2, 0], [2, 0, 1, 2, 1], labels_of({"annotated": ["a"]}))
    assert case.scored_on["2"] == "annotated voxels"
    assert case.metrics["2"].Dice == 1


def test_a_class_that_coarse_values_leave_open_is_scored_on_annotated_voxels() -> None:
    labels = labels_of(label_sets={"5": ["background", "b"]})
    case = scored([5, 5, 1, 2], [0, 2, 1, 2], labels)
    assert case.scored_on == {"1": "dense", "2": "annotated voxels"}
    summary = summarise([case], NAMES)
    assert summary.scored_on == "mixed"
    assert summary.foreground_mean["Dice"] is None
    assert (summary.mean["1"]["Dice"], summary.mean["2"]["Dice"]) == (1, 1)


def test_the_halves_of_a_lazily_labelled_set_are_scored_densely() -> None:
    labels = labels_of(cases={"x": {"annotated": ["a"]}, "y": {"annotated": ["b"]}})
    cases = [scored([0, 0, 1, 1], [0, 2, 1, 0], labels, "x"), scored([0, 0, 2, 2], [0, 1, 2, 2], labels, "y")]
    summary = summarise(cases, NAMES)
    assert summary.scored_on == "dense"
    assert summary.decided_fraction < 1
    assert (summary.mean["1"]["Dice"], summary.mean["2"]["Dice"]) == (pytest.approx(2 / 3), 1)
    assert summary.n_cases_per_head == {"1": 1, "2": 1}
    assert summary.n_decided_per_head == {"1": 4, "2": 4}


@pytest.mark.parametrize("reference", [[3, 3, 3, 3], [0, 3, 1, 3]], ids=["nothing drawn", "scribbles"])
def test_false_positives_of_an_absent_class_count_everywhere(reference: list[int]) -> None:
    case = scored(reference, [2, 2, 1, 2], labels_of({"absent": ["b"]}))
    assert {key: actual.voxels for key, actual in case.absent.items()} == {"2": 3}
    assert case.absent["2"].volume_mm3 == 7.5
    assert case.metrics["2"].FP == 3


def test_a_case_that_declares_nothing_absent_has_no_false_positive_volume() -> None:
    assert scored([0, 1, 1, 0], [0, 2, 2, 0], labels_of()).absent == {}


def test_the_mean_is_over_the_cases_that_declare_it() -> None:
    labels = labels_of(cases={"x": {"absent": ["b"]}, "y": {"absent": ["b"]}})
    cases = [
        scored([3, 3, 3, 3], [2, 2, 1, 2], labels, "x"),
        scored([3, 3, 3, 3], [0, 0, 1, 0], labels, "y"),
        scored([0, 1, 2, 3], [0, 1, 2, 2], labels, "z"),
    ]
    summary = summarise(cases, NAMES)
    absent = summary.absent["2"]
    assert (absent.n_cases, absent.n_cases_with_false_positives) == (2, 1)
    assert (absent.mean_voxels, absent.mean_volume_mm3) == (1.5, 3.75)
    assert summary.scored_on == "annotated voxels"  # an absent class does not make a sparse case dense
    assert summary.mean["2"]["Dice"] == 1


def test_a_region_is_absent_if_all_its_classes_are() -> None:
    content = {
        "channel_names": {"0": "MR"}, "labels": {"background": 0, "whole": [1, 2], "core": [2]},
        "regions_class_order": [1, 2], "file_ending": ".png", "cases": {"x": {"absent": ["core"]}},
    }  # fmt: skip
    labels = Dataset.from_json(content, name="test", folder=None).labels
    assert {key: actual.voxels for key, actual in scored([0, 0, 1, 1], [2, 2, 1, 1], labels).absent.items()} == {"2": 2}


def test_what_is_scored_on_what_does_not_depend_on_the_prediction() -> None:
    labels = labels_of({"annotated": ["a"], "absent": ["b"]})
    rng = np.random.default_rng(0)
    for _ in range(20):
        reference = rng.choice([0, 1, 3], size=6).tolist()
        kinds = [scored(reference, rng.integers(0, 3, size=6).tolist(), labels).scored_on for _ in range(4)]
        assert all(kind == kinds[0] for kind in kinds)


def test_what_is_said_to_be_absent_is_no_dense_reference_of_a_sparse_case() -> None:
    stated = labels_of({"absent": ["b"]})
    sparse, dense = scored([0, 3, 1, 3], [2, 2, 1, 2], stated), scored([0, 0, 1, 0], [2, 2, 1, 2], stated)
    assert (sparse.scored_on["2"], sparse.metrics["2"].Dice, sparse.absent["2"].voxels) == (None, None, 3)
    assert (dense.scored_on["2"], dense.metrics["2"].Dice, dense.absent["2"].voxels) == ("dense", 0, 3)


def test_a_class_that_is_drawn_only_together_with_another_has_no_dice() -> None:
    labels = labels_of(label_sets={"5": ["a", "b"]})
    case = scored([5, 5, 0, 0], [1, 2, 1, 0], labels)
    assert case.scored_on == {"1": None, "2": None}
    assert (case.metrics["1"].FP, case.metrics["1"].Dice) == (1, None)
    assert scored([5, 1, 0, 0], [1, 1, 1, 0], labels).metrics["1"].Dice == pytest.approx(2 / 3)
