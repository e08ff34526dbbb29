"""Batches of a run: augmented patches of its training cases, and the fixed patches of its validation cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from autoseg.augmentation.recipes import Recipe, em_recipe, named_recipe
from autoseg.cases.entry import CacheEntry
from autoseg.cases.layers import target_layers
from autoseg.cases.store import CaseSource
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.extra_codes import ExtraCodeRule
from autoseg.sampling.loader import make_loader
from autoseg.training.evidence.background_prior import ZONE_BORDERS
from autoseg.training.request import FoldRequest

HELD_OUT_BLOCKS = 8
"""Held-out blocks along an edge of a patch."""
VALIDATION_SEED_OFFSET = 1_000_003
"""Added to the seed for validation patches, so that they are not the training patches."""


def batch_size(request: FoldRequest) -> int:
    """Patches per step of all devices together: as set, else the plan's, for each device if that is set."""
    return (request.config.batch_size or request.configuration.batch_size) * request.batch_devices


def recipe(request: FoldRequest) -> Recipe:
    """Augmentation of a run: the named recipe, without mirroring if that is off."""
    settings = request.config.augmentation
    if settings.name == "em":
        built = em_recipe(request.configuration, settings)
    else:
        built = named_recipe(settings.name, request.configuration)
    return built if settings.mirror else built.without_mirroring()


def training_batches(request: FoldRequest, device: torch.device, start: int) -> Iterator[Batch]:
    """Return this rank's shares of the batches from iteration ``start`` on, the same whenever they are asked for.

    On the CPU the worker processes cut patches out and augment them; a GPU does it itself, and they only read.
    """
    config, chosen = request.config, recipe(request)
    return make_loader(
        _sources(request, request.train_cases),
        request.configuration,
        config.sampling,
        chosen,
        labels=request.dataset.labels,
        start=start,
        stop=config.iterations,
        seed=config.seed,
        workers=request.workers,
        batch_size=batch_size(request),
        device=None if device.type == "cpu" else device,
        extra_codes=_extra_codes(request),
        layers=target_layers(request.dataset.labels),
        ranks=request.ranks,
    )


def validation_batches(request: FoldRequest) -> Iterator[Batch]:
    """Yield the validation patches of an epoch: without augmentation, the same in every epoch, whatever the priorities.

    There is none if nothing is annotated in the validation cases, as far as training sees it.
    """
    return _fixed_batches(request, request.val_cases, request.config.validation_iterations)


def monitor_batches(request: FoldRequest) -> Iterator[Batch]:
    """Yield the patches of training cases on which an epoch is measured: without augmentation, the same in every one.

    There is none if ``monitoring.monitor_batch_size`` is 0.
    """
    number = -(-request.config.monitoring.monitor_batch_size // batch_size(request))
    return _fixed_batches(request, request.train_cases, min(number, request.config.validation_iterations))


def _fixed_batches(request: FoldRequest, names: Sequence[str], number: int) -> Iterator[Batch]:
    """Yield ``number`` batches of patches of the named cases; none if nothing is annotated in them."""
    config, entries = request.config, request.cache.entries
    if number == 0 or not any(name not in entries or _is_annotated(entries[name]) for name in names):
        return iter(())
    return make_loader(
        [request.cache.source(name) for name in names],
        request.configuration,
        SamplingConfig(
            forced_fraction=config.sampling.forced_fraction, context_fraction=config.sampling.context_fraction
        ),
        None,
        labels=request.dataset.labels,
        start=0,
        stop=number,
        seed=config.seed + VALIDATION_SEED_OFFSET,
        batch_size=batch_size(request),
        layers=target_layers(request.dataset.labels),
        ranks=request.ranks,
    )


def _extra_codes(request: FoldRequest) -> ExtraCodeRule | None:
    """Return what is held out and which distance zones there are; None where no source of evidence needs them."""
    config, configuration = request.config, request.configuration
    labels = request.dataset.labels
    if labels.is_dense or labels.targets or not (config.evidence.background_prior or config.evidence.teacher_weight):
        return None
    patch = configuration.patch_size
    edges = [1] * (3 - len(patch)) + [max(1, edge // HELD_OUT_BLOCKS) for edge in patch]
    longest = max(edge * step for edge, step in zip(patch, configuration.spacing, strict=True))
    borders_mm = tuple(share * longest for share in ZONE_BORDERS) if config.evidence.background_prior else ()
    return ExtraCodeRule(config.evidence.held_out_fraction, (edges[0], edges[1], edges[2]), config.seed, borders_mm)


def _is_annotated(entry: CacheEntry) -> bool:
    """Whether a cached case has an annotated voxel."""
    informative = entry.table.informative
    return any(count and informative[code] for code, count in entry.code_counts.items())


def _sources(request: FoldRequest, names: Sequence[str]) -> list[CaseSource]:
    return [request.cache.source(name, request.dataset.case(name).priority) for name in names]
