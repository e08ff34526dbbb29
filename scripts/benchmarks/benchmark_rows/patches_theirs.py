"""nnU-Net's side of the rows on patches: its data loader on its own files, with its training transforms."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmark_rows.patches import N_CLASSES, SMALL_PATCHES, UNKNOWN, features, thinned


def batches(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Write the preprocessed cases and features of small patches; return what draws the next ``batches`` batches."""
    import torch

    os.environ |= dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(folder))
    torch.set_num_threads(1)
    _seed(0)
    _write_cases(folder / "theirs_cases", settings)
    anywhere = {**settings, "is_sparse": False}  # or patches would lie around annotation
    small = _loader(folder, anywhere, settings["small"], 20, oversampled=0)
    (folder / "theirs_settings.json").write_text(json.dumps(_settings(small.transforms.transforms)))
    _always(small.transforms.transforms)
    found = []
    for _ in range(SMALL_PATCHES // 20):
        batch = next(small)
        codes = None if settings["is_sparse"] else batch["target"].numpy()[:, 0]
        found.append(features(batch["data"].numpy(), codes))
    np.save(folder / "theirs_features.npy", np.concatenate(found))
    loader = _loader(folder, settings, settings["patch"], settings["batch"], oversampled=0.33)

    def run() -> dict[str, Any]:
        _seed(settings["seeds"][1])
        drawn = [next(loader) for _ in range(settings["batches"])]
        return {
            "images": np.stack([thinned(batch["data"].numpy()) for batch in drawn]),
            "codes": np.stack([thinned(batch["target"].numpy()[:, 0]) for batch in drawn]),
        }

    return run


def _seed(seed: int) -> None:
    import torch

    np.random.seed(seed)
    torch.manual_seed(seed)


def _write_cases(folder: Path, settings: dict[str, Any]) -> None:
    """Write the cases as ``DefaultPreprocessor.run_case_save`` does."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    labels = _labels(settings)
    wanted = [*labels.foreground_labels, *([[-1, *labels.all_labels]] if labels.has_ignore_label else [])]
    for index in range(len(settings["shapes"])):
        image = np.load(folder.parent / f"case_{index}_image.npy")
        codes = np.load(folder.parent / f"case_{index}_codes.npy").astype(np.int16)[None]
        locations = DefaultPreprocessor._sample_foreground_locations(codes, wanted)
        parts = [comp_blosc2_params(array.shape, settings["patch"], array.itemsize) for array in (image, codes)]
        nnUNetDatasetBlosc2.save_case(
            image, codes, {"class_locations": locations}, str(folder / f"case_{index}"),
            blocks=parts[0][0], chunks=parts[0][1], blocks_seg=parts[1][0], chunks_seg=parts[1][1],
        )  # fmt: skip


def _loader(folder: Path, settings: dict[str, Any], patch: list[int], batch_size: int, oversampled: float) -> Any:
    """Return the loader as ``nnUNetTrainer.get_dataloaders`` makes it, augmenting as for the variant's patch.

    Without the copies of the labels for deep supervision, which autoseg makes in the loss.
    """
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    trainer: Any = SimpleNamespace(
        configuration_manager=SimpleNamespace(patch_size=settings["patch"]),
        print_to_log_file=lambda *text: None,
    )
    rotation, in_plane, initial, mirrored = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        trainer
    )
    if patch != settings["patch"]:
        initial = get_patch_size(patch, rotation, rotation, rotation, (0.85, 1.25))
        initial[0] = patch[0] if in_plane else initial[0]
    labels = _labels(settings)
    transforms = nnUNetTrainer.get_training_transforms(
        np.array(patch), rotation, None, mirrored, in_plane,
        use_mask_for_norm=[False] * settings["channels"], ignore_label=labels.ignore_label,
    )  # fmt: skip
    return nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(folder / "theirs_cases")), batch_size, initial, patch, labels,
        oversample_foreground_percent=oversampled, transforms=transforms,
    )  # fmt: skip


def _settings(transforms: list[Any]) -> dict[str, Any]:
    """Return probabilities and ranges by the names that our side writes them under."""
    spatial = next(one for one in transforms if type(one).__name__ == "SpatialTransform")
    mirror = next(one for one in transforms if type(one).__name__ == "MirrorTransform")
    noise, blur, brightness, contrast, coarse, inverted, gamma = (one for one in transforms if _is_random(one))
    return {
        "rotation_probability": spatial.p_rotation,
        "rotation_degrees": float(np.degrees(spatial.rotation[1])),
        "scaling_probability": spatial.p_scaling,
        "scaling_range": spatial.scaling,
        "in_plane": type(transforms[0]).__name__ == "Convert3DTo2DTransform",
        "mirror_axes": mirror.allowed_axes,
        "noise_probability": noise.apply_probability,
        "noise_sigma_range": noise.transform.noise_variance,
        "blur_probability": blur.apply_probability,
        "blur_channel_probability": blur.transform.p_per_channel,
        "blur_sigma_range": blur.transform.blur_sigma,
        "brightness_probability": brightness.apply_probability,
        "brightness_range": brightness.transform.multiplier_range.contrast_range,
        "contrast_probability": contrast.apply_probability,
        "contrast_range": contrast.transform.contrast_range.contrast_range,
        "low_resolution_probability": coarse.apply_probability,
        "low_resolution_channel_probability": coarse.transform.p_per_channel,
        "low_resolution_range": coarse.transform.scale,
        "gamma_inverted_probability": inverted.apply_probability * inverted.transform.p_invert_image,
        "gamma_probability": gamma.apply_probability * (1 - gamma.transform.p_invert_image),
        "gamma_range": gamma.transform.gamma.contrast_range,
    }


def _always(transforms: list[Any]) -> None:
    """Apply every transform to every patch."""
    for transform in transforms:
        if _is_random(transform):
            transform.apply_probability = transform.transform.p_per_channel = 1
        elif type(transform).__name__ == "SpatialTransform":
            transform.p_rotation = transform.p_scaling = 1


def _is_random(transform: Any) -> bool:
    return type(transform).__name__ == "RandomTransform"


def _labels(settings: dict[str, Any]) -> Any:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    names = {"background": 0} | {f"organ_{value}": value for value in range(1, N_CLASSES)}
    return LabelManager(names | ({"ignore": UNKNOWN} if settings["is_sparse"] else {}), None)
