"""The output ``quality/<case>.json`` beside a prediction: how sure the model is of a case, and how good it may be."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from autoseg.cases.case import CaseRecord
from autoseg.core.findings import counted, listed
from autoseg.dataset.labels import Labels
from autoseg.evaluation.disagreement import ExpectedDice
from autoseg.evaluation.likeness import CaseFeatures, mean_features
from autoseg.evaluation.quality import (
    QUALITY_TABLE,
    CaseQuality,
    HeadQuality,
    Quality,
    judged,
    judged_heads,
    record_path,
    records_in,
    write_quality_table,
)
from autoseg.inference.case_features import case_features
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.export import decide
from autoseg.inference.logit_resampling import Logits
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.quality_sums import QualitySums
from autoseg.io.images import without_ending
from autoseg.tasks.task import outputs_of

log = logging.getLogger(__name__)

MM3_PER_ML = 1000.0
MEMBER_BYTES = 2**31
"""Size of the planes of all members of a prediction, in bytes, up to which their pairwise Dice is measured."""


@dataclass(frozen=True, slots=True)
class PredictedQuality:
    """The record of every case of a folder; see :mod:`autoseg.inference.outputs`."""

    quality: Quality | None = None
    """What is known of the model; None writes confidence and features alone, as for the validation of a fold."""
    name: ClassVar[str] = "predicted quality"

    def is_written(self, output: Path) -> bool:
        """Return True: a case is not predicted again for its record, which others may lack."""
        return True

    @staticmethod
    def remove(output: Path) -> None:
        """Remove the record of a case, if it exists; :func:`conclude_quality` removes it from the table."""
        record_path(output.parent, without_ending(output)).unlink(missing_ok=True)

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> CaseSums:
        """Return the observer of a case."""
        model = predictor.models[0]
        n_channels = len(model.plan.channel_names)
        features = mean_features(
            [case_features(own.image[:n_channels], own.record, model.configuration) for own, *_ in prepared.images]
        )
        n_members = sum(len(item.networks) for item in predictor.models)
        sums = QualitySums(predictor.dataset.labels, needs_members=_compares_members(prepared.record, predictor))
        return CaseSums(output, prepared.record, features, sums, n_members, self.quality)


@dataclass(frozen=True, slots=True)
class CaseSums:
    """Observer of one case that writes its record."""

    output: Path
    record: CaseRecord
    features: CaseFeatures
    sums: QualitySums
    n_members: int
    quality: Quality | None

    @property
    def needs_members(self) -> bool:
        """Whether the probabilities of each member are needed."""
        return self.sums.needs_members

    def __call__(self, slab: DecidedSlab) -> None:
        """Add a slab."""
        self.sums(slab)

    def write(self) -> None:
        """Write the record."""
        heads = head_qualities(self.sums, self.record)
        record = CaseQuality(
            case=self.record.case, file=self.output.name, n_members=self.n_members, heads=heads, features=self.features
        )
        judged(record, self.quality).write(self.output.parent)

    def close(self) -> None:
        """Do nothing: no file is open."""


def conclude_quality(folder: Path, cases: Collection[str]) -> None:
    """Write ``quality.csv`` from all records in a folder of predictions; name those of ``cases`` that are unlike.

    Without a record there is no table: that of removed records is removed, too. One record is in memory at a time.
    """
    own, unlike = frozenset(cases), list[str]()

    def noted() -> Iterator[CaseQuality]:
        for record in records_in(folder):
            if record.case in own and record.verdict and record.verdict.is_unlike:
                unlike.append(record.case)
            yield record

    write_quality_table(folder / QUALITY_TABLE, noted())
    if unlike:
        log.warning(
            "%d of %s are unlike the training images, so that their predicted Dice may be wrong: %s. Reasons: %s",
            len(unlike), counted(len(cases), "case"), listed(unlike), folder / QUALITY_TABLE,
        )  # fmt: skip


def _compares_members(record: CaseRecord, predictor: PredictorGroup) -> bool:
    """Whether there are several members, whose planes take at most ``MEMBER_BYTES`` of memory."""
    numbers = [len(model.networks) for model in predictor.models]
    if sum(numbers) < 2:
        return False
    n_outputs = len(outputs_of(predictor.dataset.labels))
    depths = [model.configuration.patch_size[0] if not model.configuration.is_2d else 1 for model in predictor.models]
    plane = 4 * n_outputs * math.prod(record.shape_after_crop[1:])
    return sum(n * depth * plane for n, depth in zip(numbers, depths, strict=True)) <= MEMBER_BYTES


def head_qualities(sums: QualitySums, record: CaseRecord) -> tuple[HeadQuality, ...]:
    """Return confidence and volume of each foreground head of a case, from the sums of all its slabs.

    The volume is in ml, and in pixels for an image of two dimensions, whose file often states no spacing.
    """
    is_2d = record.geometry.ndim == 2
    of_voxel = 1.0 if is_2d else math.prod(record.spacing_before) / MM3_PER_ML
    return tuple(
        HeadQuality(
            key=head.key,
            name=head.name,
            soft_dice_confidence=confidence.soft_dice,
            pairwise_dice=confidence.pairwise_dice,
            n_voxels=confidence.n_voxels,
            volume=confidence.n_voxels * of_voxel,
            unit="pixels" if is_2d else "ml",
        )
        for head, confidence in zip(sums.heads, sums.confidences(), strict=True)
    )


def case_dice(
    logits: Logits, record: CaseRecord, labels: Labels, quality: Quality | None
) -> tuple[ExpectedDice | None, ...]:
    """Return the Dice to expect of each class of a case, by class index; None for background.

    It is that of the head, among those that hold the class, of which least is expected:
    :attr:`autoseg.evaluation.quality.HeadQuality.expected`, which without ``quality`` is the soft Dice confidence.
    ``logits`` as for :func:`autoseg.inference.export.decide`.
    """
    sums = QualitySums(labels)
    decide(logits, record, labels, observers=(sums,))
    heads = judged_heads(head_qualities(sums, record), quality)
    expected: list[ExpectedDice | None] = [None] * labels.n_classes
    for head, found in sorted(zip(sums.heads, heads, strict=True), key=lambda pair: -pair[1].expected):
        curve = None if quality is None else quality.curve(found.name)
        for index in head.classes:
            if index:
                expected[index] = ExpectedDice(found.expected, None if curve is None else curve.mean_dice)
    return tuple(expected)
