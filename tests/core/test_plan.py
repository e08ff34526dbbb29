from __future__ import annotations

import pytest

from autoseg.core.errors import PlanError
from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Configuration, Plan, Topology

TOPOLOGY = Topology(
    kind="plain",
    features=(8, 16),
    strides=((1, 1, 1), (2, 2, 2)),
    kernels=((3, 3, 3), (3, 3, 3)),
    encoder_blocks=(1, 1),
    decoder_blocks=(1,),
)


@pytest.fixture
def plan() -> Plan:
    def configuration(name: str, previous: str | None = None) -> Configuration:
        return Configuration(
            name=name, spacing=(1, 1, 1), patch_size=(8, 8, 8), batch_size=2, median_shape=(9, 9, 9),
            normalization=("zscore",), use_mask_for_norm=(False,), topology=TOPOLOGY, batch_dice=False,
            previous_stage=previous,
        )  # fmt: skip

    intensities = IntensityProperties(
        mean=0, median=0, std=1, min=-1, max=1, percentile_99_5=1, percentile_00_5=-1
    )  # fmt: skip
    return Plan(
        dataset_name="toy", planner="default", transpose_forward=(0, 1, 2), transpose_backward=(0, 1, 2),
        original_median_spacing=(1, 1, 1), original_median_shape=(9, 9, 9), channel_names=("MR",),
        intensities=(intensities,),
        configurations={
            "3d_fullres": configuration("3d_fullres"),
            "3d_cascade_fullres": configuration("3d_cascade_fullres", "3d_lowres"),
        },
    )  # fmt: skip


def test_a_topology_knows_its_stages_and_axes():
    assert (TOPOLOGY.n_stages, TOPOLOGY.n_dims) == (2, 3)


def test_a_plan_survives_json(plan):
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_configuration_that_is_not_there_is_named_with_those_that_are(plan):
    with pytest.raises(PlanError, match=r"'2d', expected .*'3d_fullres', '3d_cascade"):
        plan.configuration("2d")
