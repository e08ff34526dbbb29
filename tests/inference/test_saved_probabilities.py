from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest
from test_export import CLASSES, EVERY_RECORD, RECORDS, REGIONS, in_slabs, smooth_logits

from autoseg.inference.decided import DecidedSlab
from autoseg.inference.export import decide, probabilities
from autoseg.inference.saved_probabilities import ProbabilityBuffer


@EVERY_RECORD
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_the_file_of_a_stream_holds_the_probabilities_of_the_whole(case, labels, tmp_path):
    """Transposed, cropped, resampled or not."""
    logits = smooth_logits(case.shape, labels.n_heads)
    with closing(ProbabilityBuffer(tmp_path / "out" / "x", case, labels)) as buffer:
        decide(in_slabs(logits, 2), case, labels, observers=[buffer], slab_values=700)
        buffer.write()
    expected = probabilities(logits, case, labels)
    with np.load(tmp_path / "out" / "x.npz") as archive:
        stored = archive["probabilities"]
    assert stored.shape == expected.shape
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-5)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["x.npz"]


def slab_of(probabilities):
    return DecidedSlab(0, np.zeros(probabilities.shape[1:], np.uint8), probabilities)


def test_a_buffer_leaves_nothing_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), closing(ProbabilityBuffer(tmp_path / "x", RECORDS["up"], CLASSES)) as buffer:
        buffer(slab_of(np.zeros((3, 2, 18, 18), np.float32)))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_kept_is_not_made_up(tmp_path):
    with closing(ProbabilityBuffer(tmp_path / "x", RECORDS["same"], CLASSES)) as buffer:
        buffer(slab_of(np.ones((3, 2, 9, 10), np.float32)))
        buffer._buffer._file.truncate(100)
        with pytest.raises(OSError, match=r"case x: .*maps cut short"):
            list(buffer.heads())
