"""The rows on windows, export and evaluation: our side on small inputs, against what must come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark_rows import evaluation, evaluation_ours, export, export_ours, window, window_ours
from skimage.transform import resize

from autoseg.io.images import read_labels


@pytest.fixture(autouse=True)
def same_threads():
    """Leave the number of threads as it was: a side sets it for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_labels_of_the_memory_row_follow_from_the_image(tmp_path):
    settings = {"heads": 9, "before": [20, 24, 22], "after": [25, 20, 30], "patch": [8, 12, 8]}
    export.make_image(tmp_path, settings)
    np.save(tmp_path / "ours.npy", export_ours.streamed(tmp_path, settings)())
    assert export.check_nearest(tmp_path, settings).holds
    np.save(tmp_path / "ours.npy", np.load(tmp_path / "ours.npy")[::-1])
    assert not export.check_nearest(tmp_path, settings).holds


def test_streamed_export_is_resampling_then_argmax(tmp_path):
    settings = {"heads": 4, "before": [40, 20, 15], "after": [50, 26, 26]}
    export.make_logits(tmp_path, settings)
    np.save(tmp_path / "ours.npy", export_ours.labels(tmp_path, settings)())
    logits = np.load(tmp_path / "logits.npy")
    whole = [resize(head, settings["after"], order=1, mode="edge", anti_aliasing=False) for head in logits]
    np.save(tmp_path / "theirs.npy", np.argmax(whole, axis=0))
    assert export.check_labels(tmp_path, settings).holds


@pytest.mark.parametrize("patch", [[8, 12, 12], [12, 12]], ids=["3d", "2d"])
def test_logits_of_the_window_row_are_the_mean_over_folds(tmp_path, patch):
    """The folds' factors average to 1."""
    settings = {"shape": [14, 20, 18], "patch": patch, "heads": 3, "air": 0.4, "folds": 5}
    window.make_image(tmp_path, settings)
    logits = window_ours.logits(tmp_path, settings)()
    centres = np.array([-1.0, 0.0, 1.0]).reshape(-1, 1, 1, 1)
    expected = 2 * centres * np.load(tmp_path / "image.npy") - centres**2
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_counts_of_the_evaluation_row_are_those_of_the_files(tmp_path):
    settings = {"classes": 5, "cases": 2, "shape": [12, 20, 18]}
    evaluation.make_files(tmp_path, settings)
    counts = evaluation_ours.counts(tmp_path, settings)()
    assert sorted(counts) == ["case_0", "case_1"]
    for case, classes in counts.items():
        one, other = (read_labels(tmp_path / side / f"{case}.nii.gz")[0] for side in ("reference", "prediction"))
        assert sorted(classes) == ["1", "2", "3", "4"]
        for key, found in classes.items():
            a, b = one == int(key), other == int(key)
            assert found == [int(np.sum(both)) for both in (a & b, ~a & b, a & ~b, ~a & ~b)]
