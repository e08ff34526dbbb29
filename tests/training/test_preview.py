from __future__ import annotations

import numpy as np
import pytest
import torch

from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import Dataset
from autoseg.training.batches import training_batches
from autoseg.training.prepare import prepare_fold
from autoseg.training.preview import original_of, preview_patches
from autoseg.training.run_config import RunOptions


@pytest.fixture
def request_of(toy_workspace, toy_folder):
    def make(*settings):
        options = RunOptions("0", settings=settings, iterations=20, workers=0, device="cpu")
        return prepare_fold(toy_workspace, Dataset.load(toy_folder), options)

    return make


def test_patches_are_those_of_the_run(request_of):
    request = request_of()
    views = preview_patches(request, 5, 3)
    batches = training_batches(request, torch.device("cpu"), 3)
    images = torch.cat([next(batches).images for _ in range(3)]).numpy()
    np.testing.assert_array_equal(np.stack([view.image for view in views]), images[:5])
    assert [(view.iteration, view.sample) for view in views] == [(3, 0), (3, 1), (4, 0), (4, 1), (5, 0)]


def test_without_augmentation_the_same_voxels_are_sampled_and_nothing_moves(request_of):
    moved = preview_patches(request_of("forced_fraction=1"), 8)
    plain = preview_patches(request_of("forced_fraction=1", "augmentation=none", "mirror=false"), 8)
    assert [view.case for view in moved] == [view.case for view in plain]
    assert [view.origin.head for view in moved] == [view.origin.head for view in plain]
    assert all(view.transform() == "" for view in plain)
    assert any(view.transform() for view in moved)


def test_unannotated_voxels_are_counted_as_such(request_of):
    shares = [view.annotated_share for view in preview_patches(request_of("background_prior=0"), 8)]
    assert all(0 < share < 0.7 for share in shares)  # every third slice is annotated


def test_iterations_that_the_run_does_not_have_are_refused(request_of):
    with pytest.raises(ConfigError, match="--iteration 19 -n 3"):
        preview_patches(request_of(), 3, 19)


def test_an_original_is_what_lies_around_the_same_point(request_of):
    request = request_of("augmentation=em", "background_prior=0")
    plain = request_of("augmentation=none", "mirror=false", "background_prior=0")
    for view in preview_patches(plain, 4):
        original = original_of(view, plain)
        np.testing.assert_array_equal(original.image, view.image)
        np.testing.assert_array_equal(original.codes, view.codes)
    for view in preview_patches(request, 4):
        original = original_of(view, request)
        assert original.transform() == "" and original.origin.centre == view.origin.centre
        assert original.image.shape == view.image.shape
        assert not np.array_equal(original.image, view.image)
