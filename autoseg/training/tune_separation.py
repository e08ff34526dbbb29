"""Settings of the separation of objects, tuned on the validation cases of the folds of a model folder.

Each validation case is parted by a small grid of settings while its prediction is written, and the matches with its
reference are kept beside the prediction. When the validation of a fold ends, the settings with the best average
precision over the records of all folds are stored in the model folder. Predictions of validation cases themselves are
made with the defaults, so that their scores are those of cases on which nothing was tuned.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np

from autoseg.cases.case import CaseRecord, Target
from autoseg.cases.label_codes import read_annotation
from autoseg.core.arrays import LabelMap
from autoseg.core.atomic import write_json
from autoseg.core.json_models import save_model
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels, head_states
from autoseg.dataset.objects import objects_of_class
from autoseg.evaluation.instances import InstanceCounts, add_counts, match_instances
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.objects import ObjectMap
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.prepared import PreparedCase
from autoseg.inference.separation_file import SEPARATION_FILE, SeparationFile, SeparationTuning, read_separation_file
from autoseg.io.images import without_ending
from autoseg.tasks.separation import SeparationSettings, renumbered, separate

log = logging.getLogger(__name__)

CORES, NECKS, SIZES = (0.3, 0.5, 0.7), (0.5, 0.7, 0.85), (5, 25, 100)
"""Values of each setting that are tried, the default among them."""
MOST_VOXELS = 1_000_000
"""Of a case only a box of about so many voxels, around its reference objects, is tried."""
MOST_CASES = 8
"""Number of cases of a fold that are tried."""
LEAST_OBJECTS = 20
"""With fewer reference objects in all records the defaults stay."""
LEAST_GAIN = 0.01
"""The defaults stay unless others are better by this average precision."""
FOLDER = "separation"
"""Folder of the records, in that of the validation."""


@dataclass(frozen=True, slots=True)
class SeparationTrials:
    """The output ``separation/<case>.json`` of validation cases; see :mod:`autoseg.inference.outputs`."""

    dataset: Dataset
    """With the label files of the cases."""
    cases: frozenset[str]
    """Names of the cases that are tried, unless they are stacks of slices; of others nothing is written."""
    name: ClassVar[str] = "trials of the separation"

    def is_written(self, output: Path) -> bool:
        """Whether the record of a case exists."""
        return _record_path(output).is_file()

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> _CaseTrials:
        """Return the observer of a case."""
        labels, record = self.dataset.labels, prepared.record
        is_tried = record.case in self.cases and prepared.slice_axis is None
        path = _record_path(output) if is_tried else None
        return _CaseTrials(path, self.dataset.case(record.case), ObjectMap(record, labels), record, labels)


@dataclass(frozen=True, slots=True)
class _CaseTrials:
    """Observer of one case, which parts it by every setting of the grid."""

    path: Path | None
    """Of the record; None writes none."""
    files: CaseFiles
    objects: ObjectMap
    record: CaseRecord
    labels: Labels
    needs_members: ClassVar[bool] = False

    def __call__(self, slab: DecidedSlab) -> None:
        """Keep a slab."""
        if self.path is not None:
            self.objects(slab)

    def write(self) -> None:
        """Write the matches of each setting with the reference."""
        if self.path is None:
            return
        values, cores = self.objects.arrays()
        target = read_annotation(self.files, self.labels, values.shape)
        if target.objects is None:
            return
        box = box_of_objects(target.objects)
        target = Target(target.codes[box], target.label_sets, target.undrawn, objects=target.objects[box])
        content = []
        spacing = self.record.geometry.spacing
        for core, neck in product(CORES, NECKS):
            settings = SeparationSettings(core=core, neck=neck, min_size=0)
            masks = [values[box] == value for value in self.labels.class_values[1:]]
            parted = [separate(mask, cores[box], spacing, settings) for mask in masks]
            for size in SIZES:
                counts = add_counts(list(_matches(target, [renumbered(part, size) for part in parted], self.labels)))
                content.append({"core": core, "neck": neck, "min_size": size, **_as_json(counts)})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, content)

    def close(self) -> None:
        """Nothing to give back."""


def box_of_objects(objects: LabelMap) -> tuple[slice, slice, slice]:
    """Return a box (z, y, x) of at most about ``MOST_VOXELS`` voxels around the middle of objects (z, y, x).

    The longest edges are cut until it is small enough. Without objects it lies in the middle of the array.
    """
    edges = list(objects.shape)
    while np.prod(edges) > MOST_VOXELS and max(edges) > 1:
        longest = int(np.argmax(edges))
        edges[longest] = max(1, int(edges[longest] * 0.9))
    places = np.nonzero(objects)
    middle = [int(np.median(of)) if len(of) else edge // 2 for of, edge in zip(places, objects.shape, strict=True)]
    low = [
        min(max(0, at - edge // 2), whole - edge) for at, edge, whole in zip(middle, edges, objects.shape, strict=True)
    ]
    z, y, x = (slice(first, first + edge) for first, edge in zip(low, edges, strict=True))
    return (z, y, x)


def tune_separation(model_folder: Path) -> None:
    """Store the best settings by the records of all folds as ``SEPARATION_FILE``, unless a user wrote that file.

    With fewer than ``LEAST_OBJECTS`` reference objects the file is not written, and a file of an earlier tuning is
    removed: the defaults count.
    """
    path = model_folder / SEPARATION_FILE
    present = read_separation_file(model_folder)
    if present is not None and present.tuning is None:
        log.info("%s: settings of a user, which are kept", path)
        return
    records = sorted(model_folder.glob(f"fold_[0-9]*/validation/{FOLDER}/*.json"))
    totals: dict[SeparationSettings, InstanceCounts] = {}
    for record in records:
        for settings, counts in _read(record):
            totals[settings] = counts + totals[settings] if settings in totals else counts
    usual = SeparationSettings()
    if usual not in totals or totals[usual].n_reference < LEAST_OBJECTS:
        path.unlink(missing_ok=True)
        return
    scores = {settings: counts.average_precision() or 0.0 for settings, counts in totals.items()}
    best = max(scores, key=lambda settings: scores[settings])
    if scores[best] < scores[usual] + LEAST_GAIN:
        best = usual
    tuning = SeparationTuning(
        AP50=scores[best],
        AP50_of_defaults=scores[usual],
        n_objects=totals[usual].n_reference,
        cases=tuple(f"{record.parents[2].name}/{record.stem}" for record in records),
    )
    log.info(
        "objects are parted with core %g, neck %g, min_size %d: AP50 %.3f on %d validation objects (defaults: %.3f)",
        best.core, best.neck, best.min_size, scores[best], tuning.n_objects, scores[usual],
    )  # fmt: skip
    save_model(SeparationFile(**best.model_dump(), tuning=tuning), path)


def _record_path(output: Path) -> Path:
    """Return the record of the case whose label map is ``output``."""
    return output.parent / FOLDER / f"{without_ending(output)}.json"


def _matches(target: Target, objects: list[LabelMap], labels: Labels) -> Iterator[InstanceCounts]:
    """Yield the matches of each class with the objects (z, y, x) of a target, where it decides the class."""
    positive, negative = head_states(target.label_sets, labels.regions)  # (N, H)
    if target.objects is None:
        return
    for index, predicted in zip(labels.foreground_heads, objects, strict=True):
        is_own = positive[:, index][target.codes]
        drawn = objects_of_class(target.objects, is_own, 1)
        yield match_instances(predicted, drawn, is_own | negative[:, index][target.codes])


def _as_json(counts: InstanceCounts) -> dict[str, object]:
    return {
        "matched": list(counts.matched), "n_pred": counts.n_predicted, "n_ref": counts.n_reference,
        "matched_iou": counts.matched_iou,
    }  # fmt: skip


def _read(path: Path) -> Iterator[tuple[SeparationSettings, InstanceCounts]]:
    """Yield each setting of a record with its matches."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        settings = SeparationSettings(core=row["core"], neck=row["neck"], min_size=row["min_size"])
        yield settings, InstanceCounts(tuple(row["matched"]), row["n_pred"], row["n_ref"], row["matched_iou"])
