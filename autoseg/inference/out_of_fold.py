"""Predict training cases honestly: each with the fold that did not train on it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from autoseg.core.errors import ModelError
from autoseg.core.findings import listed
from autoseg.inference.model import find_checkpoints
from autoseg.inference.predictor import Predictor

log = logging.getLogger(__name__)

ALL = "all"
"""The fold that trains on every case."""
TRAINING_FILE = "training.json"


@dataclass(frozen=True, slots=True)
class FoldCases:
    """Which cases a finished fold has seen, and which it was scored on."""

    train: frozenset[str]
    val: frozenset[str]
    seen_before: frozenset[str] = frozenset()
    """Other cases of the data set, perhaps of ``val``, that its weights had been trained on before (pretraining)."""

    @property
    def seen(self) -> frozenset[str]:
        """All cases that its weights were trained on."""
        return self.train | self.seen_before


@dataclass(frozen=True, slots=True)
class CaseModels:
    """Which folds of a model folder predict each case, and how."""

    folder: Path
    members: Mapping[str, tuple[str, ...]]
    """Case -> folds whose mean predicts it."""
    device: str = "auto"
    checkpoint: str = "final"
    mirror: bool = True
    seen: frozenset[str] = frozenset()
    """Cases predicted by a fold that was trained on them; they are marked."""

    @property
    def order(self) -> tuple[str, ...]:
        """The cases in an order in which every fold is loaded once in a row."""
        return tuple(sorted(self.members, key=lambda case: self.members[case]))

    def predictors(self) -> Iterator[Predictor]:
        """Yield the model of every case, in order; weights are loaded when they are needed.

        Errors as for :meth:`autoseg.inference.Predictor.load`.
        """
        for folds, cases in groupby(self.order, key=lambda case: self.members[case]):
            predictor = Predictor.load(self.folder, folds, self.device, checkpoint=self.checkpoint, mirror=self.mirror)
            for _ in cases:
                yield predictor
            del predictor  # before the next folds are loaded


def fold_cases(model_folder: str | Path) -> dict[str, FoldCases]:
    """Return the cases of every finished fold of a model folder, ``all`` left out, from ``fold_<k>/training.json``.

    Raises ``ModelError`` if no fold is finished, or a ``training.json`` is missing or does not list the cases.
    """
    return _cases_of(find_checkpoints(Path(model_folder), None))


def out_of_fold_models(
    model_folder: str | Path,
    cases: Sequence[str],
    *,
    seen: bool = False,
    left_out_by: Mapping[str, str] | None = None,
    groups: Mapping[str, str | None] | None = None,
    command: Callable[[str], str] | None = None,
) -> dict[str, str]:
    """Return case -> fold that predicts it: one that did not train on it.

    That is the fold that holds the case out for validation; for a case that no fold was given (it carries no
    annotation, or came later) the first finished one that trained on no case of its group, if there is one.

    Parameters
    ----------
    model_folder
        ``ROOT/results/DATASET/<name>__<configuration>``.
    cases
        Names of training cases.
    seen
        Where every finished fold has trained on a case, take ``all`` if it is finished, else the first fold, instead
        of refusing: such a model agrees with the annotation that it has learnt by heart.
    left_out_by
        Case -> fold of the split that leaves it out, to name the folds that are missing.
    groups
        Case -> what its case belongs to (patient, volume), of all cases of the data set; None for none.
    command
        Fold -> command line that trains it, for the message; None: as far as the name of the folder says it.

    Raises
    ------
    ModelError
        If no fold is finished, or finished folds have seen a case and ``seen`` is off; names the cases and the command
        that trains what is missing.
    """
    folder = Path(model_folder)
    finished = find_checkpoints(folder, None)
    folds = _cases_of(finished)
    stand_in = ALL if _is_finished(folder / f"fold_{ALL}") else next(iter(finished))
    chosen = {case: _unseen_by(folds, case, _mates(case, groups or {})) for case in cases}
    trained_on = [case for case, fold in chosen.items() if fold is None]
    if trained_on and not seen:
        raise ModelError(_missing_folds(folder, folds, trained_on, left_out_by or {}, command))
    return {case: _least_seen(folds, case, stand_in) if fold is None else fold for case, fold in chosen.items()}


def seen_cases(model_folder: str | Path, members: Mapping[str, Collection[str]]) -> frozenset[str]:
    """Return the cases that are predicted by a fold whose weights were trained on them, here or in a pretraining.

    Parameters
    ----------
    members
        Case -> the folds that predict it.
    """
    names = {fold for folds in members.values() for fold in folds if fold != ALL}
    known = {fold: read_fold_cases(Path(model_folder) / f"fold_{fold}") for fold in sorted(names)}
    return frozenset(
        case for case, folds in members.items() if any(fold == ALL or case in known[fold].seen for fold in folds)
    )


def _cases_of(finished: Mapping[str, Path]) -> dict[str, FoldCases]:
    return {fold: read_fold_cases(path.parent) for fold, path in finished.items() if fold != ALL}


def _mates(case: str, groups: Mapping[str, str | None]) -> frozenset[str]:
    """Return the other cases of the group of ``case``."""
    own = groups.get(case)
    return frozenset(name for name, group in groups.items() if own is not None and group == own and name != case)


def _unseen_by(folds: Mapping[str, FoldCases], case: str, mates: frozenset[str]) -> str | None:
    """Return the fold that holds ``case`` out, else the first that saw neither it nor ``mates``.

    Else the first that did not see the case itself, or None.
    """
    unseen = [fold for fold, cases in folds.items() if case not in cases.seen]
    ranked = sorted(unseen, key=lambda fold: (case not in folds[fold].val, bool(mates & folds[fold].seen)))
    return ranked[0] if ranked else None


def _least_seen(folds: Mapping[str, FoldCases], case: str, otherwise: str) -> str:
    """Return a fold that did not train on ``case`` itself, though weights that it started from did; else another."""
    left_out = [fold for fold, cases in folds.items() if case not in cases.train]
    return min(left_out, key=lambda fold: case not in folds[fold].val, default=otherwise)


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
            f"{path}: found train_cases or val_cases that are no lists of names, expected names of cases. Copy the "
            "whole fold folder, or train the fold again."
        )
    if content.get("pretrained") and "seen_cases" not in content:
        log.warning(
            "%s: found weights that started from %s, and no list of the cases that these had seen (seen_cases), "
            "expected one. Whether these are among the cases that the fold left out cannot be told; train it again.",
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
    finished = ", ".join(folds) or "only 'all', which sees every case"
    leaking = sorted(fold for fold, item in folds.items() if any(case not in item.train for case in cases))
    pretrained = ""
    if leaking:
        again = [f"autoseg_train {folder.parent.name} {fold} {flags} --overwrite" for fold in leaking]
        commands = [*(commands if missing else []), *again]
        pretrained = (
            f" Fold {', '.join(leaking)} left some of them out, but started from weights that were trained on these "
            "(--pretrained): train it without."
        )
    return (
        f"{folder}: found {len(cases)} cases that no finished fold left out of its training: {listed(cases, 20)} "
        f"(finished: {finished}), expected for each case a fold that did not train on it.{pretrained} Train with "
        f"{'; '.join(commands)}, or add --seen to predict them with a model that has seen them."
    )
