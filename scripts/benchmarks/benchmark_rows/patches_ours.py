"""Our side of the rows on patches: the loader as training on a CPU runs it, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.augmentation.mirror import Mirror
from autoseg.augmentation.recipes import Recipe, nnunet_recipe
from autoseg.cases.cache import cached_source, write_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.cases.store import CaseSource
from autoseg.core.geometry import Geometry
from autoseg.core.plan import Configuration, Topology
from autoseg.dataset.labels import Head, Labels
from autoseg.preprocessing.locations import find_locations
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.extra_codes import ExtraCodeRule
from autoseg.sampling.loader import make_loader
from autoseg.training.batches import HELD_OUT_BLOCKS
from autoseg.training.config import SCRIBBLED, TrainingConfig
from autoseg.training.evidence.background_prior import ZONE_BORDERS
from benchmark_rows.patches import N_CLASSES, SMALL_PATCHES, UNKNOWN, features, thinned


def batches(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Fill a cache, write features of small patches, and return what draws the next ``batches`` batches."""
    sources = [write_cached(folder, index, settings["is_sparse"]) for index in range(len(settings["shapes"]))]
    _write_features(folder, sources, settings)
    sampling = SamplingConfig(context_fraction=SCRIBBLED["sampling.context_fraction"] if settings["is_sparse"] else 0)
    loader = _load(sources, settings, settings["patch"], settings["batch"], sampling, _recipe(settings))

    def run() -> dict[str, Any]:
        drawn = list(islice(loader, settings["batches"]))
        return {
            "images": np.stack([thinned(batch.images.numpy()) for batch in drawn]),
            "codes": np.stack([thinned(batch.codes.numpy()) for batch in drawn]),
        }

    return run


def _write_features(folder: Path, sources: list[CaseSource], settings: dict[str, Any]) -> None:
    """Write the recipe, and features of small patches anywhere to which every transform was applied."""
    recipe = _recipe(settings)
    (folder / "ours_settings.json").write_text(json.dumps(_settings_of(recipe)))
    always = replace(recipe, operations=tuple(_always(operation) for operation in recipe.operations))
    anywhere = SamplingConfig(forced_fraction=0, context_fraction=1)
    small = islice(_load(sources, settings, settings["small"], 20, anywhere, always), SMALL_PATCHES // 20)
    found = [features(batch.images.numpy(), None if settings["is_sparse"] else batch.codes.numpy()) for batch in small]
    np.save(folder / "ours_features.npy", np.concatenate(found))


def _load(
    sources: list[CaseSource],
    settings: dict[str, Any],
    patch: list[int],
    batch_size: int,
    sampling: SamplingConfig,
    recipe: Recipe,
) -> Iterator[Batch]:
    """Return the loader as training makes it."""
    extra_codes = None
    if settings["is_sparse"]:  # as training does where so little is annotated
        edges = [1, *(max(1, edge // HELD_OUT_BLOCKS) for edge in patch)][-3:]
        borders_mm = tuple(share * max(patch) for share in ZONE_BORDERS)
        extra_codes = ExtraCodeRule(
            TrainingConfig().evidence.held_out_fraction, (edges[0], edges[1], edges[2]), 0, borders_mm
        )
    return make_loader(
        sources,
        _configuration(patch, batch_size, settings["channels"]),
        sampling,
        recipe,
        labels=_labels(settings["is_sparse"]),
        start=0,
        stop=10**6,
        seed=settings["seeds"][0],
        extra_codes=extra_codes,
    )


def _always(operation: Any) -> Any:
    """Return an operation that is applied to every sample and channel; mirrors stay as likely as they are."""
    names = [name for name in type(operation).model_fields if name.endswith("probability")]
    return operation if isinstance(operation, Mirror) else operation.model_copy(update=dict.fromkeys(names, 1.0))


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return probabilities and ranges by the names of the other side's settings."""
    rotation, scaling, mirror, noise, blur, brightness, contrast, coarse, inverted, gamma = (
        operation.model_dump() for operation in recipe.operations
    )
    return {
        "rotation_probability": rotation["probability"],
        "rotation_degrees": rotation["degrees"],
        "scaling_probability": scaling["probability"],
        "scaling_range": scaling["factor_range"],
        "in_plane": rotation["in_plane"],
        "mirror_axes": mirror["axes"],
        "noise_probability": noise["probability"],
        "noise_sigma_range": noise["sigma_range"],
        "blur_probability": blur["probability"],
        "blur_channel_probability": blur["channel_probability"],
        "blur_sigma_range": blur["sigma_range"],
        "brightness_probability": brightness["probability"],
        "brightness_range": brightness["factor_range"],
        "contrast_probability": contrast["probability"],
        "contrast_range": contrast["factor_range"],
        "low_resolution_probability": coarse["probability"],
        "low_resolution_channel_probability": coarse["channel_probability"],
        "low_resolution_range": coarse["scale_range"],
        "gamma_inverted_probability": inverted["probability"],
        "gamma_probability": gamma["probability"],
        "gamma_range": gamma["exponent_range"],
    }


def _recipe(settings: dict[str, Any]) -> Recipe:
    return nnunet_recipe(_configuration(settings["patch"], settings["batch"], settings["channels"]))


def write_cached(folder: Path, index: int, is_sparse: bool) -> CaseSource:
    """Write the case that was made as number ``index`` into a cache in the same folder."""
    image, codes = (np.load(folder / f"case_{index}_{kind}.npy") for kind in ("image", "codes"))
    table = np.concatenate([np.eye(N_CLASSES, dtype=bool), np.ones((1, N_CLASSES), dtype=bool)])
    name, shape, spacing = f"case_{index}", codes.shape, (1.0, 1.0, 1.0)
    record = CaseRecord(
        case=name, geometry=Geometry(spacing=spacing), transpose=(0, 1, 2), shape_before_crop=shape,
        crop_low=(0, 0, 0), crop_high=shape, spacing_before=spacing, spacing=spacing, shape=shape,
    )  # fmt: skip
    found = find_locations(codes, table)
    entry = CacheEntry(
        record=record,
        label_sets=tuple(tuple(np.flatnonzero(row).tolist()) for row in table),
        undrawn=UNKNOWN,
        n_classes=N_CLASSES,
        locations=found.slices,
        code_counts=found.counts,
        fingerprint="",
    )
    write_case(folder, name, image=image, codes=codes, locations=found.indices, entry=entry)
    return cached_source(folder, name)


def _labels(is_sparse: bool) -> Labels:
    names = ("background", *(f"organ_{index}" for index in range(1, N_CLASSES)))
    heads = tuple(Head(name, (k,), (k,), is_background=k == 0) for k, name in enumerate(names))
    return Labels(tuple(range(N_CLASSES)), names, heads, ignore=UNKNOWN if is_sparse else None)


def _configuration(patch: list[int], batch_size: int, n_channels: int) -> Configuration:
    n_axes = len(patch)
    topology = Topology(
        kind="plain", features=(1,), strides=((1,) * n_axes,), kernels=((3,) * n_axes,), encoder_blocks=(1,),
        decoder_blocks=(),
    )  # fmt: skip
    return Configuration(
        name=f"{n_axes}d", spacing=(1.0,) * n_axes, patch_size=tuple(patch), batch_size=batch_size,
        median_shape=tuple(patch), normalization=("zscore",) * n_channels, use_mask_for_norm=(False,) * n_channels,
        topology=topology, batch_dice=False,
    )  # fmt: skip
