"""The memory proxy, counted by hand."""

from __future__ import annotations

import pytest

from autoseg.core.plan import Topology
from autoseg.planning.memory import feature_map_values


def _topology(kind, n_dims, blocks):
    one, two = (1,) * n_dims, (2,) * n_dims
    return Topology(
        kind=kind,
        features=(4, 8),
        strides=(one, two),
        kernels=((3,) * n_dims,) * 2,
        encoder_blocks=blocks,
        decoder_blocks=(2,),
    )


@pytest.mark.parametrize(("n_dims", "full", "half"), [(2, 64, 16), (3, 512, 64)])
def test_plain_unet(n_dims, full, half):
    encoder = 2 * 4 * full + 2 * 8 * half
    decoder = (2 + 1) * 4 * full
    assert feature_map_values(_topology("plain", n_dims, (2, 2)), (8,) * n_dims, 3) == encoder + decoder + 3 * full


@pytest.mark.parametrize(("n_dims", "full", "half"), [(2, 64, 16), (3, 512, 64)])
def test_residual_unet(n_dims, full, half):
    stem = 4 * full
    first = 1 * 2 * 4 * full  # one block, no projection: neither channels nor resolution change
    second = 3 * 2 * 8 * half + 8 * half
    decoder = (2 + 1) * 4 * full
    expected = stem + first + second + decoder + 5 * full
    assert feature_map_values(_topology("residual", n_dims, (1, 3)), (8,) * n_dims, 5) == expected


def test_single_stage_has_no_decoder():
    topology = Topology(
        kind="plain", features=(4,), strides=((1, 1),), kernels=((3, 3),), encoder_blocks=(2,), decoder_blocks=()
    )
    assert feature_map_values(topology, (5, 3), 2) == 2 * 4 * 15 + 2 * 15
