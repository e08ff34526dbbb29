"""The sources of evidence of a run."""

from __future__ import annotations

import torch

from autoseg.dataset.labels import settled_cases
from autoseg.training.evidence.background_prior import BackgroundPrior
from autoseg.training.evidence.promises import Promises
from autoseg.training.evidence.source import EvidenceSource
from autoseg.training.evidence.teacher import Teacher
from autoseg.training.evidence.totals import Totals
from autoseg.training.request import FoldRequest


def evidence_sources(request: FoldRequest, device: torch.device) -> tuple[EvidenceSource, ...]:
    """Return what infers more than the annotation; () if nothing. Promises first: others compare with their weights."""
    config, labels = request.config, request.dataset.labels
    if labels.is_dense or labels.targets:
        return ()
    entries = request.train_entries
    totals = Totals.of(entries, labels)
    infers = totals.n_promised > 0 and config.evidence.promise_weight > 0
    if not (infers or config.evidence.background_prior or config.evidence.teacher_weight):
        return ()
    sources: list[EvidenceSource] = [Promises(config.evidence.promise_weight, totals, settled_cases(labels))]
    if config.evidence.background_prior:
        sources.append(BackgroundPrior(config.evidence.background_prior, labels, totals, device, request.ranks))
    if config.evidence.teacher_weight:
        records = [entry.record for entry in entries]
        # objects are cut by slices of volumes, and those of the context were never looked for
        is_whole = not request.configuration.is_2d or all(record.shape[0] == 1 for record in records)
        is_whole = is_whole and not any(record.has_context for record in records)
        sources.append(Teacher(config, labels, request.dataset.protocol.instances_touched and is_whole, request.ranks))
    return tuple(sources)
