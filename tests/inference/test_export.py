from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from observing import Recorder

from autoseg.cases.case import CaseRecord
from autoseg.core.errors import PlanError
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.inference.export import decide, probabilities
from autoseg.inference.logit_resampling import resampled_slabs
from autoseg.preprocessing import anisotropic_axis, resample_image, restore

CLASSES = Labels(
    class_values=(0, 1, 7), class_names=("background", "a", "b"), ignore=9,
    heads=(Head("background", (0,), (0,), True), Head("a", (1,), (1,)), Head("b", (2,), (7,))),
)  # fmt: skip
REGIONS = Labels(
    class_values=(0, 1, 2), class_names=("background", "rim", "core"), ignore=3, paint_values=(1, 2),
    heads=(Head("whole", (1, 2), (1, 2)), Head("core", (2,), (2,))),
)  # fmt: skip


def record(shape, spacing, spacing_before, after_crop, *, margin=(1, 2, 3), transpose=(0, 1, 2)):
    shape_before = tuple(size + 2 * extra for size, extra in zip(after_crop, margin, strict=True))
    backward = [transpose.index(axis) for axis in range(3)]
    return CaseRecord(
        case="x", geometry=Geometry(spacing=tuple(spacing_before[axis] for axis in backward)), transpose=transpose,
        shape_before_crop=shape_before, crop_low=margin,
        crop_high=tuple(low + size for low, size in zip(margin, after_crop, strict=True)),
        spacing_before=spacing_before, spacing=spacing, shape=shape,
    )  # fmt: skip


RECORDS = {
    "up": record((12, 10, 9), (2.0, 2.0, 2.0), (1.3, 1.1, 1.0), (18, 18, 18)),
    "down": record((30, 22, 18), (1.0, 1.0, 1.0), (1.5, 2.0, 2.0), (20, 11, 9)),
    "coarse slices": record((7, 20, 16), (5.0, 1.0, 1.0), (6.0, 0.8, 0.8), (6, 25, 20)),
    "coarse columns": record((7, 20, 16), (1.0, 1.0, 1.0), (1.0, 4.5, 1.0), (7, 5, 16)),
    "same": record((8, 9, 10), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (8, 9, 10)),
    "transposed": record((12, 10, 9), (2.0, 2.0, 2.0), (1.3, 1.1, 1.0), (18, 17, 16), transpose=(2, 0, 1)),
    "one slice": record((1, 20, 16), (999.0, 1.0, 1.0), (999.0, 0.7, 0.7), (1, 29, 23), margin=(0, 2, 3)),
    "from one slice": record((1, 6, 5), (9.0, 3.0, 3.0), (3.0, 3.0, 3.0), (3, 6, 5)),
    "to one slice": record((5, 6, 5), (1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1, 6, 5), margin=(0, 1, 1)),
    "few of many slices": record((40, 6, 5), (1.0, 1.0, 1.0), (9.0, 1.0, 1.0), (4, 6, 5)),
    "coarse and other axis first": record(
        (20, 7, 9), (1.0, 5.0, 1.0), (0.8, 6.0, 1.0), (25, 6, 9), transpose=(1, 2, 0)
    ),
}
EVERY_RECORD = pytest.mark.parametrize("case", RECORDS.values(), ids=RECORDS)


def smooth_logits(shape, n_heads, seed=0):
    """Random blobs, as logits are: neighbouring voxels are alike."""
    coarse = np.random.default_rng(seed).normal(size=(n_heads, *(max(1, size // 3) for size in shape)))
    return resample_image(coarse.astype(np.float32) * 4, shape, order=1)


def resampled_whole(logits, case):
    axis = anisotropic_axis(case.spacing, case.spacing_before)
    return resample_image(logits, case.shape_after_crop, order=1, separate_axis=axis)


@EVERY_RECORD
@pytest.mark.parametrize("slab_values", [1, 5000, 10**9])
def test_slabs_are_the_resampled_logits(case, slab_values):
    logits = smooth_logits(case.shape, 3)
    expected = resampled_whole(logits, case)
    planes = 0
    for first, slab in resampled_slabs(logits, case, slab_values=slab_values):
        assert first == planes
        planes += slab.shape[1]
        assert slab.numel() <= max(slab_values, expected[:, 0].size)
        np.testing.assert_allclose(slab.numpy(), expected[:, first:planes], atol=2e-4)
    assert planes == case.shape_after_crop[0]


def in_slabs(logits, n_planes):
    """Yield slabs of ``n_planes`` planes, the last perhaps of fewer."""
    for first in range(0, logits.shape[1], n_planes):
        yield first, logits[:, first : first + n_planes].copy()


@EVERY_RECORD
@pytest.mark.parametrize("n_planes", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("slab_values", [1, 10**9])
def test_a_stream_is_resampled_as_the_whole_is(case, n_planes, slab_values):
    logits = smooth_logits(case.shape, 3)
    expected = np.concatenate([slab.numpy() for _, slab in resampled_slabs(logits, case)], axis=1)
    planes = 0
    for first, slab in resampled_slabs(in_slabs(logits, n_planes), case, slab_values=slab_values):
        assert first == planes
        np.testing.assert_allclose(slab.numpy(), expected[:, first : first + slab.shape[1]], rtol=1e-5, atol=1e-5)
        planes += slab.shape[1]
    assert planes == case.shape_after_crop[0]


@EVERY_RECORD
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("threaded", [False, True])
def test_labels_and_probabilities_of_a_stream_are_those_of_the_whole(case, labels, threaded):
    logits = smooth_logits(case.shape, labels.n_heads)
    recorder, threads = Recorder(needs_members=False), set()

    def observe(slab):
        threads.add(threading.current_thread())
        recorder(slab)

    with ThreadPoolExecutor(1) as pool:
        decided = decide(in_slabs(logits, 2), case, labels, observers=[observe], pool=pool if threaded else None)
    np.testing.assert_array_equal(decided, decide(logits, case, labels))
    expected = probabilities(logits, case, labels)
    np.testing.assert_allclose(probabilities(in_slabs(logits, 3), case, labels), expected, rtol=1e-4, atol=1e-5)
    inside = restore(np.ones(case.shape_after_crop, bool), case)
    np.testing.assert_allclose(
        restore(recorder.probabilities, case)[:, inside], expected[:, inside], rtol=1e-4, atol=1e-5
    )
    assert (threading.current_thread() in threads) != threaded


@pytest.mark.parametrize("threaded", [False, True])
def test_what_a_stream_raises_is_raised(threaded):
    def broken():
        yield from [(0, np.zeros((3, 4, 10, 9), np.float32))]
        raise RuntimeError("out of memory")

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="out of memory"):
        decide(broken(), RECORDS["up"], CLASSES, pool=pool if threaded else None)


@pytest.mark.parametrize(
    ("slabs", "message"),
    [
        ([(0, 4), (5, 7)], r"logits of shape \(3, 7, 10, 9\) for the planes from 5 on"),
        ([(0, 4), (0, 8)], "for the planes from 0 on"),
        ([(0, 4), (4, 9)], "for the planes from 4 on"),
        ([(0, 4), (4, 7)], "found logits of 11 planes"),
        ([], "found logits of 0 planes"),
    ],
    ids=["gap", "twice", "too many", "too few", "none"],
)
def test_a_stream_that_is_not_the_whole_is_refused(slabs, message):
    stream = [(first, np.zeros((3, planes, 10, 9), np.float32)) for first, planes in slabs]
    for function in (decide, probabilities):
        with pytest.raises(PlanError, match=rf"{message}.*expected \(3, 12, 10, 9\)"):
            function(stream, RECORDS["up"], CLASSES)


@EVERY_RECORD
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_deciding_slab_by_slab_equals_resampling_everything_first(case, labels):
    logits = smooth_logits(case.shape, labels.n_heads)
    expected = restore(labels.decode(resampled_whole(logits, case)), case, fill=0)
    decided = decide(logits, case, labels, slab_values=2000)
    assert decided.shape == expected.shape
    assert decided.dtype == np.uint8
    assert np.mean(decided == expected) >= 0.9999
    assert len(np.unique(decided)) == 3 or decided.size < 1000


def test_the_result_has_the_axes_and_shape_of_the_file_with_background_around_the_crop():
    case = record((4, 5, 6), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (4, 5, 6), transpose=(2, 0, 1))
    logits = np.zeros((3, 4, 5, 6), np.float32)
    logits[1] = 1
    logits[2, 0, 1, 2] = 5
    decided = decide(logits, case, CLASSES)
    assert decided.shape == (5 + 4, 6 + 6, 4 + 2)  # file axes 0, 1, 2 are the plan's 1, 2, 0, with margins 2, 3, 1
    assert np.count_nonzero(decided) == 4 * 5 * 6
    assert decided[2 + 1, 3 + 2, 1 + 0] == 7
    assert np.count_nonzero(decided == 7) == 1


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_the_ignore_value_is_never_predicted(labels):
    case = RECORDS["up"]
    logits = np.random.default_rng(1).normal(size=(labels.n_heads, *case.shape)).astype(np.float32) * 100
    assert set(np.unique(decide(logits, case, labels))) <= set(labels.class_values)


@EVERY_RECORD
def test_probabilities_of_classes_sum_to_one_and_agree_with_the_decision(case):
    logits = smooth_logits(case.shape, 3)
    values = probabilities(logits, case, CLASSES, slab_values=3000)
    decided = decide(logits, case, CLASSES)
    assert values.shape == (3, *decided.shape)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values.sum(0), 1, atol=1e-5)
    assert np.mean(np.asarray(CLASSES.class_values)[values.argmax(0)] == decided) >= 0.9999


def test_probabilities_of_regions_are_sigmoids_and_zero_outside_the_crop():
    case = RECORDS["same"]
    logits = smooth_logits(case.shape, 2)
    values = probabilities(logits, case, REGIONS)
    np.testing.assert_allclose(values[:, 1:-1, 2:-2, 3:-3], 1 / (1 + np.exp(-logits)), rtol=1e-5)
    assert not values[:, 0].any()
    assert not values[..., -3:].any()


def test_outside_the_crop_background_is_certain():
    case = RECORDS["same"]
    values = probabilities(np.full((3, *case.shape), 2.0, np.float32), case, CLASSES)
    np.testing.assert_array_equal(values[:, 0, 0, 0], [1, 0, 0])
    np.testing.assert_allclose(values[:, 1, 2, 3], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 12, 10, 9), (3, 12, 10, 8), (3, 13, 10, 9)])
@pytest.mark.parametrize("function", [decide, probabilities])
def test_logits_of_another_shape_are_refused(shape, function):
    with pytest.raises(PlanError, match=r"logits of .* expected \(3, 12, 10, 9\)"):
        function(np.zeros(shape, np.float32), RECORDS["up"], CLASSES)


def test_outside_the_crop_is_the_value_of_background():
    labels = replace(CLASSES, class_values=(4, 1, 7), unlabelled=0)
    file = RECORDS["up"]
    logits = np.random.default_rng(0).normal(size=(3, *file.shape)).astype(np.float32)
    usual, shifted = decide(logits, file, CLASSES), decide(logits, file, labels)
    np.testing.assert_array_equal(shifted, np.where(usual == 0, 4, usual))
    assert shifted[0, 0, 0] == 4 and 0 not in shifted
