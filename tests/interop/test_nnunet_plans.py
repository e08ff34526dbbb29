"""Plans in nnU-Net's schema, against plans that nnU-Net 2.8.1 made."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.fingerprint import Fingerprint
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.interop.nnunet_plans import NNUNET_PLANNERS, plan_like_nnunet
from autoseg.planning import plan

GOLDEN_NAME = "plan_vectors.json"

TEN_SLICES = ([[10, 1.5, 1.5], [5, 1.56, 1.56], [8, 1.5, 1.5]], [[9, 256, 216], [18, 256, 216], [11, 240, 200]])

# Measured with nnU-Net 2.8.1: name, spacings, shapes, cases, keys of labels, then per planner {configuration: (patch,
# batch)}. The first rows are also in the table of nnU-Net's own decisions that our rules were written from.
MEASURED = [
    (
        "isotropic brain",
        ([[1, 1, 1]], [[138, 169, 138]], 484, 4),
        {
            "default": {"2d": ((192, 160), 105), "3d_fullres": ((128, 128, 128), 2)},
            "resenc_m": {"2d": ((192, 160), 107), "3d_fullres": ((128, 128, 128), 2)},
            "resenc_l": {"2d": ((192, 160), 301), "3d_fullres": ((160, 192, 160), 3)},
            "resenc_xl": {"2d": ((192, 160), 444), "3d_fullres": ((160, 192, 160), 5)},
        },
    ),
    (
        "hippocampus",
        ([[1, 1, 1]], [[36, 50, 35]], 260, 3),
        {
            "default": {"2d": ((56, 40), 366), "3d_fullres": ((40, 56, 40), 9)},
            "resenc_m": {"2d": ((56, 40), 1618), "3d_fullres": ((40, 56, 40), 58)},
            "resenc_xl": {"2d": ((56, 40), 6711), "3d_fullres": ((40, 56, 40), 183)},
        },
    ),
    (
        "large colour images",
        ([[999, 1, 1]], [[1, 1450, 1500]], 800, 2),
        {
            "default": {"2d": ((1024, 1280), 2)},
            "resenc_m": {"2d": ((512, 512), 13)},
            "resenc_l": {"2d": ((768, 896), 13)},
            "resenc_xl": {"2d": ((1024, 1024), 13)},
        },
    ),
    (
        "large isotropic volumes",
        ([[0.5] * 3], [[600] * 3], 20, 2),
        {
            "default": {"2d": ((640, 640), 8), "3d_lowres": ((128,) * 3, 2), "3d_fullres": ((128,) * 3, 2)},
            "resenc_l": {"2d": ((640, 640), 23), "3d_lowres": ((192,) * 3, 2), "3d_fullres": ((192,) * 3, 2)},
            "resenc_xl": {
                "2d": ((640, 640), 33),
                "3d_lowres": ((256, 224, 224), 2),
                "3d_fullres": ((256, 224, 224), 2),
            },
        },
    ),
    (
        "ten thick slices",
        (*TEN_SLICES, 200, 4),
        {
            "default": {"2d": ((256, 224), 56), "3d_fullres": ((16, 256, 224), 5)},
            "resenc_m": {"2d": ((256, 224), 57), "3d_fullres": ((16, 256, 224), 4)},
        },
    ),
    (
        "two slices, 38 classes",
        ([[12.8, 1.5, 1.5]], [[2, 375, 375]], 20, 38),
        {
            "default": {"2d": ((384, 384), 2), "3d_fullres": ((2, 384, 384), 2)},
            "resenc_m": {"2d": ((384, 384), 21), "3d_fullres": ((2, 384, 384), 9)},
        },
    ),
    (
        "coarsest axis last",
        ([[0.5, 0.48, 2.2]], [[94, 196, 93]], 1000, 42),
        {
            "default": {"2d": ((96, 224), 134), "3d_fullres": ((88, 96, 192), 2)},
            "resenc_m": {"2d": ((96, 224), 140), "3d_fullres": ((88, 80, 192), 2)},
        },
    ),
    (
        "coarsest axis in the middle",
        ([[1.02, 6.92, 0.57]], [[581, 120, 415]], 100, 3),
        {
            "default": {"2d": ((640, 448), 11), "3d_lowres": ((80, 160, 128), 2), "3d_fullres": ((48, 224, 160), 2)},
            "resenc_m": {"2d": ((576, 448), 13), "3d_lowres": ((80, 160, 112), 2), "3d_fullres": ((44, 224, 128), 2)},
            "resenc_l": {"2d": ((640, 448), 32), "3d_fullres": ((64, 256, 224), 2)},
        },
    ),
    (
        "one voxel wide",
        ([[0.8, 1, 1]], [[14, 14, 1]], 1, 3),
        {
            "default": {"2d": ((14, 1), 2), "3d_fullres": ((14, 14, 1), 2)},
            "resenc_m": {"2d": ((14, 1), 14), "3d_fullres": ((14, 14, 1), 2)},
        },
    ),
    (
        "narrow 2-D images",
        ([[999, 1, 1]], [[1, 1793, 104]], 20, 2),
        {"default": {"2d": ((2048, 112), 2)}, "resenc_m": {"2d": ((2048, 112), 14)}},
    ),
    (
        "half voxels in the median shape",
        ([[3, 1, 1], [3, 1, 1]], [[16, 33, 120], [17, 34, 131]], 50, 2),
        {
            "default": {"2d": ((40, 128), 34), "3d_fullres": ((20, 40, 128), 2)},
            "resenc_m": {"2d": ((40, 128), 625), "3d_fullres": ((20, 40, 128), 34)},
        },
    ),
]
CASES = [
    pytest.param(*given, planner, expected, id=f"{name}-{planner}")
    for name, given, planners in MEASURED
    for planner, expected in planners.items()
]


def _inputs(spacings, shapes, n_cases, n_labels, **keys):
    dataset_json = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{f"organ {index}": index for index in range(1, n_labels)}},
        "numTraining": n_cases,
        "file_ending": ".nii.gz",
        **keys,
    }
    statistics = dict.fromkeys(("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5"), 1.0)
    fingerprint = {
        "spacings": spacings,
        "shapes_after_crop": shapes,
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "median_relative_size_after_cropping": 1.0,
    }
    return dataset_json, fingerprint


def _golden():
    default = Path(__file__).parents[3] / "shared" / "golden"
    path = Path(os.environ.get("AUTOSEG_TEST_GOLDEN", default))
    path = path / GOLDEN_NAME if path.is_dir() else path
    if not path.is_file():
        pytest.skip("golden plans not present (set AUTOSEG_TEST_GOLDEN)")
    return json.loads(path.read_text())


@pytest.mark.parametrize(("spacings", "shapes", "n_cases", "n_labels", "planner", "expected"), CASES)
def test_patches_and_batches_are_nnunets(spacings, shapes, n_cases, n_labels, planner, expected):
    plans = plan_like_nnunet(*_inputs(spacings, shapes, n_cases, n_labels), planner)
    found = {
        name: (tuple(entry["patch_size"]), entry["batch_size"])
        for name, entry in plans["configurations"].items()
        if "patch_size" in entry
    }
    assert found == expected


@pytest.mark.parametrize("planner", NNUNET_PLANNERS)
def test_whole_plans_equal_the_golden_ones(planner):
    for name, vector in _golden().items():
        expected = vector["plans"].get(NNUNET_PLANNERS[planner].class_name)
        if expected is None:
            continue
        found = plan_like_nnunet(
            vector["dataset_json"], vector["fingerprint"], planner, dataset_name=expected["dataset_name"]
        )
        assert found == expected, name
        assert list(found["configurations"]) == list(expected["configurations"]), name
        assert json.loads(json.dumps(found)) == expected, name


@pytest.mark.parametrize("planner", NNUNET_PLANNERS)
def test_autosegs_own_plan_makes_the_same_decisions(planner, tmp_path):
    for name, vector in _golden().items():
        expected = plan_like_nnunet(vector["dataset_json"], vector["fingerprint"], planner)
        described = Dataset.from_json(vector["dataset_json"], name=name, folder=tmp_path)
        n_cases = vector["dataset_json"]["numTraining"]
        cases = tuple(CaseFiles(f"case_{index}", ()) for index in range(n_cases))
        dataset = Dataset(
            name, tmp_path, described.channels, described.labels, described.file_ending, cases, described.json
        )
        found = plan(dataset, Fingerprint.model_validate(vector["fingerprint"]), planner)
        assert list(found.transpose_forward) == expected["transpose_forward"]
        assert list(found.configurations) == list(expected["configurations"])
        for key, configuration in found.configurations.items():
            entry = expected["configurations"][entry_key(expected, key)]
            arguments = entry["architecture"]["arch_kwargs"]
            assert list(configuration.patch_size) == entry["patch_size"]
            assert configuration.batch_size == entry["batch_size"]
            assert list(configuration.spacing) == entry["spacing"]
            assert list(configuration.use_mask_for_norm) == entry["use_mask_for_norm"]
            assert configuration.batch_dice == entry["batch_dice"]
            assert [list(stride) for stride in configuration.topology.strides] == arguments["strides"]
            assert [list(kernel) for kernel in configuration.topology.kernels] == arguments["kernel_sizes"]
            assert list(configuration.topology.features) == arguments["features_per_stage"]


def entry_key(plans, name):
    return plans["configurations"][name].get("inherits_from", name)


def test_ignore_counts_as_an_output_as_it_does_in_nnunet():
    dense, fingerprint = _inputs([[0.5, 0.48, 2.2]], [[94, 196, 93]], 1000, 40)
    ignoring = {**dense, "labels": {**dense["labels"], "ignore": 40}}
    batches = [
        plan_like_nnunet(inputs, fingerprint)["configurations"]["2d"]["batch_size"] for inputs in (dense, ignoring)
    ]
    assert batches == [135, 134]


def test_residual_planners_share_the_caches_of_the_default_planner_except_lowres():
    plans = plan_like_nnunet(*_inputs([[0.5] * 3], [[600] * 3], 20, 2), "resenc_m")
    identifiers = {name: entry.get("data_identifier") for name, entry in plans["configurations"].items()}
    assert identifiers == {
        "2d": "nnUNetPlans_2d",
        "3d_lowres": "nnUNetResEncUNetMPlans_3d_lowres",
        "3d_fullres": "nnUNetPlans_3d_fullres",
        "3d_cascade_fullres": None,
    }
    assert plans["configurations"]["3d_lowres"]["next_stage"] == "3d_cascade_fullres"


@pytest.mark.parametrize(
    ("keys", "shape", "reader"),
    [
        ({"file_ending": ".nii.gz"}, [9, 9, 9], "SimpleITKIO"),
        ({"file_ending": ".nrrd"}, [9, 9, 9], "SimpleITKIO"),
        ({"file_ending": ".nii"}, [9, 9, 9], "NibabelIO"),
        ({"file_ending": ".png"}, [1, 9, 9], "NaturalImage2DIO"),
        ({"file_ending": ".tif"}, [1, 9, 9], "NaturalImage2DIO"),
        ({"file_ending": ".tif"}, [9, 9, 9], "Tiff3DIO"),
        ({"overwrite_image_reader_writer": "NibabelIOWithReorient"}, [9, 9, 9], "NibabelIOWithReorient"),
        ({"overwrite_image_reader_writer": "Unheard"}, [9, 9, 9], "SimpleITKIO"),
    ],
)
def test_reader_follows_from_the_file_ending(keys, shape, reader):
    assert plan_like_nnunet(*_inputs([[1, 1, 1]], [shape], 5, 2, **keys))["image_reader_writer"] == reader


def test_name_is_that_of_the_argument_then_of_dataset_json():
    inputs = _inputs([[1, 1, 1]], [[9, 9, 9]], 5, 2, name="Livers")
    assert plan_like_nnunet(*inputs)["dataset_name"] == "Livers"
    assert plan_like_nnunet(*inputs, dataset_name="Dataset007_Livers")["dataset_name"] == "Dataset007_Livers"


def test_channels_count_in_order_of_declaration_and_modality_is_their_old_name():
    dataset_json, fingerprint = _inputs([[1, 1, 1]], [[9, 9, 9]], 5, 2)
    del dataset_json["channel_names"]
    dataset_json["modality"] = {"1": "T1", "0": "CT"}
    schemes = plan_like_nnunet(dataset_json, fingerprint)["configurations"]["2d"]["normalization_schemes"]
    assert schemes == ["ZScoreNormalization", "CTNormalization"]


def test_memory_target_scales_the_budget():
    inputs = _inputs([[1, 1, 1]], [[138, 169, 138]], 484, 4)
    assert plan_like_nnunet(*inputs, gpu_memory_gb=8) == plan_like_nnunet(*inputs)
    larger = plan_like_nnunet(*inputs, gpu_memory_gb=16)["configurations"]["3d_fullres"]
    assert larger["batch_size"] > 2 or larger["patch_size"] > [128, 128, 128]


def test_planner_that_nnunet_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"'small' .*expected one of"):
        plan_like_nnunet(*_inputs([[1, 1, 1]], [[9, 9, 9]], 5, 2), "small")


@pytest.mark.parametrize("key", ["labels", "numTraining", "channel_names"])
def test_missing_key_of_dataset_json_is_named(key):
    dataset_json, fingerprint = _inputs([[1, 1, 1]], [[9, 9, 9]], 5, 2)
    del dataset_json[key]
    with pytest.raises(PlanError, match=f"dataset.json: {key} is missing"):
        plan_like_nnunet(dataset_json, fingerprint)


@pytest.mark.parametrize("key", ["spacings", "shapes_after_crop", "median_relative_size_after_cropping"])
def test_missing_key_of_the_fingerprint_is_named(key):
    dataset_json, fingerprint = _inputs([[1, 1, 1]], [[9, 9, 9]], 5, 2)
    del fingerprint[key]
    with pytest.raises(PlanError, match=f"fingerprint: {key} is missing"):
        plan_like_nnunet(dataset_json, fingerprint)
