"""Features of an image follow from its voxels alone."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import make_plan

from autoseg.cases.case import CaseRecord
from autoseg.core.geometry import Geometry
from autoseg.evaluation.likeness import QUANTILES
from autoseg.inference.case_features import OCTAVES, case_features


def record_of(shape, spacing=(2.0, 1.0, 1.0)):
    return CaseRecord(
        case="x", geometry=Geometry(spacing=spacing), transpose=(0, 1, 2), shape_before_crop=shape, crop_low=(0, 0, 0),
        crop_high=shape, spacing_before=spacing, spacing=spacing, shape=shape,
    )  # fmt: skip


def features_of(image, n_dims=3):
    configuration = next(iter(make_plan(n_dims, len(image)).configurations.values()))
    return case_features(image.astype(np.float32), record_of(image.shape[1:]), configuration)


def test_quantiles_spacing_and_size_are_those_of_the_image():
    image = np.random.default_rng(0).normal(size=(2, 12, 16, 20))
    features = features_of(image)
    np.testing.assert_allclose(
        features.intensity, np.quantile(image.reshape(2, -1).astype(np.float32), QUANTILES, axis=1).T, atol=1e-6
    )
    assert (features.spacing, features.size) == ((2.0, 1.0, 1.0), (24.0, 16.0, 20.0))


@pytest.mark.parametrize("n_dims", [2, 3])
def test_detail_of_an_octave_is_the_variance_within_its_blocks(n_dims):
    """White noise of variance 1: means of b voxels have variance 1 / b."""
    image = np.random.default_rng(1).normal(size=(1, 64, 64, 64))
    block = 2**n_dims
    expected = [np.log(block**-scale * (1 - 1 / block)) for scale in range(2)]
    np.testing.assert_allclose(features_of(image, n_dims).texture[0][:2], expected, atol=0.05)


def test_an_image_of_blocks_has_detail_in_their_octave_alone():
    blocks = np.kron(np.random.default_rng(2).normal(size=(1, 8, 8, 8)), np.ones((1, 4, 4, 4)))
    texture = features_of(blocks).texture[0]
    assert np.argmax(texture) == 2
    assert max(texture[:2]) < np.log(1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (5, 1, 33)])
def test_tiny_and_constant_images_have_finite_features(shape):
    for image in (np.zeros((1, *shape)), np.random.default_rng(0).normal(size=(1, *shape))):
        features = features_of(image)
        assert len(features.texture[0]) == OCTAVES
        assert np.isfinite(features.texture).all() and np.isfinite(features.intensity).all()
