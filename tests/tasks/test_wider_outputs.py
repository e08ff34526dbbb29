"""A network with more outputs than classes: all that is made of its logits speaks of classes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from split_task import split_logits

from autoseg.assist.complete_case import complete_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.label_codes import encode_target
from autoseg.core.errors import PlanError
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.inference.box_sums import slice_grid
from autoseg.inference.box_uncertainty import measure
from autoseg.inference.export import decide, probabilities
from autoseg.inference.saved_probabilities import ProbabilityBuffer

CLASSES = Labels(
    class_values=(0, 1, 7), class_names=("background", "a", "b"), ignore=9, set_values={5: frozenset({1, 2})},
    heads=(Head("background", (0,), (0,), True), Head("a", (1,), (1,)), Head("b", (2,), (7,))),
)  # fmt: skip
SPLIT = replace(CLASSES, task="split_task:Split")
FINISHED = replace(CLASSES, task="split_task:Finished")
RECORD = CaseRecord(
    case="x", geometry=Geometry(spacing=(1, 1, 1)), transpose=(0, 1, 2), shape_before_crop=(6, 9, 9),
    crop_low=(1, 2, 1), crop_high=(6, 8, 8), spacing_before=(1, 1, 1), spacing=(1, 1, 1), shape=(5, 6, 7),
)  # fmt: skip


@pytest.fixture
def logits() -> np.ndarray:
    """(K, *S) float32 of which no two are close to each other."""
    rng = np.random.default_rng(0)
    return (2 * rng.permuted(np.tile(np.arange(3.0), (5 * 6 * 7, 1)), axis=1).T.reshape(3, 5, 6, 7)).astype(np.float32)


def test_labels_and_probabilities_are_those_of_the_classes(logits, tmp_path):
    wide = split_logits(logits)
    np.testing.assert_array_equal(decide(wide, RECORD, SPLIT), decide(logits, RECORD, CLASSES))
    expected = probabilities(logits, RECORD, CLASSES)
    assert expected.shape == (3, 6, 9, 9)
    np.testing.assert_allclose(probabilities(wide, RECORD, SPLIT), expected, atol=1e-6)
    buffer = ProbabilityBuffer(tmp_path / "x", RECORD, SPLIT)
    with closing(buffer):
        decide(wide, RECORD, SPLIT, observers=[buffer], slab_values=1)
        np.testing.assert_allclose(np.stack(list(buffer.heads())), expected, atol=1e-6)


def test_logits_of_another_number_of_outputs_are_refused(logits):
    with pytest.raises(PlanError, match=r"logits .*\(3, 5, 6, 7\).*\(4, 5, 6, 7\)"):
        decide(logits, RECORD, SPLIT)


def test_a_case_is_completed_within_its_label_sets_of_classes(logits):
    drawn = np.random.default_rng(1).choice([0, 1, 7, 5, 9], size=(6, 9, 9)).astype(np.uint8)
    target = encode_target(drawn, CLASSES, "x")
    expected = complete_case(logits, RECORD, CLASSES, target, review=True)
    completed = complete_case(split_logits(logits), RECORD, SPLIT, target, review=True)
    np.testing.assert_array_equal(completed.labels, expected.labels)
    np.testing.assert_array_equal(completed.disputed.index, expected.disputed.index)
    np.testing.assert_allclose(completed.disputed.probability, expected.disputed.probability, atol=1e-6)


def test_the_entropy_is_that_of_the_classes(logits):
    drawn = np.random.default_rng(1).choice([0, 1, 7, 5, 9], size=(6, 9, 9)).astype(np.uint8)
    target, grid = encode_target(drawn, CLASSES, "x"), slice_grid((6, 9, 9), 0)
    expected, maps = measure(logits, RECORD, CLASSES, target, grid)
    found, same_maps = measure(split_logits(logits), RECORD, SPLIT, target, grid)
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-5)
    np.testing.assert_allclose(found.entropy_of, expected.entropy_of, rtol=1e-5)
    np.testing.assert_array_equal(same_maps.labels, maps.labels)


def test_the_task_has_the_last_word_on_the_label_map_of_a_whole_case(logits):
    whole = RECORD.model_copy(update={"shape_before_crop": (5, 6, 7), "crop_low": (0, 0, 0), "crop_high": (5, 6, 7)})
    plain, finished = decide(logits, whole, CLASSES), decide(logits, whole, FINISHED, slab_values=1)
    np.testing.assert_array_equal(finished[1:], plain[1:])
    np.testing.assert_array_equal(finished[0], np.where(plain[0] == 1, 0, plain[0]))
    assert (plain[0] == 1).any()
