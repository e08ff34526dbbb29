"""Section ``quality`` of a calibration, from what the folds of a model folder predicted of the cases they left out."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from autoseg.core.errors import ModelError
from autoseg.dataset.labels import Labels
from autoseg.evaluation.likeness import CaseFeatures, fit_likeness
from autoseg.evaluation.predicted_dice import Pair, fit_curves
from autoseg.evaluation.quality import CaseQuality, Quality, read_records
from autoseg.evaluation.summary import CaseMetrics, Summary
from autoseg.inference.out_of_fold import TRAINING_FILE, read_fold_cases

log = logging.getLogger(__name__)


class _Scored(NamedTuple):
    """A case that its fold did not train on: what the fold predicted of it, and the scores of that."""

    record: CaseQuality
    metrics: CaseMetrics


def quality_section(model_folder: Path, labels: Labels, channels: Sequence[str]) -> Quality | None:
    """Fit predicted quality and likeness to the records of all validations; None without any record.

    Parameters
    ----------
    model_folder
        Folder with ``fold_<k>/validation``, where ``quality/`` holds the records and ``summary.json`` the scores.
    labels
        Meaning of the classes.
    channels
        Names of the channels.

    Notes
    -----
    Cases that the weights of a fold were trained on (fold "all", a pretraining) say nothing about its Dice, but their
    images count for the likeness. A class predicted nowhere in a case gives no pair: its Dice is then known to be 0 if
    the class is there. A fold without a summary that can be read is left out.
    """
    folds = {path.parent.name.removeprefix("fold_"): path for path in sorted(model_folder.glob("fold_*/validation"))}
    records = {fold: read_records(path) for fold, path in folds.items()}
    features: dict[str, CaseFeatures] = {record.case: record.features for own in records.values() for record in own}
    if not features:
        return None
    scored = {fold: tuple(_scored(folds[fold], own)) for fold, own in records.items() if own}
    cases = [case for own in scored.values() for case in own]
    heads = {labels.heads[head].name: labels.heads[head].key for head in labels.foreground_heads}
    curves = fit_curves({name: list(_pairs(cases, name, key)) for name, key in heads.items()})
    shares = {name: _occurrence(cases, key) for name, key in heads.items()}
    return Quality(
        curves=tuple(curve.model_copy(update={"occurrence": shares[curve.name]}) for curve in curves),
        likeness=fit_likeness(features, channels),
        folds=tuple(fold for fold, own in scored.items() if own),
        n_cases=len({case.record.case for case in cases}),
    )


def _scored(validation: Path, records: Sequence[CaseQuality]) -> Iterator[_Scored]:
    """Yield the scored cases of a fold that its weights were not trained on."""
    path = validation / "summary.json"
    try:
        summary = Summary.model_validate_json(path.read_text(encoding="utf-8"))
        seen = {*summary.seen_in_training, *read_fold_cases(validation.parent).seen_cases}
    except (OSError, ValueError, ModelError) as error:
        log.warning(
            "%s: its predicted quality is left out, since the scores in %s or the cases in %s cannot be read (%s)",
            validation.parent, path.name, TRAINING_FILE, str(error).splitlines()[0],
        )  # fmt: skip
        return
    metrics: Mapping[str, CaseMetrics] = {case.case: case for case in summary.metric_per_case}
    for record in records:
        if record.case in metrics and record.case not in seen:
            yield _Scored(record, metrics[record.case])


def _pairs(cases: Sequence[_Scored], name: str, key: str) -> Iterator[Pair]:
    """Yield confidence and Dice of a class for every case in which it is predicted and has a Dice."""
    for record, metrics in cases:
        head, scores, scored_on = record.head(name), metrics.metrics.get(key), metrics.scored_on.get(key)
        if head is None or scores is None or scored_on is None or head.n_voxels == 0:
            continue
        if head.soft_dice_confidence is not None and scores.Dice is not None:
            yield Pair(head.soft_dice_confidence, scores.Dice, scored_on)


def _occurrence(cases: Sequence[_Scored], key: str) -> float | None:
    """Return the share of the cases scored for a class in whose reference it occurs; None without any."""
    scored = [case.metrics.metrics[key].n_ref > 0 for case in cases if case.metrics.scored_on.get(key) is not None]
    return sum(scored) / len(scored) if scored else None
