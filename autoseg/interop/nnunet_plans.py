"""nnU-Net's plans.json from its dataset.json and fingerprint: the same decisions in nnU-Net's schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoseg.core.errors import ConfigError, PlanError
from autoseg.core.plan import Configuration, Topology
from autoseg.planning.planner import Decisions, PlannerInput, budget_scale_of, make_decisions
from autoseg.planning.presets import PLANNERS


@dataclass(frozen=True, slots=True)
class NnunetPlanner:
    """nnU-Net's names for one of our planners."""

    plans_name: str
    class_name: str


NNUNET_PLANNERS = MappingProxyType(
    {
        "default": NnunetPlanner("nnUNetPlans", "ExperimentPlanner"),
        "resenc_m": NnunetPlanner("nnUNetResEncUNetMPlans", "nnUNetPlannerResEncM"),
        "resenc_l": NnunetPlanner("nnUNetResEncUNetLPlans", "nnUNetPlannerResEncL"),
        "resenc_xl": NnunetPlanner("nnUNetResEncUNetXLPlans", "nnUNetPlannerResEncXL"),
    }
)

_SCHEMES = MappingProxyType(
    {
        "ct": "CTNormalization",
        "zscore": "ZScoreNormalization",
        "none": "NoNormalization",
        "rescale_to_0_1": "RescaleTo01Normalization",
        "rgb_to_0_1": "RGBTo01Normalization",
    }
)

_NETWORKS = MappingProxyType({"plain": "PlainConvUNet", "residual": "ResidualEncoderUNet"})
_BLOCKS_KEY = MappingProxyType({"plain": "n_conv_per_stage", "residual": "n_blocks_per_stage"})

_READERS = (
    "NaturalImage2DIO",
    "SimpleITKIO",
    "SimpleITKIOWithReorient",
    "Tiff3DIO",
    "NibabelIO",
    "NibabelIOWithReorient",
)
_READER_OF_ENDING = MappingProxyType(
    {".png": "NaturalImage2DIO", ".bmp": "NaturalImage2DIO", ".tiff": "Tiff3DIO", ".nii": "NibabelIO"}
)

_SHARED_CACHES = frozenset({"2d", "3d_fullres"})
"""Configurations whose cache all planners of nnU-Net share, under the name of the default planner."""


def plan_like_nnunet(
    dataset_json: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    planner: str = "default",
    *,
    dataset_name: str | None = None,
    gpu_memory_gb: float | None = None,
) -> dict[str, Any]:
    """Return the plans.json that nnU-Net 2.8.1 writes for a data set.

    Parameters
    ----------
    dataset_json
        nnU-Net's dataset.json. As in nnU-Net, ``numTraining`` is the number of cases, and all keys of ``labels`` count
        as outputs of the network, also ``ignore``.
    fingerprint
        nnU-Net's dataset_fingerprint.json.
    planner
        ``default``, ``resenc_m``, ``resenc_l`` or ``resenc_xl``.
    dataset_name
        Folder name of the data set, which neither file contains; None takes ``dataset_json["name"]``, otherwise
        ``"Dataset"``.
    gpu_memory_gb
        nnU-Net's ``-gpu_memory_target``, GB; None takes the memory of the planner.

    Returns
    -------
    dict
        nnU-Net's keys, ready for JSON. ``image_reader_writer`` follows from the file ending (``.tif`` counts as 2-D if
        every case has one slice); nnU-Net tries its readers on the first image instead.

    Raises
    ------
    ConfigError
        If nnU-Net has no such planner, or the memory is not a positive number.
    PlanError
        If a key is missing, or the fingerprint cannot be planned for.
    """
    if planner not in NNUNET_PLANNERS:
        raise ConfigError(f"planner: {planner!r} is not in nnU-Net, expected one of {list(NNUNET_PLANNERS)}.")
    settings, names = PLANNERS[planner], NNUNET_PLANNERS[planner]
    facts = _facts(dataset_json, fingerprint)
    decisions = make_decisions(facts, settings, budget_scale=budget_scale_of(settings, gpu_memory_gb))
    name = dataset_name if dataset_name is not None else str(dataset_json.get("name", "Dataset"))
    return {
        "dataset_name": name,
        "plans_name": names.plans_name,
        "original_median_spacing_after_transp": list(decisions.original_median_spacing),
        "original_median_shape_after_transp": list(decisions.original_median_shape),
        "image_reader_writer": _reader(dataset_json, facts),
        "transpose_forward": list(decisions.transpose_forward),
        "transpose_backward": list(decisions.transpose_backward),
        "configurations": _configurations(decisions, names.plans_name),
        "experiment_planner_used": names.class_name,
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": dict(
            _get(fingerprint, "foreground_intensity_properties_per_channel", "fingerprint")
        ),
    }


def _facts(dataset_json: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> PlannerInput:
    channels = dataset_json.get("channel_names", dataset_json.get("modality"))
    if channels is None:
        raise PlanError("dataset.json: channel_names is missing, expected a name per channel. Add the key.")
    return PlannerInput(
        spacings=tuple(tuple(spacing) for spacing in _get(fingerprint, "spacings", "fingerprint")),
        shapes=tuple(tuple(shape) for shape in _get(fingerprint, "shapes_after_crop", "fingerprint")),
        channel_names=tuple(channels.values()),  # in order of declaration, not by number
        relative_size_after_cropping=_get(fingerprint, "median_relative_size_after_cropping", "fingerprint"),
        n_cases=_get(dataset_json, "numTraining", "dataset.json"),
        n_outputs=len(_get(dataset_json, "labels", "dataset.json")),
    )


def _get(content: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in content:
        raise PlanError(f"{where}: {key} is missing, expected nnU-Net's keys. Add the key.")
    return content[key]


def _reader(dataset_json: Mapping[str, Any], facts: PlannerInput) -> str:
    """Return the name of the class with which nnU-Net reads files of this ending."""
    wanted = dataset_json.get("overwrite_image_reader_writer")
    if wanted in _READERS:
        return str(wanted)
    ending = str(dataset_json.get("file_ending", ".nii.gz")).lower()
    if ending == ".tif":
        return "NaturalImage2DIO" if all(shape[0] == 1 for shape in facts.shapes) else "Tiff3DIO"
    return _READER_OF_ENDING.get(ending, "SimpleITKIO")


def _configurations(decisions: Decisions, plans_name: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    has_lowres = "3d_lowres" in decisions.configurations
    for name, configuration in decisions.configurations.items():
        if configuration.previous_stage is not None:
            result[name] = {"inherits_from": "3d_fullres", "previous_stage": configuration.previous_stage}
            continue
        result[name] = _configuration(configuration, plans_name)
        if has_lowres and name == "3d_lowres":
            result[name]["next_stage"] = "3d_cascade_fullres"
    return result


def _configuration(configuration: Configuration, plans_name: str) -> dict[str, Any]:
    name = configuration.name
    cache_owner = "nnUNetPlans" if name in _SHARED_CACHES else plans_name
    number = int if name == "3d_lowres" else float
    resample = "resample_data_or_seg_to_shape"
    return {
        "data_identifier": f"{cache_owner}_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": [number(edge) for edge in configuration.median_shape],
        "spacing": list(configuration.spacing),
        "normalization_schemes": [_SCHEMES[scheme] for scheme in configuration.normalization],
        "use_mask_for_norm": list(configuration.use_mask_for_norm),
        "resampling_fn_data": resample,
        "resampling_fn_seg": resample,
        "resampling_fn_data_kwargs": _resampling(is_seg=False, order=3),
        "resampling_fn_seg_kwargs": _resampling(is_seg=True, order=1),
        "resampling_fn_probabilities": resample,
        "resampling_fn_probabilities_kwargs": _resampling(is_seg=False, order=1),
        "architecture": _architecture(configuration.topology),
        "batch_dice": configuration.batch_dice,
    }


def _resampling(*, is_seg: bool, order: int) -> dict[str, Any]:
    return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}


def _architecture(topology: Topology) -> dict[str, Any]:
    dims = topology.n_dims
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{_NETWORKS[topology.kind]}",
        "arch_kwargs": {
            "n_stages": topology.n_stages,
            "features_per_stage": list(topology.features),
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [list(kernel) for kernel in topology.kernels],
            "strides": [list(stride) for stride in topology.strides],
            _BLOCKS_KEY[topology.kind]: list(topology.encoder_blocks),
            "n_conv_per_stage_decoder": list(topology.decoder_blocks),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
