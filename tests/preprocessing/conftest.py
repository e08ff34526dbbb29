"""A plan that is small, and valid in every field that preprocessing reads."""

from __future__ import annotations

import pytest

from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Configuration, Plan, Topology


def _make_plan(*, normalization=("zscore",), masked=False, transpose=(0, 1, 2), spacing=(2.0, 1.0, 1.0)):
    topology = Topology(
        kind="plain",
        features=(4,),
        strides=((1, 1, 1),),
        kernels=((3, 3, 3),),
        encoder_blocks=(1,),
        decoder_blocks=(),
    )
    n_channels = len(normalization)
    full = Configuration(
        name="3d_fullres",
        spacing=spacing,
        patch_size=(8, 8, 8),
        batch_size=2,
        median_shape=(10, 10, 10),
        normalization=normalization,
        use_mask_for_norm=(masked,) * n_channels,
        topology=topology,
        batch_dice=False,
    )
    flat = full.model_copy(update={"name": "2d", "spacing": spacing[1:], "patch_size": (8, 8)})
    intensities = IntensityProperties(
        mean=90, median=90, std=40, min=0, max=200, percentile_99_5=180, percentile_00_5=20
    )
    return Plan(
        dataset_name="toy",
        planner="default",
        transpose_forward=transpose,
        transpose_backward=tuple(transpose.index(axis) for axis in range(3)),
        original_median_spacing=spacing,
        original_median_shape=(10, 10, 10),
        channel_names=tuple(f"channel {index}" for index in range(n_channels)),
        intensities=(intensities,) * n_channels,
        configurations={"2d": flat, "3d_fullres": full},
    )


@pytest.fixture(scope="session")
def make_plan():
    """Return the function that makes a plan."""
    return _make_plan
