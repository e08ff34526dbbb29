"""Laws and worked examples of pooling."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.planning.presets import PLANNERS
from autoseg.planning.topology import build_topology, pooling

PATCHES = st.integers(2, 3).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(0.1, 20), min_size=n, max_size=n), st.lists(st.integers(1, 300), min_size=n, max_size=n)
    )
)


def test_isotropic_patch_is_pooled_to_four_voxels():
    pooled = pooling((1, 1, 1), (128, 128, 128))
    assert pooled.strides == ((1, 1, 1), *((2, 2, 2),) * 5)
    assert pooled.kernels == ((3, 3, 3),) * 6
    assert pooled.divisor == (32, 32, 32)


def test_coarse_axis_is_pooled_and_convolved_only_once_the_others_are_as_coarse():
    pooled = pooling((4, 1, 1), (16, 64, 64))
    assert pooled.strides[:4] == ((1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2))
    assert pooled.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))


@pytest.mark.parametrize("patch", [(1, 1), (7, 7), (1, 7, 3)], ids=["2d_pixel", "2d", "3d"])
def test_tiny_patch_has_one_stage_and_is_not_padded(patch):
    pooled = pooling((1.0,) * len(patch), patch)
    assert pooled.strides == ((1,) * len(patch),)
    assert pooled.patch_size == patch


def test_half_voxels_count():
    assert pooling((1, 1), (16.5, 64)).patch_size == (20, 64)


def test_single_axis_stops_at_twelve_voxels():
    assert pooling((1, 1), (11, 4)).divisor == (1, 1)
    assert pooling((1, 1), (12, 4)).divisor == (2, 1)


@settings(deadline=None)
@given(PATCHES)
def test_patch_is_the_smallest_multiple_of_the_divisor_that_holds_what_was_asked(case):
    spacing, patch = case
    pooled = pooling(spacing, patch)
    for axis, (edge, asked, factor) in enumerate(zip(pooled.patch_size, patch, pooled.divisor, strict=True)):
        assert edge % factor == 0
        assert asked <= edge < asked + factor
        product = 1
        for stride in pooled.strides:
            product *= stride[axis]
        assert product == factor


@settings(deadline=None)
@given(PATCHES)
def test_stages_strides_and_kernels_agree_in_number(case):
    spacing, patch = case
    pooled = pooling(spacing, patch)
    for name, preset in PLANNERS.items():
        topology = build_topology(pooled, preset)
        lengths = {len(topology.features), len(topology.kernels), len(topology.encoder_blocks), topology.n_stages}
        assert len(lengths) == 1, name
        assert len(topology.decoder_blocks) == topology.n_stages - 1
        assert all(edge in (1, 3) for kernel in topology.kernels for edge in kernel)


def test_features_double_up_to_the_limit_of_2d_and_3d():
    preset = PLANNERS["default"]
    assert build_topology(pooling((1, 1), (512, 512)), preset).features == (32, 64, 128, 256, 512, 512, 512, 512)
    assert build_topology(pooling((1, 1, 1), (128,) * 3), preset).features == (32, 64, 128, 256, 320, 320)


def test_last_entry_of_the_encoder_blocks_repeats():
    assert PLANNERS["resenc_m"].blocks(6) == (1, 3, 4, 6, 6, 6)
    assert PLANNERS["default"].blocks(3) == (2, 2, 2)
