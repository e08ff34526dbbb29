"""Choice of the fold that predicts each training case: one that did not train on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from autoseg.core.errors import ModelError
from autoseg.core.findings import listed
from autoseg.core.workspace import ALL, FoldName, fold_folder
from autoseg.inference.model import find_checkpoints
from autoseg.inference.predictor import Predictor

log = logging.getLogger(__name__)

TRAINING_FILE = "training.json"


@dataclass(frozen=True, slots=True)
class FoldCases:
    """Cases that a finished fold was trained on, and those of its validation."""

    train: frozenset[str]
    """Training cases."""
    val: frozenset[str]
    """Validation cases."""
    pretraining_cases: frozenset[str] = frozenset()
    """Further cases, possibly of ``val``, that its initial weights were trained on (pretraining)."""

    @property
    def seen_cases(self) -> frozenset[str]:
        """All cases that its weights were trained on, here or in a pretraining."""
        return self.train | self.pretraining_cases


@dataclass(frozen=True, slots=True)
class CaseModels:
    """The folds of a model folder that predict each case, and the settings of the prediction."""

    folder: Path
    members: Mapping[str, tuple[str, ...]]
    """Case -> members (folds, seeds of folds) whose mean predicts it."""
    device: str = "auto"
    checkpoint: str = "final"
    mirror: bool = True
    """Average over mirrored copies of the image."""
    seen_cases: frozenset[str] = frozenset()
    """Cases predicted by a fold that was trained on them; results name them as such."""

    @property
    def order(self) -> tuple[str, ...]:
        """The cases, sorted by folds, so that the weights of a set of folds are loaded only once."""
        return tuple(sorted(self.members, key=lambda case: self.members[case]))

    def predictors(self) -> Iterator[Predictor]:
        """Yield the model of every case, in ``order``; weights are loaded when they are needed.

        Errors as for :meth:`autoseg.inference.Predictor.load`.
        """
        for folds, cases in groupby(self.order, key=lambda case: self.members[case]):
            alone = [FoldName.parse(fold).alone for fold in folds]
            predictor = Predictor.load(self.folder, alone, self.device, checkpoint=self.checkpoint, mirror=self.mirror)
            for _ in cases:
                yield predictor
            del predictor  # before the next folds are loaded


def fold_cases(model_folder: str | Path) -> dict[str, FoldCases]:
    """Return the cases of every finished member of a model folder except those of ``all``, from its ``training.json``.

    Raises ``ModelError`` if no fold is finished, or a ``training.json`` is missing or does not list the cases.
    """
    return _cases_of(find_checkpoints(Path(model_folder), None))


def out_of_fold_models(
    model_folder: str | Path,
    cases: Sequence[str],
    *,
    allow_seen: bool = False,
    left_out_by: Mapping[str, str] | None = None,
    groups: Mapping[str, str | None] | None = None,
    command: Callable[[str], str] | None = None,
) -> dict[str, str]:
    """Return case -> fold that predicts it: one that did not train on it.

    That is the fold that has the case in its validation, with its first finished seed. A case that is in no split (it
    has no annotation, or was added later) gets the first finished fold that trained on no case of its group, if there
    is one.

    Parameters
    ----------
    model_folder
        ``ROOT/results/DATASET/<name>__<configuration>``.
    cases
        Names of training cases.
    allow_seen
        Whether a case that every finished fold has trained on is predicted all the same, by ``all`` if that fold is
        finished, otherwise by the first fold. Such a model agrees too well with the annotation it was trained on.
    left_out_by
        Case -> fold of the split that does not train on it; used to name the folds that are missing.
    groups
        Case -> its group (patient, volume), for all cases of the data set; None for a case without group.
    command
        Fold -> command line that trains it, for the message; None derives it from the name of the folder.

    Raises
    ------
    ModelError
        If no fold is finished, or all finished folds were trained on a case and ``allow_seen`` is off; names the cases
        and the command that trains the missing folds.
    """
    folder = Path(model_folder)
    finished = find_checkpoints(folder, None)
    folds = _cases_of(finished)
    stand_in = ALL if _is_finished(fold_folder(folder, ALL)) else next(iter(finished))
    chosen = {case: _unseen_by(folds, case, _mates(case, groups or {})) for case in cases}
    trained_on = [case for case, fold in chosen.items() if fold is None]
    if trained_on and not allow_seen:
        raise ModelError(_missing_folds(folder, folds, trained_on, left_out_by or {}, command))
    return {case: _not_trained_on(folds, case, stand_in) if fold is None else fold for case, fold in chosen.items()}


def seen_cases(model_folder: str | Path, members: Mapping[str, Collection[str]]) -> frozenset[str]:
    """Return the cases predicted by a fold whose weights were trained on them, here or in a pretraining.

    Parameters
    ----------
    members
        Case -> the folds that predict it.
    """
    names = {fold for folds in members.values() for fold in folds if not _is_all(fold)}
    known = {fold: read_fold_cases(fold_folder(Path(model_folder), fold)) for fold in sorted(names)}
    return frozenset(
        case
        for case, folds in members.items()
        if any(_is_all(fold) or case in known[fold].seen_cases for fold in folds)
    )


def _cases_of(finished: Mapping[str, Path]) -> dict[str, FoldCases]:
    return {fold: read_fold_cases(path.parent) for fold, path in finished.items() if not _is_all(fold)}


def _is_all(name: str) -> bool:
    """Whether a member was trained on every case."""
    return FoldName.parse(name).fold == ALL


def _mates(case: str, groups: Mapping[str, str | None]) -> frozenset[str]:
    """Return the other cases of the group of ``case``."""
    own = groups.get(case)
    return frozenset(name for name, group in groups.items() if own is not None and group == own and name != case)


def _unseen_by(folds: Mapping[str, FoldCases], case: str, mates: frozenset[str]) -> str | None:
    """Return the best fold that was not trained on ``case``; None if all were.

    The fold that has the case in its validation; otherwise the first one that was trained on none of ``mates``;
    otherwise the first one.
    """
    unseen = [fold for fold, cases in folds.items() if case not in cases.seen_cases]
    ranked = sorted(unseen, key=lambda fold: (case not in folds[fold].val, bool(mates & folds[fold].seen_cases)))
    return ranked[0] if ranked else None


def _not_trained_on(folds: Mapping[str, FoldCases], case: str, otherwise: str) -> str:
    """Return a fold that did not itself train on ``case``, though its initial weights did; otherwise ``otherwise``."""
    candidates = [fold for fold, cases in folds.items() if case not in cases.train]
    return min(candidates, key=lambda fold: case not in folds[fold].val, default=otherwise)


def read_fold_cases(fold: Path) -> FoldCases:
    """Return the cases of a fold, from the ``training.json`` of its folder; raise ``ModelError`` if it lists none."""
    path = fold / TRAINING_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = [content[key] for key in ("train_cases", "val_cases")]
        parts.append(content.get("seen_cases", []))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: found no list of the cases that the fold was trained on ({type(error).__name__}: {error}), "
            "expected train_cases and val_cases. Copy the whole fold folder, or train the fold again."
        ) from error
    if not all(isinstance(part, list) and all(isinstance(name, str) for name in part) for part in parts):
        raise ModelError(
            f"{path}: found train_cases or val_cases that are not lists of names, expected names of cases. Copy the "
            "whole fold folder, or train the fold again."
        )
    if content.get("pretrained") and "seen_cases" not in content:
        log.warning(
            "%s: found a pretraining from %s without a list of its training cases (seen_cases), expected one. It is "
            "unknown whether they include cases that this fold left out. Train the fold again.",
            path, content["pretrained"],
        )  # fmt: skip
    return FoldCases(*(frozenset(part) for part in parts))


def _is_finished(fold: Path) -> bool:
    return any((fold / f"checkpoint_{which}.pt").is_file() for which in ("final", "best"))


def _missing_folds(
    folder: Path,
    folds: Mapping[str, FoldCases],
    cases: Sequence[str],
    left_out_by: Mapping[str, str],
    command: Callable[[str], str] | None,
) -> str:
    """Return the message for cases that every finished fold has trained on."""
    name, _, configuration = folder.name.rpartition("__")
    flags = f"-c {configuration} --name {name}" if name != "default" else f"-c {configuration}"
    missing = sorted({left_out_by[case] for case in cases if case in left_out_by and left_out_by[case] not in folds})
    command = command or (lambda fold: f"autoseg_train {folder.parent.name} {fold} {flags}")
    commands = [command(fold) for fold in missing or ["FOLD"]]
    finished = ", ".join(folds) or f"only {ALL!r}, which trains on every case"
    leaking = sorted(fold for fold, item in folds.items() if any(case not in item.train for case in cases))
    pretrained = ""
    if leaking:
        again = [f"autoseg_train {folder.parent.name} {fold} {flags} --overwrite" for fold in leaking]
        commands = [*(commands if missing else []), *again]
        pretrained = (
            f" Fold {', '.join(leaking)} left some of them out, but started from weights that were trained on them "
            "(--pretrained): train it without --pretrained."
        )
    return (
        f"{folder}: found {len(cases)} cases that no finished fold left out of its training: {listed(cases, 20)} "
        f"(finished: {finished}), expected for each case a fold that did not train on it.{pretrained} Train with "
        f"{'; '.join(commands)}, or add --seen to predict them with a model that was trained on them."
    )
