"""The state of a run, and what it is on disk: checkpoints and training.json."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.core.atomic import write_json
from autoseg.core.errors import ModelError
from autoseg.nn.checkpoint import Checkpoint
from autoseg.training.batches import batch_size, recipe
from autoseg.training.config import TrainingConfig
from autoseg.training.optim import optimizer_name
from autoseg.training.pretrained import Before
from autoseg.training.progress import Progress
from autoseg.training.request import FoldRequest
from autoseg.training.resuming import SETTINGS, forbidden_changes, may_change_text
from autoseg.training.run_checkpoints import LATEST
from autoseg.training.run_record import RunRecord
from autoseg.training.trainer import Parts


@dataclass
class RunState:
    """All that a checkpoint of a run holds."""

    request: FoldRequest
    """Its ``config`` is the present one, with all changes."""
    parts: Parts
    progress: Progress
    precision: str
    """Key of ``training.fold.PRECISIONS``."""
    before: Before
    """Training of the weights before the run."""
    record: RunRecord
    """Origins of the settings, and the software and hardware of the run."""
    changes: list[dict[str, Any]]
    """Changes of settings during the run: the iteration, and key -> [before, after]."""

    @property
    def config(self) -> TrainingConfig:
        """Present settings."""
        return self.request.config

    def averaged(self) -> AbstractContextManager[None]:
        """Let the network have its averaged weights for the block, if they are averaged."""
        average = self.parts.average
        return nullcontext() if average is None else average.applied(self.parts.network)

    def checkpoint(self, *, averaged: bool = False) -> Checkpoint:
        """Return the run as a checkpoint, with the averaged weights or with those of the last step."""
        request, parts = self.request, self.parts
        weights = dict(parts.network.state_dict())
        if averaged and parts.average is not None:
            weights |= parts.average.weights
        return Checkpoint(
            weights=weights,
            plan=request.plan,
            configuration=request.configuration.name,
            dataset={**request.dataset.json, "name": request.dataset.name},
            mirror_axes=recipe(request).mirror_axes,
            fold=request.fold,
            trained_on=self.before.trained_on,
            training=request.config.model_dump(mode="json"),
            state={
                "optimizer": parts.optimization.optimizer.state_dict(),
                "scaler": parts.scaler.state_dict(),
                "progress": self.progress.to_dict(),
                "precision": self.precision,
                "batch_devices": request.batch_devices,
                "evidence": {source.name: source.state() for source in parts.evidence},
                "data": _data_of(request),
                "pretrained": None if self.before.path is None else str(self.before.path),
            }
            | ({} if parts.average is None else {"average": parts.average.state()})
            | replace(self.record, changes=tuple(self.changes)).as_json(),
        )

    def write_settings(self) -> None:
        """Write training.json."""
        request, parts, config = self.request, self.parts, self.config
        optimizer = config.optimizer.model_copy(update={"name": optimizer_name(config.optimizer, config.iterations)})
        settings = (
            config.model_copy(update={"optimizer": optimizer}).model_dump(mode="json")
            | {
                "batch_size": batch_size(request),
                "precision": self.precision,
                "device": str(parts.device),
                "ranks": request.ranks.size,
                "n_parameters": sum(parameter.numel() for parameter in parts.network.parameters()),
                "fold": request.fold,
                "train_cases": request.train_cases,
                "val_cases": request.val_cases,
                "pretrained": None if self.before.path is None else str(self.before.path),
                "seen_cases": sorted(self.before.seen),
            }
            | replace(self.record, changes=tuple(self.changes)).as_json()
        )
        write_json(request.folder / SETTINGS, settings)


def _data_of(request: FoldRequest) -> dict[str, Any]:
    """Return what may not change before a run is resumed: what its outputs mean, and what it was not trained on."""
    labels = request.dataset.labels
    rule = labels.instances
    of_objects = None if rule is None else " ".join(["instances", *map(str, rule.offsets)])
    return {
        "classes": list(labels.class_names),
        "heads": [[head.name, list(head.classes)] for head in labels.heads],
        "task": labels.task or of_objects,
        "training cases": sorted(request.train_cases),
        "validation cases": sorted(request.val_cases),
    }


def restore(parts: Parts, request: FoldRequest, latest: Checkpoint) -> Progress:
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
            f"Leave the flags out (only {may_change_text()} may change), put back what changed, start anew with "
            "--overwrite, or use --pretrained to build on its weights."
        )
    load_weights(parts, latest)
    for source in parts.evidence:
        source.restore(evidence[source.name], parts.network)
    return Progress.from_dict(latest.state["progress"])


def load_weights(parts: Parts, checkpoint: Checkpoint) -> None:
    """Put weights, their average, optimiser and scaler of a checkpoint of the same run into ``parts``.

    Momentum and weight decay stay those of ``parts``, if they have changed since the checkpoint.
    """
    before, now = TrainingConfig.model_validate(dict(checkpoint.training)).optimizer, parts.optimization.config
    parts.network.load_state_dict(checkpoint.weights)
    parts.optimization.load_state(checkpoint.state["optimizer"])
    if any(getattr(before, name) != getattr(now, name) for name in ("momentum", "weight_decay")):
        parts.optimization.apply_settings()
    if checkpoint.state["scaler"]:  # empty where the arithmetic was another one
        parts.scaler.load_state_dict(checkpoint.state["scaler"])
    if parts.average is not None:
        parts.average.restart(parts.network)
        if "average" in checkpoint.state:
            parts.average.restore(checkpoint.state["average"])
