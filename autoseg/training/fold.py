"""Train one fold: the one place where data, network, loss, loop and checkpoints are wired together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoseg.augmentation.recipes import Recipe, augment_intensity, named_recipe
from autoseg.cases.cache import CaseCache
from autoseg.cases.entry import CacheEntry
from autoseg.cases.layers import input_channels
from autoseg.cases.store import CaseSource
from autoseg.core.atomic import write_json
from autoseg.core.components import resolve
from autoseg.core.errors import ModelError
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import Dataset
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autoseg.nn.device import autocast_dtype, select_device
from autoseg.nn.losses import LabelSetLoss, VoxelLoss
from autoseg.sampling.batch import Batch
from autoseg.sampling.config import SamplingConfig
from autoseg.sampling.extra_codes import ExtraCodeRule
from autoseg.sampling.loader import make_loader
from autoseg.sampling.places import intensity_generators
from autoseg.tasks.task import task_of
from autoseg.training.config import TrainingConfig
from autoseg.training.evidence.background_prior import ZONE_BORDERS, BackgroundPrior
from autoseg.training.evidence.loss import EvidenceLoss
from autoseg.training.evidence.promises import Promises
from autoseg.training.evidence.source import EvidenceSource
from autoseg.training.evidence.teacher import Teacher
from autoseg.training.evidence.totals import Totals
from autoseg.training.history import draw_history, write_history
from autoseg.training.objective import Objective
from autoseg.training.optim import build_optimization, optimizer_name
from autoseg.training.pretrained import Before, load_pretrained
from autoseg.training.resuming import BEST, CHANGEABLE, FINAL, LATEST, changes_so_far, forbidden_changes
from autoseg.training.trainer import Hooks, Parts, Progress, train

log = logging.getLogger(__name__)

LOSSES: dict[str, Callable[[Tensor | None, bool], VoxelLoss]] = {"label_sets": LabelSetLoss}
"""(regions (O, K) bool or None for a softmax over outputs, whether Dice pools the batch) -> loss."""
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
HELD_OUT_BLOCKS = 8
"""Held-out blocks along an edge of a patch."""
VALIDATION_SEED_OFFSET = 1_000_003
"""Added to the seed for validation patches, so that they are not the training patches."""


@dataclass(frozen=True, slots=True)
class FoldRequest:
    """What to train, on what, and where it goes."""

    dataset: Dataset
    plan: Plan
    configuration: Configuration
    cache: CaseCache
    """The preprocessed cases of this configuration."""
    train_cases: tuple[str, ...]
    val_cases: tuple[str, ...]
    fold: str
    """``"0"`` .. or ``"all"``."""
    folder: Path
    """``.../<name>__<configuration>/fold_<k>``."""
    config: TrainingConfig
    device: str = "auto"
    workers: int = 1
    name: str = "default"
    """Of the run."""
    pretrained: Path | None = None
    """Checkpoint whose weights are the start; see :func:`autoseg.training.pretrained.load_pretrained`."""
    max_runtime_s: float | None = None


@dataclass(frozen=True, slots=True)
class FoldResult:
    """How a call of :func:`train_fold` ended."""

    progress: Progress
    is_finished: bool
    """False when it was interrupted: the latest checkpoint holds all that is needed to go on."""
    seconds: float


def train_fold(
    request: FoldRequest,
    *,
    resume: bool = False,
    on_steps: Callable[[Progress, float, float], None] = lambda progress, loss, rate: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FoldResult:
    """Train (or go on training) one fold and write its checkpoints, history and picture.

    ``checkpoint_latest.pt`` is written after every epoch and wherever the run ends, ``checkpoint_best.pt`` when the
    smoothed online Dice is the highest so far, ``checkpoint_final.pt`` at the end. On the CPU a run that was stopped
    or killed and resumed has bit by bit the weights of one that was not. With ``max_runtime_s`` the run ends, as
    finished, after the step in which that time is up.

    Raises
    ------
    ModelError
        ``resume`` without a checkpoint, or with one of another plan or other settings.
    ConfigError
        A component or device that is not there, or weights that do not fit the network.
    """
    started = time.monotonic()
    latest = load_checkpoint(request.folder / LATEST) if resume else None
    precision = _precision(request, latest)
    parts = build_parts(request, precision)
    progress = Progress()
    changes = changes_so_far(latest, request.config)
    if latest is not None:
        progress = _restore(parts, request, latest)
        write_history(request.folder / "history.jsonl", progress.records)  # a kill may have come between the two
    before = _start(parts, request, latest)
    parts = replace(parts, seen_validation_cases=len(before.seen_validation_cases))
    _write_settings(request, precision, parts, before, changes)

    def save(name: str, progress: Progress) -> None:
        save_checkpoint(request.folder / name, _checkpoint(request, parts, progress, precision, before, changes))

    def on_epoch(progress: Progress, is_best: bool) -> None:
        if is_best:  # before the latest: a kill between the two repeats the epoch, and neither is lost
            save(BEST, progress)
        save(LATEST, progress)
        write_history(request.folder / "history.jsonl", progress.records)
        draw_history(request.folder / "progress.png", progress.records)

    def out_of_time() -> bool:
        return request.max_runtime_s is not None and time.monotonic() - started >= request.max_runtime_s

    hooks = Hooks(on_steps, on_epoch, lambda: should_stop() or out_of_time())
    progress = train(parts, request.config, progress, hooks)
    is_finished = progress.iteration >= request.config.iterations or (out_of_time() and not should_stop())
    if not progress.records or progress.records[-1].iteration < progress.iteration:  # not saved by an epoch
        save(LATEST, progress)
    if is_finished:
        save(FINAL, progress)
    return FoldResult(progress, is_finished, time.monotonic() - started)


def build_parts(request: FoldRequest, precision: str) -> Parts:
    """Put together everything that :func:`autoseg.training.trainer.train` needs, weights drawn from the seed."""
    config, labels, configuration = request.config, request.dataset.labels, request.configuration
    device = select_device(request.device)
    objective = Objective(task_of(labels), device)
    torch.manual_seed(config.seed)
    network = build_network(
        configuration.topology,
        n_channels=len(input_channels(request.plan, configuration, labels)),
        n_outputs=len(objective.task.outputs),
        deep_supervision=config.deep_supervision,
    ).to(device)
    build_loss = resolve("loss", config.loss, LOSSES)
    strides = network.output_strides if config.deep_supervision else None
    return Parts(
        network=network,
        loss=EvidenceLoss(build_loss(objective.regions, configuration.batch_dice), strides, labels.unknown),
        optimization=build_optimization(network.parameters(), config),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == "float16"),
        device=device,
        autocast_dtype=PRECISIONS[precision],
        training_batches=lambda start: training_batches(request, device, start),
        validation_batches=lambda: validation_batches(request),
        objective=objective,
        evidence=_evidence_sources(request, device),
        is_dense=labels.is_dense,
    )


def _evidence_sources(request: FoldRequest, device: torch.device) -> tuple[EvidenceSource, ...]:
    """Return what infers more than the annotation; () if nothing. Promises first: others compare with their weights."""
    config, labels = request.config, request.dataset.labels
    if labels.is_dense:
        return ()
    entries = [request.cache.entries[name] for name in request.train_cases if name in request.cache.entries]
    totals = Totals.of(entries, labels)
    infers = totals.n_promised > 0 and config.promise_weight > 0
    if not (infers or config.background_prior or config.teacher_weight):
        return ()
    sources: list[EvidenceSource] = [Promises(config.promise_weight, labels, totals, device)]
    if config.background_prior:
        sources.append(BackgroundPrior(config.background_prior, labels, totals, device))
    if config.teacher_weight:
        is_whole = not request.configuration.is_2d or all(entry.record.shape[0] == 1 for entry in entries)
        sources.append(Teacher(config, labels, request.dataset.protocol.instances_touched and is_whole))
    return tuple(sources)


def _extra_codes(request: FoldRequest) -> ExtraCodeRule | None:
    """Return what is held out and which distance zones there are; None where no source of evidence needs them."""
    config, configuration = request.config, request.configuration
    if request.dataset.labels.is_dense or not (config.background_prior or config.teacher_weight):
        return None
    patch = configuration.patch_size
    edges = [1] * (3 - len(patch)) + [max(1, edge // HELD_OUT_BLOCKS) for edge in patch]
    longest = max(edge * step for edge, step in zip(patch, configuration.spacing, strict=True))
    borders_mm = tuple(share * longest for share in ZONE_BORDERS) if config.background_prior else ()
    return ExtraCodeRule(config.held_out_fraction, (edges[0], edges[1], edges[2]), config.seed, borders_mm)


def _precision(request: FoldRequest, latest: Checkpoint | None) -> str:
    """Name the arithmetic: as set, as the run was begun, or what is fastest on the device."""
    if request.config.precision != "auto":
        return request.config.precision
    if latest is not None:
        return str(latest.state["precision"])
    dtype = autocast_dtype(select_device(request.device))
    return next(name for name, value in PRECISIONS.items() if value is dtype)


def _start(parts: Parts, request: FoldRequest, latest: Checkpoint | None) -> Before:
    """Load the weights that a new run starts from, if any; return what weights had seen before the run."""
    contents = {name: entry.images for name, entry in request.cache.entries.items()}
    path, trained_on = request.pretrained, None
    if latest is not None:
        path = request.pretrained if latest.state.get("pretrained") is None else Path(latest.state["pretrained"])
        trained_on = latest.trained_on
    elif path is not None:
        trained_on = load_pretrained(parts.network, path, request.plan, request.configuration, request.dataset.labels)
    before = Before.of(path, trained_on, request.dataset.name, contents, request.train_cases, request.val_cases)
    before.warn(request.fold)
    return before


def _write_settings(
    request: FoldRequest, precision: str, parts: Parts, before: Before, changes: list[dict[str, Any]]
) -> None:
    settings = (
        request.config.model_dump()
        | {
            "optimizer": optimizer_name(request.config),
            "batch_size": batch_size(request),
            "precision": precision,
            "device": str(parts.device),
            "n_parameters": sum(parameter.numel() for parameter in parts.network.parameters()),
            "fold": request.fold,
            "train_cases": request.train_cases,
            "val_cases": request.val_cases,
            "pretrained": None if before.path is None else str(before.path),
            "seen_cases": sorted(before.seen),
        }
        | ({"changes": changes} if changes else {})
    )
    write_json(request.folder / "training.json", settings)


def batch_size(request: FoldRequest) -> int:
    """Patches per step: as set, else the plan's."""
    return request.config.batch_size or request.configuration.batch_size


def recipe(request: FoldRequest) -> Recipe:
    """Augmentation of a run: the named recipe, without mirroring if that is off."""
    built = named_recipe(request.config.augmentation, request.configuration)
    return built if request.config.mirror else built.without_mirroring()


def training_batches(request: FoldRequest, device: torch.device, start: int) -> Iterator[Batch]:
    """Yield the batches from iteration ``start`` on, the same whenever they are asked for.

    On the CPU the worker processes change intensities; a GPU does it itself.
    """
    config, chosen = request.config, recipe(request)
    on_device = device.type != "cpu"
    samples = range(batch_size(request))
    loader = make_loader(
        _sources(request, request.train_cases),
        request.configuration,
        config,
        chosen,
        labels=request.dataset.labels,
        start=start,
        stop=config.iterations,
        seed=config.seed,
        workers=request.workers,
        batch_size=batch_size(request),
        augment_in_worker=not on_device,
        pin_memory=device.type == "cuda",
        extra_codes=_extra_codes(request),
    )
    for iteration, batch in enumerate(loader, start):
        if on_device:
            moved = batch.to(device, non_blocking=True)
            images = augment_intensity(moved.images, chosen, intensity_generators(config.seed, iteration, samples))
            yield replace(moved, images=images)
        else:
            yield batch


def validation_batches(request: FoldRequest) -> Iterator[Batch]:
    """Yield the validation patches of an epoch: without augmentation, the same in every epoch, whatever the priorities.

    There is none if nothing is annotated in the validation cases, as far as training sees it.
    """
    config = request.config
    entries = request.cache.entries
    if not any(name not in entries or _is_annotated(entries[name]) for name in request.val_cases):
        return iter(())
    return make_loader(
        [request.cache.source(name) for name in request.val_cases],
        request.configuration,
        SamplingConfig(forced_fraction=config.forced_fraction, context_fraction=config.context_fraction),
        None,
        labels=request.dataset.labels,
        start=0,
        stop=config.validation_iterations,
        seed=config.seed + VALIDATION_SEED_OFFSET,
        batch_size=batch_size(request),
    )


def _is_annotated(entry: CacheEntry) -> bool:
    """Whether a cached case has an annotated voxel."""
    informative = entry.table.informative
    return any(count and informative[code] for code, count in entry.code_counts.items())


def _sources(request: FoldRequest, names: Sequence[str]) -> list[CaseSource]:
    return [request.cache.source(name, request.dataset.case(name).priority) for name in names]


def _checkpoint(
    request: FoldRequest,
    parts: Parts,
    progress: Progress,
    precision: str,
    before: Before,
    changes: list[dict[str, Any]],
) -> Checkpoint:
    return Checkpoint(
        weights=parts.network.state_dict(),
        plan=request.plan,
        configuration=request.configuration.name,
        dataset={**request.dataset.json, "name": request.dataset.name},
        mirror_axes=recipe(request).mirror_axes,
        fold=request.fold,
        trained_on=before.trained_on,
        training=request.config.model_dump(),
        state={
            "optimizer": parts.optimization.optimizer.state_dict(),
            "scaler": parts.scaler.state_dict(),
            "progress": progress.to_dict(),
            "precision": precision,
            "evidence": {source.name: source.state() for source in parts.evidence},
            "data": _data_of(request),
            "pretrained": None if before.path is None else str(before.path),
        }
        | ({"changes": changes} if changes else {}),
    )


def _data_of(request: FoldRequest) -> dict[str, Any]:
    """Return what may not change before a run is resumed: what its outputs mean, and what it was not trained on."""
    labels = request.dataset.labels
    return {
        "classes": list(labels.class_names),
        "heads": [[head.name, list(head.classes)] for head in labels.heads],
        "task": labels.task,
        "training cases": sorted(request.train_cases),
        "validation cases": sorted(request.val_cases),
    }


def _restore(parts: Parts, request: FoldRequest, latest: Checkpoint) -> Progress:
    """Put a checkpoint's weights and optimiser into ``parts``; refuse one of another plan, data or configuration."""
    path = request.folder / LATEST
    changed = forbidden_changes(latest, request.config, request.plan, request.configuration.name)
    now = _data_of(request)
    changed += [f"{key} of the data set changed" for key in now if now[key] != latest.state.get("data", now).get(key)]
    evidence = latest.state.get("evidence", {})
    changed += [f"it holds no state of {source.name!r}" for source in parts.evidence if source.name not in evidence]
    begun_from = latest.state.get("pretrained", request.pretrained)  # earlier versions did not say
    if request.pretrained is not None and request.pretrained.absolute() != Path(begun_from or "").absolute():
        changed.append(f"--pretrained is {request.pretrained}, was {begun_from or 'none'}")
    if changed:
        raise ModelError(
            f"{path}: found a run with other settings ({'; '.join(changed)}), expected the same to go on. "
            f"Leave the flags out (only {' and '.join(CHANGEABLE)} may change), put back what changed, start anew with "
            "--overwrite, or use --pretrained to build on its weights."
        )
    parts.network.load_state_dict(latest.weights)
    parts.optimization.optimizer.load_state_dict(latest.state["optimizer"])
    if latest.state["scaler"]:  # empty where the arithmetic was another one
        parts.scaler.load_state_dict(latest.state["scaler"])
    for source in parts.evidence:
        source.restore(evidence[source.name], parts.network)
    return Progress.from_dict(latest.state["progress"])
