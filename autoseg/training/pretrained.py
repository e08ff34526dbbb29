"""Start a run from the weights of another one, and keep count of the cases that these have seen."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from autoseg.cases.layers import input_channels
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.findings import listed
from autoseg.core.plan import Configuration, Plan
from autoseg.core.trained_on import TrainedCase, joined, recognise
from autoseg.core.workspace import FoldName, fold_folder
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.labels import Labels
from autoseg.inference.model import find_checkpoints
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, load_checkpoint
from autoseg.nn.transfer import Ends, Transfer, transfer
from autoseg.tasks.task import outputs_of, task_of
from autoseg.training.run_checkpoints import FINAL

log = logging.getLogger(__name__)

SHOWN_TENSORS = 3


@dataclass(frozen=True, slots=True)
class Before:
    """Training of the weights of a run before it began."""

    path: Path | None
    """Checkpoint that the run started from."""
    trained_on: tuple[TrainedCase, ...]
    """For the checkpoints of the run: what those weights were trained on, and the training cases of the run."""
    seen: Mapping[str, TrainedCase] = field(default_factory=dict)
    """Case of the data set outside the run's training cases -> the case, perhaps of another data set, that it is."""
    seen_validation_cases: tuple[str, ...] = ()
    """Validation cases that the weights were trained on, before the run or (fold "all") in it."""

    @classmethod
    def of(
        cls,
        path: Path | None,
        trained_on: Sequence[TrainedCase] | None,
        dataset: str,
        contents: Mapping[str, tuple[str, ...]],
        train_cases: Collection[str],
        val_cases: Sequence[str],
    ) -> Before:
        """Find the cases of a data set among those that weights were trained on.

        Parameters
        ----------
        path
            Where the weights came from; None for fresh ones.
        trained_on
            As the checkpoint says it; None where it does not.
        dataset
            Name of the data set.
        contents
            Case of the data set -> :func:`autoseg.core.trained_on.image_contents`.
        train_cases, val_cases
            Of the run.
        """
        own = [TrainedCase(dataset=dataset, case=case, images=contents.get(case, ())) for case in train_cases]
        earlier = [item for item in trained_on or () if item.dataset != dataset or item.case not in train_cases]
        others = {case: images for case, images in contents.items() if case not in train_cases}
        seen = recognise(others, dataset, earlier)
        seen_in_validation = tuple(case for case in val_cases if case in seen or case in train_cases)
        return cls(path, joined(trained_on or (), own), seen, seen_in_validation)

    def warn(self, fold: str) -> None:
        """Warn if validation cases of the fold were trained on before the run."""
        cases = [case for case in self.seen_validation_cases if case in self.seen]
        if not cases:
            return
        names = listed(f"{case} ({self.seen[case].case} of {self.seen[case].dataset})" for case in cases)
        log.warning(
            "fold %s: found %d of its validation cases among those that the weights of --pretrained %s were trained "
            "on: %s; expected none. What is scored or completed of these cases shows what the model remembers, not how "
            "good it is on new images, and is marked so. Start from a fold that left them out, or leave --pretrained "
            "out.",
            fold, len(cases), self.path, names,
        )  # fmt: skip


class Loaded(NamedTuple):
    """Result of loading the weights that a run starts from."""

    trained_on: tuple[TrainedCase, ...] | None
    """Cases that they were trained on; None where the checkpoint does not say it."""
    report: Mapping[str, Any]
    """JSON values: ``matched`` (number of tensors), ``adapted`` and ``skipped`` (their names), ``channels`` and
    ``heads`` (own name -> name in the checkpoint)."""


def pretrained_checkpoint(path: Path | None, fold: str | None) -> Path | None:
    """Return the checkpoint that ``--pretrained`` means; None for None.

    Parameters
    ----------
    path
        A checkpoint, which is returned as it is; the folder of a fold; or a model folder, of which the final checkpoint
        of the same fold (and seed, if it is there) is taken, so that a run on the same data starts from weights that
        left its validation cases out, otherwise that of the only fold there.
    fold
        ``"0"`` ... or ``"all"``; None takes the first fold there.

    Raises
    ------
    ModelError
        If no fold in the folder is finished.
    ConfigError
        If it has several folds, but not this one.
    """
    if path is None or not path.is_dir():
        return path
    if (path / FINAL).is_file():
        return path / FINAL
    same = [] if fold is None else [fold_folder(path, name) / FINAL for name in (fold, FoldName.parse(fold).fold)]
    if found := next((file for file in same if file.is_file()), None):
        return found
    there = find_checkpoints(path, None)
    if fold is not None and len(there) > 1:
        raise ConfigError(
            f"--pretrained {path}: found the folds {listed(there, len(there))}, expected fold {fold} or a single one. "
            f"Give one of their checkpoints: --pretrained {next(iter(there.values()))}"
        )
    return next(iter(there.values()))


def plan_of_model(path: Path) -> Plan:
    """Return the plan of a checkpoint or model folder; raise ``ModelError`` if it cannot be read."""
    checkpoint = pretrained_checkpoint(path, None)
    return load_checkpoint(path if checkpoint is None else checkpoint).plan


def load_pretrained(network: nn.Module, path: Path, plan: Plan, configuration: Configuration, labels: Labels) -> Loaded:
    """Copy the weights of a checkpoint into a network of ``plan``; return what became of them.

    Heads are taken by the name of the class or region, input channels by name, the remaining ones in order; see
    :func:`autoseg.nn.transfer.transfer`. What starts fresh is said in a warning.

    Raises
    ------
    ModelError
        If the file cannot be read, or holds the weights of another network.
    """
    checkpoint = load_checkpoint(path)
    ends = (_ends(plan, configuration, labels), _given_ends(checkpoint, path))
    result = transfer(network.state_dict(), checkpoint.weights, *ends)
    _refuse_other_network(path, checkpoint, plan.dataset_name, configuration, result)
    _report(path, result, *ends)
    network.load_state_dict(dict(result.weights))
    if checkpoint.trained_on is None:
        log.warning(
            "%s: found no list of the cases that its weights were trained on, expected one. Whether validation cases "
            "of this fold are among them cannot be told: do not trust scores on images that the weights may have seen.",
            path,
        )
    elif checkpoint.trained_on and not any(case.images for case in checkpoint.trained_on):
        log.info("%s: written by an earlier version; the cases it was trained on are recognised by name only", path)
    return Loaded(checkpoint.trained_on, _as_json(result))


def check_pretrained(
    path: Path, folder: Path, plan: Plan, configuration: Configuration, labels: Labels, *, overwrite: bool
) -> None:
    """Raise before anything is computed, or removed, if a run cannot start from a checkpoint.

    Parameters
    ----------
    path
        The checkpoint.
    folder
        Of the run; ``overwrite`` moves it aside.

    Raises
    ------
    ConfigError
        If the checkpoint lies in the folder that is to be moved aside.
    ModelError
        As :func:`load_pretrained`.
    """
    if overwrite and path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"--pretrained {path}: found a checkpoint of the run that --overwrite moves aside, expected another one. "
            "Give the new run another --name, or copy the checkpoint elsewhere first."
        )
    checkpoint = load_checkpoint(path)
    own = _ends(plan, configuration, labels)
    with torch.device("meta"):
        network = build_network(configuration.topology, len(own.channels), len(outputs_of(labels)))
    given = {name: tensor.to("meta") for name, tensor in checkpoint.weights.items()}
    result = transfer(network.state_dict(), given, own, _given_ends(checkpoint, path))
    _refuse_other_network(path, checkpoint, plan.dataset_name, configuration, result)


def _ends(plan: Plan, configuration: Configuration, labels: Labels) -> Ends:
    has_own_outputs = bool(labels.targets) or not task_of(labels).is_exclusive
    return Ends(input_channels(plan, configuration, labels), outputs_of(labels), has_own_outputs)


def _given_ends(checkpoint: Checkpoint, path: Path) -> Ends:
    plan = checkpoint.plan
    labels = Dataset.from_json(checkpoint.dataset, name=plan.dataset_name, folder=path.parent).labels
    return _ends(plan, plan.configuration(checkpoint.configuration), labels)


def _refuse_other_network(
    path: Path, checkpoint: Checkpoint, plan_name: str, configuration: Configuration, result: Transfer
) -> None:
    """Raise ``ModelError`` if the networks differ elsewhere than in channels and heads.

    ``plan_name`` is the data set of ``configuration``.
    """
    if not result.mismatched:
        return
    theirs = checkpoint.plan.configuration(checkpoint.configuration)
    pairs = zip(theirs.topology.model_dump().items(), configuration.topology.model_dump().values(), strict=True)
    differences = [f"{name} {given}, here {own}" for (name, given), own in pairs if given != own]
    tensors = [f"{name} {why}" for name, why in list(result.mismatched.items())[:SHOWN_TENSORS]]
    fix = f"Plan with the checkpoint's network (autoseg_plan_and_preprocess {plan_name} --plan-of {path})"
    if theirs.name != configuration.name:
        fix = f"Train with -c {theirs.name}"
    raise ModelError(
        f"{path}: found the weights of another network ({theirs.name}: {'; '.join(differences or tensors)}), expected "
        f"those of {configuration.name} as planned here; only channels and classes may differ. {fix}, or leave "
        "--pretrained out."
    )


def _report(path: Path, result: Transfer, own: Ends, given: Ends) -> None:
    """Say what became of the weights; in a warning if something starts fresh."""
    remarks = [
        *_remarks("input channels", own.channels, given.channels, result.channels),
        *_remarks("regions" if own.has_regions else "classes", own.heads, given.heads, result.heads),
    ]
    if own.has_regions != given.has_regions:
        kinds = ("classes", "regions") if own.has_regions else ("regions", "classes")
        remarks.append(f"it was trained for {kinds[0]}, not {kinds[1]}, so all outputs start fresh")
    text = (
        f"{path}: {len(result.matched)} tensors taken as they are, {len(result.adapted)} adapted, "
        f"{len(result.skipped)} skipped"
    )
    is_complete = len(result.channels) == len(own.channels) and len(result.heads) == len(own.heads)
    log.log(logging.INFO if is_complete else logging.WARNING, "%s", "; ".join([text, *remarks]))
    for use in ("matched", "adapted", "skipped"):
        names = getattr(result, use)
        log.debug("%s tensors: %s", use, listed(names, len(names)))


def _as_json(result: Transfer) -> dict[str, Any]:
    return {
        "matched": len(result.matched),
        "adapted": list(result.adapted),
        "skipped": list(result.skipped),
        "channels": dict(result.channels),
        "heads": dict(result.heads),
    }


def _remarks(what: str, own: Sequence[str], given: Sequence[str], pairs: Mapping[str, str]) -> list[str]:
    """Return what is to be said of channels or outputs that were not simply taken."""
    if own == given and len(pairs) == len(own):
        return []
    fresh = [name for name in own if name not in pairs]
    unused = [name for name in given if name not in pairs.values()]
    renamed = [f"{name} from {pairs[name]}" for name in own if name in pairs and pairs[name] != name]
    remarks = [f"{what}: found {listed(given, 20)}, expected {listed(own, 20)}"]
    if pairs:
        remarks.append(f"taken by name{', ' + listed(renamed, 20) if renamed else ''}")
    if fresh:
        remarks.append(f"starting fresh: {listed(fresh, 20)}")
    if unused:
        remarks.append(f"not used: {listed(unused, 20)}")
    return [", ".join(remarks)]
