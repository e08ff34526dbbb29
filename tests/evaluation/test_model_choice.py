"""The best single model is chosen unless a pair is clearly better; the mean is that of the summary."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg import Dataset
from autoseg.core.errors import EvaluationError
from autoseg.evaluation.cases import case_metrics
from autoseg.evaluation.instance_scores import InstanceScores
from autoseg.evaluation.instances import InstanceCounts
from autoseg.evaluation.metrics import HeadCounts
from autoseg.evaluation.model_choice import choose_model
from autoseg.evaluation.partitions import PartitionCounts
from autoseg.evaluation.summary import summarise

LABELS = Dataset.from_json(
    {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1, "b": 2}, "file_ending": ".png"},
    name="test", folder=None,
).labels  # fmt: skip
NAMES = {"1": "a", "2": "b"}
A, B, C = ("A",), ("B",), ("C",)


def scored(hits_a, hits_b=None, *, n_voxels=100):
    """Return the summary of cases with 10 voxels of a, and of b if given, of which so many are found."""
    cases = []
    for index, hit in enumerate(hits_a):
        b = HeadCounts(0, 0, 0, 100) if hits_b is None else HeadCounts(hits_b[index], 0, 10 - hits_b[index], 90)
        counts = [HeadCounts(0, 0, 0, 100), HeadCounts(hit, 0, 10 - hit, 90), b]
        cases.append(case_metrics(f"case{index}", "r", "p", LABELS, counts, n_voxels=n_voxels, voxel_volume=1.0))
    return summarise(cases, NAMES)


def test_the_means_are_those_of_the_summaries_best_first():
    summaries = {A: scored([5, 6, 7], [9, 9, 1]), B: scored([8, 8, 8], [9, 2, 9]), C: scored([5, 6, 7], [9, 9, 1])}
    choice = choose_model(summaries)
    assert choice.chosen == B and [model.members for model in choice.ranking] == [B, A, C]
    for model in choice.ranking:
        summary = summaries[model.members]
        assert model.foreground == pytest.approx(summary.foreground_mean["Dice"])
        assert model.heads == {name: pytest.approx(summary.mean[key]["Dice"]) for key, name in NAMES.items()}
        assert model.interval == summary.foreground_mean_interval["Dice"]
    assert choice.why == "the best of 3 single models"
    assert choice.ranking[0].against_best_single is None
    assert choice.ranking[1].against_best_single.mean == pytest.approx(
        summaries[A].foreground_mean["Dice"] - summaries[B].foreground_mean["Dice"]
    )


def with_objects(summary, numbers):
    """Return a summary whose cases have objects of class a: (matched, predicted, reference) in each."""
    cases = []
    for case, (matched, n_predicted, n_reference) in zip(summary.metric_per_case, numbers, strict=True):
        counts = InstanceCounts((matched,) * 10, n_predicted, n_reference, float(matched))
        cases.append(case.model_copy(update={"instances": {"1": InstanceScores.of(counts, PartitionCounts())}}))
    return summarise(cases, NAMES)


def test_models_of_objects_are_ranked_by_how_well_objects_are_found_not_by_the_dice_of_their_classes():
    merged = with_objects(scored([9, 9, 9]), [(1, 2, 4), (0, 1, 3), (0, 0, 0)])
    parted = with_objects(scored([7, 7, 7]), [(3, 4, 4), (3, 3, 3), (0, 0, 0)])
    choice = choose_model({A: merged, B: parted})
    assert choice.chosen == B and choice.measure == "AP50"
    first, second = choice.ranking  # the last case has no object, and no score
    assert first.heads == {"a": pytest.approx((3 / 5 + 1) / 2), "b": None}
    assert second.foreground == pytest.approx((1 / 5 + 0) / 2)
    assert second.against_best_single.mean == pytest.approx(0.1 - 0.8)
    assert choose_model({A: scored([9, 9, 9])}).measure == "Dice"


def test_objects_of_a_class_that_occurs_in_no_reference_have_no_score():
    nowhere = with_objects(scored([9, 9]), [(0, 2, 0), (0, 0, 0)])
    with pytest.raises(EvaluationError, match="no model with a score"):
        choose_model({A: nowhere})


HITS = [5, 6, 7, 5, 6, 7, 5, 6]


def test_a_pair_that_is_clearly_better_is_chosen_and_the_best_of_several():
    better, best = [hit + 1 for hit in HITS], [hit + 2 for hit in HITS]
    choice = choose_model({A: scored(HITS), B: scored([4] * 8), C: scored([3] * 8),
                           A + B: scored(better), A + C: scored(best), B + C: scored([2] * 8)})  # fmt: skip
    assert choice.chosen == A + C and choice.ranking[0].members == A + C
    assert "the interval of the difference is above 0" in choice.why


def test_a_pair_that_is_better_by_chance_is_not_chosen():
    noisy = [hit + step for hit, step in zip(HITS, [2, -2, 2, -1, 1, -2, 2, 0], strict=True)]
    choice = choose_model({A: scored(HITS), B: scored([4] * 8), A + B: scored(noisy)})
    assert choice.ranking[0].members == A + B and choice.chosen == A
    assert "contains 0, and a pair takes twice the time" in choice.why


def test_few_cases_never_choose_a_pair():
    choice = choose_model({A: scored(HITS[:5]), B: scored([4] * 5), A + B: scored([hit + 2 for hit in HITS[:5]])})
    assert choice.chosen == A and "with 5 cases that may be chance (6 are needed)" in choice.why


@pytest.mark.parametrize("hits", [[7], [7, 8]])
def test_one_model_and_one_case_are_a_choice(hits):
    choice = choose_model({A: scored(hits)})
    assert choice.chosen == A and choice.why == "the only model" and choice.n_cases == len(hits)
    assert (choice.ranking[0].interval is None) == (len(hits) == 1)


def test_a_class_in_no_reference_has_no_dice_and_does_not_hide_the_others():
    """In nnU-Net the mean is then NaN, and the order of models is that of their names."""
    choice = choose_model({A: scored([5, 5]), B: scored([6, 6])})
    assert choice.chosen == B and choice.ranking[0].heads == {"a": pytest.approx(0.75), "b": None}


def test_sparse_and_dense_references_are_ranked_together_and_named():
    dense, sparse = scored([5, 5]).metric_per_case[:1], scored([5, 8], n_voxels=500).metric_per_case[1:]
    mixed = summarise([*dense, *sparse], NAMES)
    choice = choose_model({A: mixed})
    assert choice.scored_on == "mixed"
    assert choice.ranking[0].foreground == pytest.approx(np.mean([10 / 15, 16 / 18]))


def test_without_any_score_there_is_no_choice():
    empty = summarise([], NAMES)
    with pytest.raises(EvaluationError, match="no model with a score"):
        choose_model({A: empty})
