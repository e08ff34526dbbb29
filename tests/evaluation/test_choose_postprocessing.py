"""A step is taken where complete references show that it helps, and the numbers are those of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from autoseg.core.errors import EvaluationError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import evaluate_files
from autoseg.evaluation.choose_postprocessing import choose_postprocessing
from autoseg.evaluation.metrics import count
from autoseg.evaluation.postprocessing import (
    FillHoles,
    KeepLargestComponent,
    Postprocessing,
    RemoveSmallerThan,
    change_of,
    postprocess,
)
from autoseg.evaluation.postprocessing_effects import ScoredFiles, measure_effects
from autoseg.io.images import write_labels

CLASSES = {"background": 0, "a": 1, "b": 2, "ignore": 9}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
FLAT = Geometry(spacing=(FLAT_SPACING, 2.0, 0.5), ndim=2)
SOLID = Geometry(spacing=(2.0, 1.0, 0.5))
GRIDS = [((1, 30, 40), FLAT), ((8, 16, 20), SOLID)]


def labels_of(labels, order=None, **more):
    content = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz", **more}
    content |= {} if order is None else {"regions_class_order": order}
    return Dataset.from_json(content, name="made", folder=None).labels


def write_cases(folder: Path, cases, geometry):
    """Write (reference, prediction) of each case."""
    files = []
    for index, (reference, prediction) in enumerate(cases):
        paths = [folder / kind / f"case{index}.nii.gz" for kind in ("reference", "prediction")]
        for path, values in zip(paths, (reference, prediction), strict=True):
            write_labels(path, values.astype(np.uint8), geometry)
        files.append(ScoredFiles(f"case{index}", *paths))
    return files


def discs(shape, places, value=1, radius=3):
    """Return a label map (z, y, x) with discs (balls) of one value around places (y, x)."""
    grid = np.stack(np.meshgrid(*(np.arange(edge) for edge in shape), indexing="ij"))
    label_map = np.zeros(shape, dtype=np.uint8)
    for y, x in places:
        centre = np.array([shape[0] // 2, y, x]).reshape(3, 1, 1, 1)
        label_map[((grid - centre) ** 2).sum(axis=0) <= radius**2] = value
    return label_map


def with_specks(label_map, seed, value=1, n=3):
    """Return a copy with single voxels of a value in the far corner, which touch neither the object nor each other."""
    changed, rng = label_map.copy(), np.random.default_rng(seed)
    for column in rng.choice(label_map.shape[2] // 4, n, replace=False):
        changed[0, -1, -1 - 2 * column] = value
    return changed


def steps_of(chosen):
    return list(chosen.postprocessing.steps)


def reason_of(chosen, step):
    (decision,) = [item for item in chosen.decisions if item.step == step]
    return decision.reason


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
@pytest.mark.parametrize("labels", [labels_of(CLASSES), labels_of(REGIONS, [1, 2, 3])], ids=["classes", "regions"])
@pytest.mark.parametrize("steps", [
    (), (KeepLargestComponent(of=("all",)),), (FillHoles(of=("last",)), KeepLargestComponent(of=("last",))),
], ids=["none", "largest", "holes"])  # fmt: skip
def test_counts_after_a_step_are_those_of_its_result(tmp_path, shape, geometry, labels, steps):
    """Effects of components add up to what counting the processed label map gives, for every kind of step."""
    names = [labels.heads[head].name for head in labels.foreground_heads]
    steps = [step.model_copy(update={"of": tuple(names) if step.of == ("all",) else (names[-1],)}) for step in steps]
    rng = np.random.default_rng(3)
    reference = rng.choice(labels.file_values(), size=shape)
    prediction = rng.choice([0, 0, *labels.class_values], size=shape).astype(np.uint8)
    files = write_cases(tmp_path, [(reference, prediction)], geometry)
    unit = "mm2" if geometry.ndim == 2 else "mm3"
    tried = [make for name in names for make in (
        KeepLargestComponent(of=(name,)), RemoveSmallerThan(of=(name,), size=3.1, unit=unit), FillHoles(of=(name,)),
    )]  # fmt: skip
    changes = [change_of(step, labels) for step in tried]
    (case,) = measure_effects(files, labels, steps, changes)
    assert case.is_dense.all() == (9 not in reference)
    for index, step in enumerate(tried):
        result = postprocess(prediction, geometry, labels, Postprocessing(steps=(*steps, step)))
        expected = count(reference, result, labels, "case0")
        after = case.after(step, index)
        assert after.true_positive.tolist() == [head.true_positive for head in expected], step
        assert after.false_positive.tolist() == [head.false_positive for head in expected], step
        assert after.reference.tolist() == [head.n_reference for head in expected]


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
@pytest.mark.parametrize("workers", [1, 2])
def test_specks_far_from_the_object_are_removed(tmp_path, shape, geometry, workers):
    labels = labels_of({"background": 0, "a": 1})
    truth = [discs(shape, [(8 + index % 3, 9)]) for index in range(7)]
    files = write_cases(tmp_path, [(item, with_specks(item, seed)) for seed, item in enumerate(truth)], geometry)
    chosen = choose_postprocessing(files, labels, workers=workers)
    assert steps_of(chosen) == [KeepLargestComponent(of=("a",))]
    (accepted,) = [decision for decision in chosen.decisions if decision.accepted]
    pairs = {item.case: (item.reference, item.prediction) for item in files}
    assert accepted.dice_before == pytest.approx(evaluate_files(pairs, labels).foreground_mean["Dice"])
    assert accepted.dice_after == 1 and (accepted.n_better, accepted.n_worse, accepted.n_cases) == (7, 0, 7)
    assert "fill_holes" in {decision.step.operation for decision in chosen.decisions}


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
def test_of_many_true_objects_all_stay_and_only_what_is_smaller_goes(tmp_path, shape, geometry):
    labels = labels_of({"background": 0, "a": 1})
    truth = [discs(shape, [(5, 5)]) + discs(shape, [(6, 14 + index % 2)], radius=2) for index in range(6)]
    files = write_cases(tmp_path, [(item, with_specks(item, seed)) for seed, item in enumerate(truth)], geometry)
    (step,) = steps_of(choose_postprocessing(files, labels))
    assert step.operation == "remove_smaller_than"
    object_size = discs(shape, [(6, 14)], radius=2).sum() * geometry.voxel_volume
    assert geometry.voxel_volume < step.size < object_size
    assert step.unit == ("mm2" if geometry.ndim == 2 else "mm3")


def test_what_helps_in_one_case_alone_is_not_taken(tmp_path):
    labels, truth = labels_of({"background": 0, "a": 1}), discs((8, 16, 20), [(8, 9)])
    files = write_cases(tmp_path, [(truth, with_specks(truth, 0) if not index else truth) for index in range(9)], SOLID)
    chosen = choose_postprocessing(files, labels)
    assert not steps_of(chosen)
    assert reason_of(chosen, KeepLargestComponent(of=("a",))) == "better in 1 case, worse in 0: that may be chance"


def test_what_lowers_another_class_is_not_taken(tmp_path):
    """All foreground together: b lies apart from the larger a and would vanish."""
    labels = labels_of({"background": 0, "a": 1, "b": 2})
    cases = []
    for seed in range(6):
        truth = discs((8, 16, 20), [(8, 5)]) + discs((8, 16, 20), [(4, 15)], value=2, radius=2)
        cases.append((truth, with_specks(truth, seed, n=5)))
    chosen = choose_postprocessing(write_cases(tmp_path, cases, SOLID), labels)
    assert steps_of(chosen)[0].of == ("a",)
    together = KeepLargestComponent(of=("a", "b"))
    assert together not in steps_of(chosen)
    assert reason_of(chosen, together) in ("the mean Dice does not rise", "the mean Dice of b falls")


def test_holes_are_filled_where_the_references_have_none(tmp_path):
    labels = labels_of({"background": 0, "a": 1})
    truth = discs((8, 16, 20), [(8, 9)])
    hollow = truth.copy()
    hollow[4, 8, 9:11] = 0
    assert hollow[4, 8, 9] == 0 and ndimage.binary_fill_holes(hollow)[4, 8, 9]
    files = write_cases(tmp_path, [(truth, hollow)] * 6, SOLID)
    assert steps_of(choose_postprocessing(files, labels)) == [FillHoles(of=("a",))]
    full = write_cases(tmp_path, [(hollow, hollow)] * 6, SOLID)
    assert not steps_of(choose_postprocessing(full, labels))


def sparse(truth, seed):
    """Return a reference in which every voxel near the object and a few others are annotated."""
    known = ndimage.binary_dilation(truth > 0, iterations=1) | (np.random.default_rng(seed).random(truth.shape) < 0.02)
    return np.where(known, truth, 9)


def test_sparse_references_decide_nothing_and_the_reason_is_given_per_class(tmp_path):
    """At their annotated voxels the step would be an improvement in every case."""
    labels = labels_of(CLASSES)
    cases = []
    for seed in range(8):
        truth = discs((8, 16, 20), [(8, 9)])
        reference = sparse(truth, seed)
        reference[0, -1] = 0  # where the specks are
        cases.append((reference, with_specks(truth, seed)))
    chosen = choose_postprocessing(write_cases(tmp_path, cases, SOLID), labels)
    assert not steps_of(chosen)
    reason = "not decided: 0 of 8 references decide every voxel for {}, expected at least 6"
    assert reason_of(chosen, KeepLargestComponent(of=("a",))) == reason.format("a")
    assert reason_of(chosen, FillHoles(of=("b",))) == reason.format("b")
    assert {decision.n_cases for decision in chosen.decisions} == {0}


def test_only_complete_references_count_and_nothing_depends_on_the_others(tmp_path):
    labels, results = labels_of({"background": 0, "a": 1, "ignore": 2}), []
    for seed_of_unknown in (0, 1):
        cases = []
        for seed in range(9):
            truth = discs((8, 16, 20), [(8, 9)])
            reference = np.where(sparse(truth, seed) == 9, 2, truth) if seed > 5 else truth
            noise = np.random.default_rng(seed_of_unknown).random(truth.shape) < 0.1
            cases.append((reference, with_specks(truth, seed) if seed < 6 else noise.astype(np.uint8)))
        results.append(choose_postprocessing(write_cases(tmp_path, cases, SOLID), labels))
    assert results[0] == results[1]
    assert steps_of(results[0]) == [KeepLargestComponent(of=("a",))]
    assert results[0].decisions[0].n_cases == 6


def test_a_class_that_some_cases_do_not_annotate_is_decided_on_the_others(tmp_path):
    """In the first three cases only b was annotated, so nothing is known of a there."""
    partly = {f"case{index}": {"annotated": ["b"]} for index in range(3)}
    labels = labels_of({"background": 0, "a": 1, "b": 2}, cases=partly)
    cases = []
    for seed in range(8):
        truth = discs((8, 16, 20), [(8, 5)]) + discs((8, 16, 20), [(4, 15)], value=2, radius=2)
        cases.append((np.where(truth == 1, 0, truth) if seed < 3 else truth, with_specks(truth, seed, value=2)))
    chosen = choose_postprocessing(write_cases(tmp_path, cases, SOLID), labels)
    assert "5 of 8 references decide every voxel for a" in reason_of(chosen, KeepLargestComponent(of=("a",)))
    assert KeepLargestComponent(of=("b",)) in steps_of(chosen)
    (decision,) = [item for item in chosen.decisions if item.accepted]
    assert decision.n_cases == 8


def test_steps_on_regions_go_on_from_those_already_taken(tmp_path):
    labels = labels_of(REGIONS, [1, 2, 3])
    cases = []
    for seed in range(6):
        truth = discs((8, 16, 20), [(8, 9)], radius=4)
        truth[discs((8, 16, 20), [(8, 9)], radius=2) > 0] = 2
        truth[4, 8, 9] = 3
        predicted = with_specks(truth, seed, value=3)  # far enhancing tumour, which is core and whole tumour, too
        predicted[4, 8, 13] = 2  # a second core within the whole tumour
        assert truth[4, 8, 13] == 1
        cases.append((truth, predicted))
    files = write_cases(tmp_path, cases, SOLID)
    chosen = choose_postprocessing(files, labels)
    assert [step.of for step in steps_of(chosen)] == [("whole", "core", "enhancing"), ("core",)]
    for truth, predicted in cases:
        assert np.array_equal(postprocess(predicted, SOLID, labels, chosen.postprocessing), truth)


@pytest.mark.parametrize("value", [0, 1], ids=["nothing is predicted", "the class is in no reference"])
def test_without_foreground_nothing_is_taken(tmp_path, value):
    labels = labels_of({"background": 0, "a": 1})
    truth = discs((8, 16, 20), [(8, 9)])
    empty = np.zeros_like(truth)
    cases = [(truth if value == 0 else empty, truth * value)] * 6
    chosen = choose_postprocessing(write_cases(tmp_path, cases, SOLID), labels)
    assert not steps_of(chosen)
    assert all(decision.reason for decision in chosen.decisions)


def test_a_prediction_on_another_grid_is_an_error(tmp_path):
    labels, truth = labels_of({"background": 0, "a": 1}), discs((8, 16, 20), [(8, 9)])
    files = write_cases(tmp_path, [(truth, truth)], SOLID)
    write_labels(files[0].prediction, truth[:-1], SOLID)
    with pytest.raises(EvaluationError, match="found shape"):
        choose_postprocessing(files, labels)
