"""The models that predict a case together: one model folder, or several of one data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from autoseg.cases.case import Case
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.dataset.dataset import Dataset
from autoseg.inference.decided import Observer, needs_members
from autoseg.inference.export import decide
from autoseg.inference.members import MemberKind, member_kind
from autoseg.inference.model import Model
from autoseg.inference.numbers import decide_numbers
from autoseg.inference.objects import ObjectMap
from autoseg.inference.window import Slab
from autoseg.preprocessing import Preprocessed
from autoseg.tasks.separation import separate


class CasePredictor(Protocol):
    """The part of :class:`autoseg.inference.predictor.Predictor` that a group uses."""

    @property
    def model(self) -> Model:
        """Networks, and the data set and plan that they were trained on."""

    @property
    def previous(self) -> object | None:
        """Predictor of the previous stage of a cascade, with which :meth:`prepare` predicts; otherwise None."""

    def prepare(self, case: Case) -> Preprocessed:
        """Return a case on the grid of the network."""

    def slabs(self, image: Float32Array, case: str = "image", *, separate: bool = False) -> Iterator[Slab]:
        """Yield logits (O, planes, y, x) of a preprocessed image (C, *S); ``case`` is its name in the log.

        With ``separate`` the logits of each member follow as O more outputs.
        """


@dataclass(frozen=True, slots=True)
class PredictorGroup:
    """Predictors whose prediction of a case is one: the data set of the first describes it."""

    predictors: tuple[CasePredictor, ...]
    """One for each model folder, at least one."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The model of each predictor."""
        return tuple(predictor.model for predictor in self.predictors)

    @property
    def dataset(self) -> Dataset:
        """Labels, channels and file ending of the prediction."""
        return self.predictors[0].model.dataset

    @property
    def member_kind(self) -> MemberKind:
        """How the networks of all models differ."""
        return member_kind([model.folds for model in self.models])

    @property
    def needs_network_to_prepare(self) -> bool:
        """Whether :meth:`prepare` predicts, with the previous stage of a cascade."""
        return any(predictor.previous is not None for predictor in self.predictors)

    def prepare(self, case: Case) -> tuple[Preprocessed, ...]:
        """Return a case on the grid of each model; their records agree in axes and crop."""
        return tuple(predictor.prepare(case) for predictor in self.predictors)

    def label_map(
        self, case: Sequence[Preprocessed], *, observers: Sequence[Observer] = (), pool: Executor | None = None
    ) -> LabelMap:
        """Return the label map (z, y, x) of a prepared case, in the file's axes; of the task instances, the objects.

        ``observers`` get every slab (:mod:`autoseg.inference.decided`); ``pool`` as for
        :func:`autoseg.inference.export.decide`. The label map depends on neither.
        """
        (predictor,), (own,) = self.predictors, case
        labels = self.dataset.labels
        objects = None if labels.instances is None else ObjectMap(own.record, labels)
        if objects is not None:
            observers = (*observers, objects)
        n_members = len(predictor.model.networks) if needs_members(observers) else 0
        slabs = predictor.slabs(own.image, own.record.case, separate=n_members > 1)
        decided = decide(slabs, own.record, labels, observers=observers, n_members=n_members, pool=pool)
        if objects is None or labels.instances is None:
            return decided
        return objects.objects(partial(separate, settings=predictor.model.separation), labels.instances)

    def numbers(self, case: Sequence[Preprocessed], *, pool: Executor | None = None) -> Float32Array:
        """Return the numbers (R, z, y, x) float32 of a prepared case in the file's axes, by models of regression."""
        (predictor,), (own,) = self.predictors, case
        model = predictor.model
        return decide_numbers(
            predictor.slabs(own.image), own.record, model.dataset.labels, model.plan.targets, pool=pool
        )
