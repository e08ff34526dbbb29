"""The training patches of a run, as they would reach the network, for a person to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from autoseg.augmentation.warp import identity
from autoseg.cases.case import CaseRecord
from autoseg.cases.layers import TARGETS, target_layers
from autoseg.core.errors import ConfigError
from autoseg.preprocessing.file_point import point_in_file
from autoseg.sampling.batch import Batch
from autoseg.sampling.patch_view import PatchView, meanings_of
from autoseg.sampling.patches import Place, read_cutout
from autoseg.training.batches import batch_size, training_batches
from autoseg.training.request import FoldRequest


def preview_patches(request: FoldRequest, number: int, first_iteration: int = 0) -> list[PatchView]:
    """Return the first ``number`` patches that training sees from ``first_iteration`` on.

    They come from the sampler, loader and augmentation of the run itself. On a GPU training draws the same noise field
    on the device, so single intensities differ there.

    Raises
    ------
    ConfigError
        If the run is shorter than that.
    CacheError, WorkerError
        If a case cannot be read; names it.
    """
    size, length = batch_size(request), request.config.iterations
    n_batches = math.ceil(number / size)
    if first_iteration + n_batches > length:
        raise ConfigError(
            f"--iteration {first_iteration} -n {number}: the run has {length} iterations of {size} patches, numbered "
            f"from 0. Choose a smaller --iteration or -n."
        )
    batches = islice(training_batches(request, torch.device("cpu"), first_iteration), n_batches)
    views = [
        view_sample(batch, sample, iteration, request)
        for iteration, batch in enumerate(batches, first_iteration)
        for sample in range(len(batch.cases))
    ]
    return views[:number]


def original_of(view: PatchView, request: FoldRequest) -> PatchView:
    """Return the patch of the same size around the same point as ``view``, before augmentation.

    What is held out from training is shown as annotated. Raises ``CacheError`` if the case cannot be read.
    """
    labels, patch = request.dataset.labels, request.configuration.patch_size
    case = request.cache.source(view.case).open()
    middles = view.origin.centre[-len(patch) :]
    halves = [(edge - 1) / 2 for edge in patch]
    centre = tuple(round(middle - half) + half for middle, half in zip(middles, halves, strict=True))
    still = identity(len(patch))
    place = Place(centre, still, round(view.origin.centre[0]) if len(patch) == 2 else None)
    sample = read_cutout(
        case, place, patch, unknown=case.entry.table.undrawn, outside=labels.outside, layers=target_layers(labels)
    ).moved()
    return replace(
        view,
        image=sample.image.numpy(),
        codes=sample.codes.numpy().astype(np.uint16),
        origin=replace(view.origin, matrix=still.matrix, mirrors=still.mirrors, displaced=0.0, order=(), sections=()),
        numbers=tuple(sample.layers[TARGETS].numpy()) if TARGETS in sample.layers else (),
    )


def view_sample(batch: Batch, sample: int, iteration: int, request: FoldRequest) -> PatchView:
    """Return one patch of a batch with what its codes mean."""
    case, origin = batch.cases[sample], batch.origins[sample]
    entry = request.cache.entries.get(case)
    return PatchView(
        case=case,
        iteration=iteration,
        sample=sample,
        image=batch.images[sample].numpy(),
        codes=batch.codes[sample].numpy().astype(np.uint16),
        meanings=meanings_of(batch.table.of_sample(sample)),
        spacing=request.configuration.spacing,
        origin=origin,
        centre_in_file=origin.centre if entry is None else _centre_in_file(entry.record, origin.centre, request),
        numbers=tuple(batch.layers[TARGETS][sample].numpy()) if TARGETS in batch.layers else (),
    )


def _centre_in_file(record: CaseRecord, centre: Sequence[float], request: FoldRequest) -> tuple[float, float, float]:
    """Return a point of a cached case in voxels (z, y, x) of its file; of a box, of the volume in which it lies."""
    z, y, x = point_in_file(record, centre)
    volume = request.dataset.case(record.case).volume
    start = (0, 0, 0) if volume is None or volume.box is None else volume.box.start
    return (z + start[0], y + start[1], x + start[2])
