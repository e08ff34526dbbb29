"""The output ``instances/<case>``: a label map of objects beside the label map of classes that a model predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from autoseg.cases.case import CaseRecord
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.instance_numbers import LARGEST_NUMBER, InstanceNumbers
from autoseg.dataset.labels import Labels
from autoseg.dataset.schema import INSTANCES, PER_CLASS
from autoseg.inference.cellpose import cellpose_model, separate_with_cellpose
from autoseg.inference.decided import DecidedSlab
from autoseg.inference.objects import ObjectMap
from autoseg.inference.predictor_group import PredictorGroup, separation_of
from autoseg.inference.prepared import PreparedCase, Separate
from autoseg.io.images import ending_of, without_ending, write_labels, written_ending
from autoseg.tasks.separation import SeparationSettings, separate

Method = Literal["watershed", "mutex", "cellpose"]
"""How objects are parted; mutex only by models with affinities."""
FOLDER = "instances"
"""Folder of the maps, in that of the predictions."""
OF_SEVERAL_CLASSES = 1_000_000
"""``instances_per_class`` of these maps where the model has several classes, unless their values are too large."""


def check_method(method: str) -> None:
    """Raise ``ConfigError`` unless there is a method of this name."""
    if method not in get_args(Method):
        raise ConfigError(
            f"--instances: found {method!r}, expected one of {', '.join(get_args(Method))}. Leave the method out for "
            "watershed."
        )


def has_affinities(group: PredictorGroup) -> bool:
    """Whether the label maps of a group hold objects, which may be parted by affinities."""
    rule = group.dataset.labels.instances
    return rule is not None and bool(rule.offsets)


def parted_by(group: PredictorGroup, method: str) -> PredictorGroup:
    """Return a group of models with affinities whose label maps hold objects parted by a method.

    Raises ``ConfigError`` unless the method is watershed or mutex, and the package of mutex installed.
    """
    check_method(method)
    if method == "cellpose":
        raise ConfigError(
            "--instances cellpose: found a model of affinities, expected watershed or mutex. Leave the option out for "
            "the method of its separation.json."
        )
    return replace(group, separation=separation_of(group).model_copy(update={"method": method}))


@dataclass(frozen=True, slots=True)
class SavedInstances:
    """See :mod:`autoseg.inference.outputs`. The folder also gets a dataset.json, by which the maps are evaluated."""

    dataset: Dataset
    """That of the model."""
    separate: Separate
    name: ClassVar[str] = "instances"

    @classmethod
    def by(cls, method: str, dataset: Dataset, settings: SeparationSettings) -> SavedInstances:
        """Return the output whose objects are parted by a method.

        Raises ``ConfigError`` if there is no such method, cellpose is not installed, the model predicts objects
        already, or mutex is asked of a model without affinities.
        """
        check_method(method)
        if dataset.labels.instances is not None:
            raise ConfigError(
                "--instances: found a model of the task instances, whose label maps already hold objects, expected one "
                "of classes or regions. Leave the option out."
            )
        if method == "mutex":
            raise ConfigError(
                "--instances mutex: found a model of classes or regions, expected one of affinities: a data set of the "
                'task instances with "affinities" in dataset.json. Leave the method out for watershed.'
            )
        if method == "cellpose":
            return cls(dataset, partial(separate_with_cellpose, settings=settings, model=cellpose_model()))
        return cls(dataset, partial(separate, settings=settings.model_copy(update={"method": method})))

    @property
    def numbers(self) -> InstanceNumbers:
        """Rule of the file values: numbers alone for one class."""
        values = self.dataset.labels.class_values
        return InstanceNumbers(
            None if len(values) == 2 else min(OF_SEVERAL_CLASSES, LARGEST_NUMBER // (max(values) + 1))
        )

    @staticmethod
    def path(output: Path) -> Path:
        """Return the map of a case, given the path of its label map."""
        ending = written_ending(ending_of(output), LARGEST_NUMBER)
        return output.parent / FOLDER / f"{without_ending(output)}{ending}"

    def is_written(self, output: Path) -> bool:
        """Whether the map of a case exists."""
        return self.path(output).is_file()

    @staticmethod
    def remove(output: Path) -> None:
        """Remove the map of a case, if it exists."""
        SavedInstances.path(output).unlink(missing_ok=True)

    def begin(self, output: Path, prepared: PreparedCase, predictor: PredictorGroup) -> _CaseInstances:
        """Return the observer of a case."""
        record, separate = prepared.record, prepared.by_slices(lambda _: self.separate)
        return _CaseInstances(self, self.path(output), record, ObjectMap(record, self.dataset.labels), separate)

    def as_json(self, ending: str) -> dict[str, Any]:
        """Return the dataset.json of a folder of maps with an ending."""
        labels: Labels = self.dataset.labels
        classes = dict(zip(labels.class_names, labels.class_values, strict=True))
        per_class = {} if self.numbers.per_class is None else {PER_CLASS: self.numbers.per_class}
        unknown = {"unlabelled": labels.unlabelled} if labels.class_values[0] else {}
        return {
            "channel_names": {str(index): name for index, name in enumerate(self.dataset.channels)},
            "task": INSTANCES,
            "labels": classes,
            **unknown,
            **per_class,
            "numTraining": 0,
            "file_ending": ending,
        }


@dataclass(frozen=True, slots=True)
class _CaseInstances:
    """Observer of one case, which writes its map of objects."""

    output: SavedInstances
    path: Path
    record: CaseRecord
    objects: ObjectMap
    separate: Separate
    needs_members: ClassVar[bool] = False

    def __call__(self, slab: DecidedSlab) -> None:
        """Keep a slab."""
        self.objects(slab)

    def write(self) -> None:
        """Part the objects and write their map."""
        objects = self.objects.objects(self.separate, self.output.numbers)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path.parent / "dataset.json", self.output.as_json(ending_of(self.path)))
        write_labels(self.path, objects, self.record.geometry)

    def close(self) -> None:
        """Nothing to give back."""
