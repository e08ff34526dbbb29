"""The finished models of a data set: the folds that left each case out, and what they predicted of it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.boxes import Spans
from autoseg.core.errors import ConfigError, EvaluationError, ModelError
from autoseg.core.findings import did_you_mean, listed
from autoseg.core.workspace import Workspace, fold_folder, fold_folders
from autoseg.dataset.commands import training_command
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import Summary
from autoseg.evaluation.matching import label_files
from autoseg.inference.out_of_fold import read_fold_cases
from autoseg.planning.files import FINGERPRINT_FILE, load_fingerprint
from autoseg.planning.splits import known_splits
from autoseg.preprocessing.scored_boxes import SCORED_BOXES_FILE, scored_spans, with_scored_boxes
from autoseg.preprocessing.volume_size import is_large

log = logging.getLogger(__name__)

CHEAPEST_FIRST = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres")
"""Configurations in the order in which equally good ones are preferred; others follow by name."""
FINAL = "checkpoint_final.pt"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model folder whose folds are all finished."""

    folder: Path
    fold_of: Mapping[str, str]
    """Case -> fold that left it out."""
    predictions: Mapping[str, Path]
    """Case -> label map that this fold predicted in its validation."""

    @property
    def name(self) -> str:
        """Name of its folder, ``<name>__<configuration>``."""
        return self.folder.name

    def checkpoint(self, case: str) -> Path:
        """Return the weights of the fold that left a case out."""
        return fold_folder(self.folder, self.fold_of[case]) / FINAL

    def changed(self, case: str) -> float:
        """Return when weights or label map of a case were last written, seconds since the epoch.

        A case that is too large for memory may have got another box with the label map.
        """
        return max(path.stat().st_mtime for path in (self.checkpoint(case), self.predictions[case]))


@dataclass(frozen=True, slots=True)
class TrainedModels:
    """The models of a data set that can be compared, and those that cannot."""

    models: tuple[TrainedModel, ...]
    """Cheapest first; each left out the same cases."""
    folds: tuple[str, ...]
    left_out: Mapping[str, str]
    """Name of a model folder that cannot be compared -> reason, with commands."""
    dataset: Dataset
    """The data set, with the box that was predicted in the place of each case that is too large for memory."""
    boxes: Mapping[str, Spans]
    """Such case -> that box, in voxels of its volume."""


def find_trained_models(
    workspace: Workspace,
    dataset: Dataset,
    *,
    configurations: Collection[str] = (),
    names: Collection[str] = (),
    folds: Sequence[str] = (),
) -> TrainedModels:
    """Return the models of a data set of which all folds are finished and validated.

    Parameters
    ----------
    configurations, names
        Only these; empty: all. A model folder is ``ROOT/results/DATASET/<name>__<configuration>``.
    folds
        Only these folds, and only the cases that they left out; empty: all folds of the split. ``all`` is no fold that
        could be scored.

    Raises
    ------
    ConfigError
        If there is no such model folder.
    ModelError
        If none of them can be compared, or one that is named by ``configurations`` or ``names`` cannot. The message
        names what is missing, with the commands that train it.
    """
    splits = known_splits(workspace.preprocessed(dataset.name), dataset)
    wanted = tuple(folds) or tuple(str(fold) for fold in range(len(splits)))
    if not splits:
        command = training_command(workspace, dataset, "0", configuration=None)
        raise ConfigError(
            f"{workspace.preprocessed(dataset.name)}: found no folds of the data set, expected those that a model was "
            f"trained on. Train first: {command}"
        )
    unknown = [fold for fold in wanted if not fold.isdigit() or int(fold) >= len(splits)]
    if unknown:
        raise ConfigError(
            f"folds: found {listed(unknown)}, expected some of 0 to {len(splits) - 1}, the folds of the split. "
            "Correct --folds."
        )
    cases = frozenset(case for fold in wanted for case in splits[int(fold)].val) & _annotated(workspace, dataset)
    scored = with_scored_boxes(dataset, workspace.preprocessed(dataset.name))
    boxes = scored_spans(dataset, scored, cases)
    folders = _folders(workspace, dataset, configurations, names)
    models: list[TrainedModel] = []
    left_out: dict[str, str] = {}
    for folder in folders:
        model = _read_model(workspace, scored, folder, wanted, cases, boxes)
        if isinstance(model, str):
            left_out[folder.name] = model
        else:
            models.append(model)
    if not models or (left_out and (configurations or names)):
        raise ModelError("\n".join(f"{folder.parent / name}: {reason}" for name, reason in left_out.items()))
    for name, reason in left_out.items():
        log.warning("%s is left out: %s", name, reason)
    return TrainedModels(tuple(models), wanted, left_out, scored, boxes)


def _annotated(workspace: Workspace, dataset: Dataset) -> frozenset[str]:
    """Return the cases that can be in folds: those with annotation, as far as that is known."""
    path = workspace.preprocessed(dataset.name) / FINGERPRINT_FILE
    return frozenset(load_fingerprint(path).informative_cases if path.is_file() else dataset.case_names)


def _folders(
    workspace: Workspace, dataset: Dataset, configurations: Collection[str], names: Collection[str]
) -> list[Path]:
    """Return the model folders that are asked for, cheapest configuration first."""
    results = workspace.results(dataset.name)
    there = [path for path in results.glob("*__*") if fold_folders(path)]
    parts = {path: path.name.rpartition("__")[::2] for path in there}
    for option, index, given in (("-c", 1, configurations), ("--name", 0, names)):
        known = sorted({part[index] for part in parts.values()})
        for word in given:
            if word not in known:
                raise ConfigError(_not_trained(workspace, dataset, option, word, known))
    chosen = [
        path
        for path, (name, configuration) in parts.items()
        if (not names or name in names) and (not configurations or configuration in configurations)
    ]
    if not chosen:
        command = training_command(workspace, dataset, "0", configuration=None)
        raise ConfigError(f"{results}: found no such model, expected <name>__<configuration>. Train first: {command}")
    return sorted(chosen, key=lambda path: (_cost(parts[path][1]), path.name))


def _not_trained(workspace: Workspace, dataset: Dataset, option: str, word: str, known: Sequence[str]) -> str:
    """Return the message for a configuration or name of which there is no model."""
    fix = f"Correct {option}."
    if word in CHEAPEST_FIRST and option == "-c":
        fix = f"Train it first: {training_command(workspace, dataset, '0', configuration=word)}"
    return (
        f"{workspace.results(dataset.name)}: found no model of {option} {word}, expected one of {listed(known, 20)}. "
        f"{fix}{did_you_mean(word, known)}"
    )


def _cost(configuration: str) -> int:
    return CHEAPEST_FIRST.index(configuration) if configuration in CHEAPEST_FIRST else len(CHEAPEST_FIRST)


def _read_model(
    workspace: Workspace,
    dataset: Dataset,
    folder: Path,
    folds: Sequence[str],
    cases: frozenset[str],
    boxes: Mapping[str, Spans],
) -> TrainedModel | str:
    """Return a model, or the reason why it cannot be compared; the rest as in :class:`TrainedModels`."""
    name, _, configuration = folder.name.rpartition("__")
    fold_of: dict[str, str] = {}
    predictions: dict[str, Path] = {}
    to_train: dict[tuple[str, ...], list[str]] = {}
    unusable: dict[str, list[str]] = {}
    for fold in folds:
        option, reason = _read_fold(dataset, boxes, fold_folder(folder, fold), fold_of, predictions)
        if reason is not None:
            unusable.setdefault(reason, []).append(fold)
            to_train.setdefault(option, []).append(fold)
    reasons = [f"fold {', '.join(those)} {reason}" for reason, those in unusable.items()]
    if not reasons and {*fold_of} != cases:
        other = sorted({*fold_of} ^ cases)
        reasons.append(f"its folds left out other cases than those of the split: {listed(other, 10)}")
        to_train = {("--overwrite",): [*folds]}
    if reasons:
        commands = [
            training_command(workspace, dataset, those, *option, configuration=configuration, name=name)
            for option, those in to_train.items()
        ]
        expected = f"expected the finished folds {', '.join(folds)}"
        return (
            f"found that {'; '.join(reasons)}, {expected}. Choose others with --folds, or train: {'; '.join(commands)}"
        )
    return TrainedModel(folder, fold_of, predictions)


def _read_fold(
    dataset: Dataset,
    boxes: Mapping[str, Spans],
    folder: Path,
    fold_of: dict[str, str],
    predictions: dict[str, Path],
) -> tuple[tuple[str, ...], str | None]:
    """Add the cases of a fold; return the options of the command that completes it, and the reason why it must be."""
    if not (folder / FINAL).is_file():
        return (("--resume",) if (folder / "checkpoint_latest.pt").is_file() else ()), "is not finished"
    of_fold = read_fold_cases(folder)
    seen = sorted(of_fold.val & of_fold.seen_cases)
    if seen:
        return ("--overwrite",), f"was trained on cases of its validation ({listed(seen)})"
    try:
        files = label_files(folder / "validation", dataset.file_ending)
    except EvaluationError:
        files = {}
    large = {case.name for case in dataset.cases if case.name in of_fold.val and is_large(case)}  # without a box
    missing = sorted(case for case in of_fold.val if case not in files or case in large)
    if missing:
        return ("--resume",), f"has no predictions of {listed(missing)} in validation/"
    predicted = _predicted_boxes(folder)
    others = sorted(case for case in of_fold.val & boxes.keys() if predicted.get(case) != boxes[case])
    if others:
        return ("--resume",), f"has predictions of {listed(others)} in other boxes than {SCORED_BOXES_FILE} has now"
    fold_of |= dict.fromkeys(sorted(of_fold.val), folder.name.removeprefix("fold_"))
    predictions |= {case: files[case] for case in sorted(of_fold.val)}
    return (), None


def _predicted_boxes(fold: Path) -> Mapping[str, Spans]:
    """Return the boxes that the summary of a fold names; {} if it cannot be read."""
    try:
        return Summary.model_validate_json((fold / "validation" / "summary.json").read_bytes()).boxes
    except (OSError, ValueError):
        return {}
