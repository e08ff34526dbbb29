"""Context around a case is predicted with it, and left out of everything that is decided."""

from __future__ import annotations

import numpy as np
import pytest
from test_export import CLASSES, EVERY_RECORD, REGIONS, smooth_logits

from autoseg.cases.case import CaseRecord
from autoseg.inference.export import decide, probabilities, resampled_slabs


def with_context(record: CaseRecord, low=(2, 1, 0), high=(1, 0, 3)) -> CaseRecord:
    """Return the record of a part of the same voxels, around which the others are context; plan's axes."""
    shape = record.shape_after_crop
    low, high = ([a if n > a + 3 else 0 for a, n in zip(part, shape, strict=True)] for part in (low, high))
    own = tuple(n - a - b for n, a, b in zip(shape, low, high, strict=True))
    return record.model_copy(
        update={
            "shape_before_crop": own, "crop_low": (0, 0, 0), "crop_high": own, "context_low": tuple(low),
            "context_high": tuple(high),
        }
    )  # fmt: skip


def own_part(array, whole: CaseRecord, part: CaseRecord):
    """Return the voxels (..., z, y, x) of the case from an array of the whole case, both in the file's axes."""
    turned = whole.voxel_order.apply(array)
    start = np.add(whole.crop_low, part.context_low)
    index = tuple(slice(a, a + n) for a, n in zip(start, part.shape_after_crop, strict=True))
    return whole.voxel_order.invert(turned[(..., *index)])


@EVERY_RECORD
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_a_case_with_context_is_decided_as_these_voxels_of_the_whole(case, labels):
    part = with_context(case)
    logits = smooth_logits(case.shape, len(labels.heads))
    whole, own = decide(logits, case, labels), decide(logits, part, labels)
    assert own.shape == part.voxel_order.inverse.permuted(part.shape_before_crop)
    assert np.array_equal(own, own_part(whole, case, part))
    for slab_values in (1, 500):
        assert np.array_equal(decide(logits, part, labels, slab_values=slab_values), own)
    one_by_one = ((plane, logits[:, plane : plane + 1]) for plane in range(case.shape[0]))
    assert np.array_equal(decide(one_by_one, part, labels), own)
    expected = own_part(probabilities(logits, case, labels), case, part)
    np.testing.assert_allclose(probabilities(logits, part, labels), expected, atol=1e-6)


@EVERY_RECORD
def test_slabs_count_planes_from_the_first_of_the_case(case):
    part = with_context(case)
    logits = smooth_logits(case.shape, 2)
    slabs = [*resampled_slabs(logits, part, slab_values=1)]
    assert [first for first, _ in slabs] == [*range(part.shape_after_crop[0])]
    assert all(tuple(slab.shape) == (2, 1, *part.shape_after_crop[1:]) for _, slab in slabs)
