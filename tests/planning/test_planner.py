"""Decisions of a plan for whole data sets."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.fingerprint import Fingerprint, IntensityProperties
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.planning import PLANNERS, plan
from autoseg.planning.memory import feature_map_values
from autoseg.planning.planner import normalizations

STATISTICS = IntensityProperties(mean=0, median=0, std=1, min=-1, max=1, percentile_99_5=1, percentile_00_5=-1)


def make_dataset(folder, *, labels=None, channels=("CT",), n_cases=20, **keys):
    names = {str(index): name for index, name in enumerate(channels)}
    content = {
        "channel_names": names,
        "labels": labels or {"background": 0, "organ": 1},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
        **keys,
    }
    described = Dataset.from_json(content, name="Dataset001_Toy", folder=folder)
    cases = tuple(CaseFiles(f"case_{index:03d}", ()) for index in range(n_cases))
    return Dataset(
        described.name, folder, described.channels, described.labels, described.file_ending, cases, described.json
    )


def make_fingerprint(spacing, shape, *, channels=1, relative=1.0):
    return Fingerprint(
        spacings=(spacing,),
        shapes_after_crop=(shape,),
        foreground_intensity_properties_per_channel={str(channel): STATISTICS for channel in range(channels)},
        median_relative_size_after_cropping=relative,
    )


def test_single_slices_get_a_2d_configuration_only(tmp_path):
    made = plan(make_dataset(tmp_path), make_fingerprint((999, 1, 1), (1, 300, 200)))
    assert list(made.configurations) == ["2d"]
    assert made.configurations["2d"].spacing == (1, 1)


def test_the_memory_of_a_task_is_that_of_its_outputs(tmp_path):
    fingerprint = make_fingerprint((1, 1, 1), (200, 200, 200))
    wide = plan(make_dataset(tmp_path, task="split_task:Split"), fingerprint, "small", 0.9)
    classes = {"background": 0, "even": 1, "odd": 2}
    assert wide == plan(make_dataset(tmp_path, labels=classes), fingerprint, "small", 0.9)


def test_large_images_get_a_low_resolution_configuration_and_a_cascade(tmp_path):
    made = plan(make_dataset(tmp_path), make_fingerprint((0.5, 0.5, 0.5), (600, 600, 600)))
    assert list(made.configurations) == ["2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres"]
    lowres, fullres = made.configuration("3d_lowres"), made.configuration("3d_fullres")
    cascade = made.configuration("3d_cascade_fullres")
    assert lowres.spacing == pytest.approx((1.4926133,) * 3)
    assert (lowres.batch_dice, fullres.batch_dice) == (False, True)
    assert cascade.previous_stage == "3d_lowres"
    assert cascade.patch_size == fullres.patch_size == (128, 128, 128)


def test_volumes_larger_than_memory_get_no_low_resolution(tmp_path):
    dataset, fingerprint = make_dataset(tmp_path), make_fingerprint((0.5, 0.5, 0.5), (600, 600, 600))
    assert "3d_lowres" in plan(dataset, fingerprint).configurations
    of_volumes = fingerprint.model_copy(update={"has_volumes": True})
    assert tuple(plan(dataset, of_volumes).configurations) == ("2d", "3d_fullres")


def test_axes_are_reordered_with_the_coarsest_first(tmp_path):
    made = plan(make_dataset(tmp_path), make_fingerprint((0.7, 0.8, 3.0), (400, 380, 90)))
    assert made.transpose_forward == (2, 0, 1)
    assert made.transpose_backward == (1, 2, 0)
    assert made.original_median_shape == (90, 400, 380)
    assert made.configuration("3d_fullres").spacing == (3.0, 0.7, 0.8)


def test_ignore_does_not_change_the_plan(tmp_path):
    labels = {"background": 0, **{f"organ {index}": index for index in range(1, 30)}}
    fingerprint = make_fingerprint((1, 1, 1), (138, 169, 138))
    dense = plan(make_dataset(tmp_path, labels=labels), fingerprint)
    sparse = plan(make_dataset(tmp_path, labels={**labels, "ignore": 30}), fingerprint)
    assert sparse.configurations == dense.configurations


def test_regions_count_as_nnunet_counts_them(tmp_path):
    """nnU-Net counts the keys of labels: the regions and background."""
    fingerprint = make_fingerprint((999, 1, 1), (1, 4000, 4000))
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "edge": 3}
    classes = {"background": 0, "a": 1, "b": 2, "c": 3}
    with_regions = plan(make_dataset(tmp_path, labels=regions, regions_class_order=[1, 2, 3]), fingerprint)
    assert with_regions.configurations == plan(make_dataset(tmp_path, labels=classes), fingerprint).configurations


def test_more_memory_gives_larger_patches_and_less_gives_smaller(tmp_path):
    dataset, fingerprint = make_dataset(tmp_path), make_fingerprint((1, 1, 1), (300, 300, 300))
    sizes = [
        sum(plan(dataset, fingerprint, gpu_memory_gb=memory).configuration("3d_fullres").patch_size)
        for memory in (2, 8, 24)
    ]
    assert sizes[0] < sizes[1] < sizes[2]
    assert plan(dataset, fingerprint, gpu_memory_gb=8) == plan(dataset, fingerprint)


def test_masks_apply_to_zscores_of_well_cropped_images_only(tmp_path):
    dataset = make_dataset(tmp_path, channels=("CT", "T1"))
    for relative, expected in ((0.74, (False, True)), (0.75, (False, False))):
        made = plan(dataset, make_fingerprint((1, 1, 1), (64, 64, 64), channels=2, relative=relative))
        assert made.configuration("2d").use_mask_for_norm == expected


def test_channel_names_choose_the_normalization_whatever_their_case():
    names = ("ct", "CT", "noNorm", "zScore", "rescale_to_0_1", "RGB_to_0_1", "T1")
    expected = ("ct", "ct", "none", "zscore", "rescale_to_0_1", "rgb_to_0_1", "zscore")
    assert normalizations(names) == expected


SMALL_CASES = {
    "hippocampus": ((1, 1, 1), (36, 50, 35), "3d_fullres", (40, 56, 40)),
    "heart_2d": ((10, 1.5, 1.5), (9, 256, 216), "2d", (160, 160)),
    "large_ct": ((1, 0.8, 0.8), (400, 512, 512), "3d_fullres", (40, 56, 56)),
}


@pytest.mark.parametrize("name", SMALL_CASES)
def test_small_planner_makes_patches_for_two_cores(name, tmp_path):
    spacing, shape, configuration, patch = SMALL_CASES[name]
    made = plan(make_dataset(tmp_path, n_cases=130), make_fingerprint(spacing, shape), "small")
    chosen = made.configuration(configuration)
    assert chosen.patch_size == patch
    assert 2 <= chosen.batch_size <= 8
    assert max(chosen.topology.features) <= 128


@settings(max_examples=60, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.05, 20)] * 3),
    shape=st.tuples(*[st.sampled_from([1, 2, 5, 9, 16, 31, 64, 130, 400])] * 3),
    planner=st.sampled_from(sorted(PLANNERS)),
    n_cases=st.integers(1, 300),
)
def test_every_plan_is_valid(tmp_path_factory, spacing, shape, planner, n_cases):
    made = plan(
        make_dataset(tmp_path_factory.getbasetemp(), n_cases=n_cases), make_fingerprint(spacing, shape), planner
    )
    preset = PLANNERS[planner]
    for configuration in made.configurations.values():
        topology = configuration.topology
        assert topology.n_stages >= 1
        assert configuration.batch_size >= 2
        for axis, edge in enumerate(configuration.patch_size):
            divisor = 1
            for stride in topology.strides:
                divisor *= stride[axis]
            assert edge >= 1
            assert edge % divisor == 0
        values = feature_map_values(topology, configuration.patch_size, 2)
        factor = (preset.patch_batch or preset.reference_batch(topology.n_dims)) / preset.reference_batch(
            topology.n_dims
        )
        assert values * factor <= preset.budget(topology.n_dims)


def test_planning_is_deterministic(tmp_path):
    fingerprint = make_fingerprint((2, 1, 1), (80, 300, 300))
    assert plan(make_dataset(tmp_path), fingerprint) == plan(make_dataset(tmp_path), fingerprint)


def test_unknown_planner_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"planner: .*'huge'.*\['default'"):
        plan(make_dataset(tmp_path), make_fingerprint((1, 1, 1), (9, 9, 9)), "huge")


@pytest.mark.parametrize("memory", [0, -1, float("nan"), float("inf")])
def test_memory_must_be_positive(memory, tmp_path):
    with pytest.raises(ConfigError, match="expected a positive number of GB"):
        plan(make_dataset(tmp_path), make_fingerprint((1, 1, 1), (9, 9, 9)), gpu_memory_gb=memory)


def test_fingerprint_of_another_data_set_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"2 channels.* 1: \['CT'\]"):
        plan(make_dataset(tmp_path), make_fingerprint((1, 1, 1), (9, 9, 9), channels=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacings": (), "shapes_after_crop": ()}, "no cases"),
        ({"spacings": ((1, 1, 1), (1, 1, 1))}, "2 spacings and 1 shapes"),
        ({"spacings": ((0, 1, 1),)}, "not positive"),
    ],
)
def test_useless_fingerprint_is_refused(change, message, tmp_path):
    fingerprint = make_fingerprint((1, 1, 1), (9, 9, 9)).model_copy(update=change)
    with pytest.raises(PlanError, match=message):
        plan(make_dataset(tmp_path), fingerprint)
