"""Plans and fingerprints survive their files."""

from __future__ import annotations

import pytest

from autoseg.core.errors import PlanError
from autoseg.core.fingerprint import Fingerprint, IntensityProperties
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.core.plan import Configuration, Plan, Topology
from autoseg.planning.files import load_fingerprint, load_plan, save_fingerprint, save_plan

STATISTICS = IntensityProperties(mean=0.1, median=0, std=1, min=-1, max=1, percentile_99_5=1, percentile_00_5=-1)


@pytest.fixture
def fingerprint():
    return Fingerprint(
        spacings=((1.1, 0.1, 1 / 3),),
        shapes_after_crop=((3, 4, 5),),
        foreground_intensity_properties_per_channel={"0": STATISTICS},
        median_relative_size_after_cropping=0.9,
        cases=("a",),
        annotated_fraction={"a": 0.25},
    )


@pytest.fixture
def small_plan():
    topology = Topology(
        kind="plain",
        features=(4,),
        strides=((1, 1),),
        kernels=((3, 3),),
        encoder_blocks=(2,),
        decoder_blocks=(),
    )
    flat = Configuration(
        name="2d",
        spacing=(0.1, 1 / 3),
        patch_size=(4, 5),
        batch_size=2,
        median_shape=(4, 5.5),
        normalization=("ct",),
        use_mask_for_norm=(False,),
        topology=topology,
        batch_dice=True,
    )
    return Plan(
        dataset_name="Toy",
        planner="small",
        transpose_forward=(2, 0, 1),
        transpose_backward=(1, 2, 0),
        original_median_spacing=(3, 0.1, 1 / 3),
        original_median_shape=(1, 4, 5),
        channel_names=("CT",),
        intensities=(STATISTICS,),
        configurations={"2d": flat},
    )


def test_plan_is_read_as_it_was_written(small_plan, tmp_path):
    save_plan(small_plan, tmp_path / "new" / "plans.json")
    assert load_plan(tmp_path / "new" / "plans.json") == small_plan


def test_fingerprint_is_read_as_it_was_written(fingerprint, tmp_path):
    save_fingerprint(fingerprint, tmp_path / "fingerprint.json")
    assert load_fingerprint(tmp_path / "fingerprint.json") == fingerprint


def test_files_from_before_mean_cases_as_stored_and_cropped(small_plan, fingerprint, tmp_path):
    new = {
        "plan": {"direction", "crop"},
        "fingerprint": {"direction", "turned", "foreground_outside", "background_outside"},
    }
    (tmp_path / "plans.json").write_text(small_plan.model_dump_json(exclude=new["plan"]))
    (tmp_path / "fingerprint.json").write_text(fingerprint.model_dump_json(exclude=new["fingerprint"]))
    plan = load_plan(tmp_path / "plans.json")
    ras = Geometry(spacing=(3, 2, 1), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    assert plan.crop
    assert plan.voxel_order(ras) == VoxelOrder(plan.transpose_forward)
    assert load_fingerprint(tmp_path / "fingerprint.json").crop


def test_missing_file_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"plans\.json: no such file.*Plan again"):
        load_plan(tmp_path / "plans.json")
    with pytest.raises(PlanError, match="expected a fingerprint"):
        load_fingerprint(tmp_path / "dataset_fingerprint.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"planner": "small", "surprise": 1}'])
def test_malformed_plan_is_refused(text, tmp_path):
    path = tmp_path / "plans.json"
    path.write_text(text)
    with pytest.raises(PlanError, match=r"plans\.json: found"):
        load_plan(path)


def test_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "plans.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match="cannot be read"):
        load_plan(path)
