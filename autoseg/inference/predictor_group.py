"""The models that predict a case together: of one model folder, or of several of one data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from autoseg.cases.case import Case, CaseRecord
from autoseg.core.arrays import Float32Array, LabelMap
from autoseg.core.boxes import Box
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.labels import Labels, background_value
from autoseg.inference.affinity_map import AffinityMap
from autoseg.inference.agreement import check_agreement, check_separation, matched_heads
from autoseg.inference.boxed_image import BoxedImage
from autoseg.inference.decided import Observer, needs_members, watched
from autoseg.inference.export import decided_slabs, joined, probability_slabs
from autoseg.inference.mean_probabilities import decided_mean_slabs
from autoseg.inference.members import MemberKind, member_kind
from autoseg.inference.model import Model
from autoseg.inference.numbers import decide_numbers
from autoseg.inference.objects import ObjectMap
from autoseg.inference.prepared import PreparedCase, PreparedPart, Separate, n_slices, stack_of_slices, whole_image
from autoseg.inference.window import Slab
from autoseg.preprocessing import Preprocessed
from autoseg.tasks.separation import SeparationSettings, separate
from autoseg.tasks.task import task_of


class CasePredictor(Protocol):
    """The part of :class:`autoseg.inference.predictor.Predictor` that a group uses."""

    @property
    def model(self) -> Model:
        """Networks, and the data set and plan that they were trained on."""

    @property
    def device(self) -> torch.device:
        """What computes."""

    @property
    def previous(self) -> object | None:
        """Predictor of the previous stage of a cascade, with which :meth:`prepare` predicts; otherwise None."""

    @property
    def is_mirrored(self) -> bool:
        """Whether predictions are means over mirrored copies of the image."""

    def prepare(self, case: Case) -> Preprocessed:
        """Return a case on the grid of the network."""

    def slabs(self, image: Float32Array | BoxedImage, case: str = "image", *, separate: bool = False) -> Iterator[Slab]:
        """Yield logits (O, planes, y, x) of a preprocessed image (C, *S), or of its region.

        ``case`` is its name in the log.

        With ``separate`` the logits of each member follow as O more outputs.
        """


@dataclass(frozen=True, eq=False, slots=True)
class PreparedRegion:
    """A case, or a part of it, on the grid of a network."""

    image: Float32Array | BoxedImage
    """(C, *S), the whole image; or an image of which a region is predicted."""
    record: CaseRecord
    """Description of the preprocessing of the whole case."""
    box: Box | None = None
    """Voxels of the crop, in the plan's axes, that are decided; None: all. The region of the image is
    ``resampling_of(record, box).source``."""


@dataclass(frozen=True, slots=True)
class PredictorGroup:
    """Predictors whose prediction of a case is one: the data set of the first describes it."""

    predictors: tuple[CasePredictor, ...]
    """One for each model folder, at least one."""
    separation: SeparationSettings | None = None
    """How objects are parted; None: as the model folder of the first says."""
    load_again: Callable[[], PredictorGroup] | None = None
    """Function that another process can call for the same models; None if that is not known."""

    def __post_init__(self) -> None:
        check_agreement(self.models)
        check_separation(self.models, separation_of(self))

    @property
    def models(self) -> tuple[Model, ...]:
        """The model of each predictor."""
        return tuple(predictor.model for predictor in self.predictors)

    @property
    def dataset(self) -> Dataset:
        """Labels, channels and file ending of the prediction."""
        return self.predictors[0].model.dataset

    @property
    def device(self) -> torch.device:
        """What computes: that of the first predictor, as of all."""
        return self.predictors[0].device

    @property
    def member_kind(self) -> MemberKind:
        """How the networks of all models differ."""
        return member_kind([model.folds for model in self.models])

    @property
    def is_mirrored(self) -> bool:
        """Whether predictions are means over mirrored copies of the image, in any of the models."""
        return any(predictor.is_mirrored for predictor in self.predictors)

    @property
    def needs_network_to_prepare(self) -> bool:
        """Whether :meth:`prepare` predicts, with the previous stage of a cascade."""
        return any(predictor.previous is not None for predictor in self.predictors)

    def prepare(self, case: Case) -> PreparedCase:
        """Return a case on the grid of each model; their records agree in axes and crop.

        For models of 2-D images a volume is a stack of slices, each of which is prepared and predicted by itself.
        """

        def prepare(image: Case) -> tuple[Preprocessed, ...]:
            return tuple(predictor.prepare(image) for predictor in self.predictors)

        plan = self.models[0].plan
        if n_slices(case.image.shape, case.geometry, plan) > 1:
            return stack_of_slices(case, plan, prepare)
        return whole_image(prepare(case))

    def label_map(
        self, case: PreparedCase, *, observers: Sequence[Observer] = (), pool: Executor | None = None
    ) -> LabelMap:
        """Return the label map (z, y, x) of a prepared case, in the file's axes; of the task instances, the objects.

        One model decides by its logits (:func:`autoseg.inference.export.decide`), several by the mean of their
        probabilities (:mod:`autoseg.inference.mean_probabilities`).

        Parameters
        ----------
        case
            What :meth:`prepare` returned.
        observers
            They get every slab, of classes; see :mod:`autoseg.inference.decided`. The result does not depend on them.
        pool
            Executor with one thread, which resamples slabs while this thread computes the next; None: this one does.
        """
        numbers = self.dataset.labels.instances
        if numbers is None:
            label_map = self._classes(case, observers, pool)
        else:
            label_map = self._objects(case, numbers, observers, pool)
        for gap in case.missing:
            label_map[gap.slices] = background_value(self.dataset.labels)
        return label_map

    def _objects(
        self, case: PreparedCase, numbers: InstanceNumbers, observers: Sequence[Observer], pool: Executor | None
    ) -> LabelMap:
        """Return the map of objects (z, y, x) of a prepared case; parameters as for :meth:`label_map`."""
        labels = self.dataset.labels
        settings = separation_of(self)
        images = case.images if settings.method == "mutex" else ()
        pairs = [AffinityMap(image[0].record, labels, len(image)) for image in images]
        objects = ObjectMap(case.record, labels)
        self._classes(case, (*observers, objects), pool, pairs)

        def separation(index: int) -> Separate:
            if not pairs:
                return partial(separate, settings=settings)
            return pairs[index].separation(settings, case.slice_axis)

        return objects.objects(case.by_slices(separation), numbers)

    def _classes(
        self,
        case: PreparedCase,
        observers: Sequence[Observer],
        pool: Executor | None,
        pairs: Sequence[AffinityMap] = (),
    ) -> LabelMap:
        """Return the map of classes (z, y, x) of a prepared case; parameters as for :meth:`label_map`.

        ``pairs`` get the logits, one for each image of the case; () if nobody wants them.
        """
        labels, task = self.dataset.labels, task_of(self.dataset.labels)
        maps = []
        for index, image in enumerate(case.images):
            regions = [_region(own) for own in image]
            watchers, own_pairs = case.placed(index, observers, labels), pairs[index : index + 1]
            slabs = decided_regions(self, regions, watchers, pool, pairs=own_pairs)
            maps.append(joined(slabs, image[0].record, task))
        return case.put_together(maps)

    def numbers(self, case: PreparedCase, *, pool: Executor | None = None) -> Float32Array:
        """Return the numbers (R, z, y, x) float32 of a prepared case in the file's axes, by models of regression.

        Those of several models are averaged.
        """
        return case.put_together([numbers_of_image(self, image, pool) for image in case.images])


def decided_regions(
    group: PredictorGroup,
    regions: Sequence[PreparedRegion],
    observers: Sequence[Observer] = (),
    pool: Executor | None = None,
    *,
    pairs: Sequence[AffinityMap] = (),
) -> Iterator[tuple[int, LabelMap]]:
    """Yield ``(first plane, file values (planes, y, x))`` of classes in the plan's axes, in order.

    ``regions`` are the same part of a case as each model needs it; ``pairs`` get its logits, as observers that want
    them do; the rest as for :meth:`PredictorGroup.label_map`.
    """
    made = [watched(slabs, (*observers, *pairs)) for slabs in region_logits(group, regions, observers)]
    return decided_logits(group, regions, made, observers, pool)


def region_logits(
    group: PredictorGroup, regions: Sequence[PreparedRegion], observers: Sequence[Observer] = ()
) -> list[Iterator[Slab]]:
    """Return the slabs of logits of each model, with those of its members if an observer needs them."""
    made = []
    for predictor, own in zip(group.predictors, regions, strict=True):
        is_separate = needs_members(observers) and len(predictor.model.networks) > 1
        made.append(predictor.slabs(own.image, own.record.case, separate=is_separate))
    return made


def decided_logits(
    group: PredictorGroup,
    regions: Sequence[PreparedRegion],
    logits: Sequence[Iterable[Slab]],
    observers: Sequence[Observer] = (),
    pool: Executor | None = None,
) -> Iterator[tuple[int, LabelMap]]:
    """Yield what :func:`decided_regions` does, given the slabs of each model."""
    labels, streams = group.dataset.labels, []
    for predictor, own, slabs in zip(group.predictors, regions, logits, strict=True):
        n_members = len(predictor.model.networks) if needs_members(observers) else 0
        if len(group.predictors) == 1:
            return decided_slabs(
                slabs, own.record, labels, box=own.box, observers=observers, n_members=n_members, pool=pool
            )
        of_model = predictor.model.dataset.labels
        streams.append(probability_slabs(slabs, own.record, of_model, box=own.box, n_members=n_members, pool=pool))
    heads = [matched_heads(labels, model.dataset.labels) for model in group.models]
    return decided_mean_slabs(streams, heads, labels, observers)


def _region(own: Preprocessed | PreparedPart) -> PreparedRegion:
    if isinstance(own, PreparedPart):
        return PreparedRegion(own.boxed, own.whole, own.box)
    return PreparedRegion(own.image, own.record)


def numbers_of_image(
    group: PredictorGroup, image: Sequence[Preprocessed | PreparedPart], pool: Executor | None
) -> Float32Array:
    """Return the numbers (R, z, y, x) of an image that is prepared for each model: the mean over the models."""
    each = (_numbers(group.dataset.labels, *pair, pool) for pair in zip(group.predictors, image, strict=True))
    total = next(each)
    for numbers in each:
        total += numbers
    total /= len(group.predictors)
    return total


def _numbers(
    wanted: Labels, predictor: CasePredictor, case: Preprocessed | PreparedPart, pool: Executor | None
) -> Float32Array:
    """Return the numbers (R, z, y, x) of one model, in the order of the targets of ``wanted``."""
    labels, targets = predictor.model.dataset.labels, predictor.model.plan.targets
    numbers = decide_numbers(predictor.slabs(case.image), case.record, labels, targets, pool=pool)
    order = matched_heads(wanted, labels)
    ordered: Float32Array = numbers if list(order) == sorted(order) else numbers[list(order)]
    return ordered


def separation_of(group: PredictorGroup) -> SeparationSettings:
    """Return the settings by which a group parts objects."""
    return group.models[0].separation if group.separation is None else group.separation
