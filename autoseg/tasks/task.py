"""The task of a data set: the meaning of the outputs of its network, in training and in prediction.

Rows are the heads of the labels, one per class or region; annotation, scores and sampling refer to them. Outputs are
the channels of the network; there may be more of them than rows. Only the task converts one into the other. No module
of this package imports torch, since methods of tensors suffice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.core.components import call_component, resolve
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.dataset.labels import Labels
from autoseg.tasks.affinities import Affinities
from autoseg.tasks.instances import Instances
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic

if TYPE_CHECKING:
    from torch import Tensor


class Refinement(Protocol):
    """Possible outputs of each voxel, for tasks where they depend on neighbouring voxels and not on the class alone.

    They are computed after augmentation, from the annotation of a batch, on the device of the batch.
    """

    @property
    def sets(self) -> BoolArray:
        """(M, K, O) bool: the outputs that a voxel of class k may have by rule m.

        If ``Task.regions`` is (O, C), the last axis is its columns instead: (M, K, C). Rule 0 is for voxels of which
        only the class is known: it allows every output that another rule allows.
        """

    def rules(self, codes: Tensor, label_sets: Tensor, objects: Tensor | None) -> Tensor:
        """Return the rule of each voxel, (B, *P) int64 < M.

        Parameters
        ----------
        codes
            (B, *P) integers < N.
        label_sets
            (B, N, K) bool: the annotated classes of each code; all classes for unannotated voxels, which get rule 0.
        objects
            (B, *P) int32 number of the object of each voxel, 0 for none, -1 beyond the image; None unless label files
            hold numbers of objects. Only the classes tell what is annotated: numbers elsewhere mean nothing.
        """


class Task(Protocol):
    """Meaning of the outputs of a network: R rows, O outputs."""

    @property
    def labels(self) -> Labels:
        """Labels of the data set."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """(O,) names of the network's outputs; weights of a pretrained network are matched by these names."""

    @property
    def is_exclusive(self) -> bool:
        """Whether each voxel belongs to exactly one row (classes) and not to any number of rows (regions)."""

    @property
    def regions(self) -> BoolArray | None:
        """(O, K) bool: the classes of each output, which is a sigmoid; None: one softmax over all outputs.

        With a refinement (O, C): its columns are the last axis of ``Refinement.sets``.
        """

    @property
    def refinement(self) -> Refinement | None:
        """Rule that turns label sets of classes into sets of outputs; None: the network learns the label sets."""

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits of rows (B, R, *P), for softmax or sigmoid, from the logits of outputs (B, O, *P)."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each row, (B, R, *P) in [0, 1], from the logits of outputs (B, O, *P)."""

    def score(self, counts: Tensor) -> Sequence[float | None]:
        """Return the online score of each row, higher is better, from counts (3, R) int64 on decided voxels.

        Counts are true positives, false positives and false negatives, summed over the patches of a validation and over
        ranks. None for a row of which they say nothing. The best checkpoint is the one with the highest mean score of
        the foreground.
        """

    def decode(self, logits: NDArray[np.floating[Any]]) -> LabelMap:
        """Return file values (*S) from the logits of outputs (O, *S), which may be of any part of a case."""

    def finish(self, label_map: LabelMap) -> LabelMap:
        """Return the label map (z, y, x) to write, from the decoded one of a whole case in its file's axes."""


def objects_task(labels: Labels) -> Instances | Affinities:
    """Return the task of label files of objects: affinities if dataset.json gives offsets, boundaries otherwise."""
    is_of_pairs = labels.instances is not None and labels.instances.offsets
    return Affinities(labels) if is_of_pairs else Instances(labels)


TASKS: dict[str, Callable[[Labels], Task]] = {"semantic": Semantic, "regions": Regions, "instances": objects_task}
"""Built-in tasks by name: labels -> task."""
METHODS = ("scores", "probabilities", "score", "decode", "finish")
NEEDS = ("labels", "outputs", "is_exclusive", "regions", "refinement", *METHODS)
"""Attributes of a task."""


def outputs_of(labels: Labels) -> tuple[str, ...]:
    """Return (O,) names of the outputs of the networks of a data set, whatever its task; raises as :func:`task_of`."""
    return labels.targets or task_of(labels).outputs


def refuse_regression(labels: Labels, what: str) -> None:
    """Raise ``ConfigError`` if the task of a data set is regression; ``what`` is for classes alone."""
    if labels.targets:
        raise ConfigError(
            f"{what}: found the task regression ({listed(labels.targets)}), expected classes: this is for "
            "segmentations alone. Give a data set, or a model, with labels."
        )


def refuse_instances(labels: Labels, what: str) -> None:
    """Raise ``ConfigError`` if label files hold numbers of objects; ``what`` reads and writes classes."""
    if labels.instances is not None:
        raise ConfigError(
            f"{what}: found the task instances, expected label files of classes. Give a data set, or a model, without "
            '"task": "instances".'
        )


def task_of(labels: Labels) -> Task:
    """Return the task that ``labels.task`` names; if it is None, the built-in one: instances, regions or classes.

    Raises ``ConfigError`` if a user's task cannot be imported, or lacks a member of :class:`Task`, or if the data set
    has no classes, since its task is regression.
    """
    refuse_regression(labels, "a task of classes")
    built_in = "instances" if labels.instances else "regions" if labels.has_regions else "semantic"
    name = labels.task or built_in
    task = call_component("task", name, resolve("task", name, TASKS, needs=("__call__",)), labels)
    missing = [attribute for attribute in NEEDS if not hasattr(task, attribute)]
    if missing:
        raise ConfigError(
            f"task {name!r}: found {type(task).__name__} without {', '.join(missing)}, expected a class made from "
            "labels that has them. See docs/extending.md for an example."
        )
    for attribute in METHODS:
        if not callable(getattr(task, attribute)):
            raise ConfigError(
                f"task {name!r}: found {attribute} = {getattr(task, attribute)!r}, expected a method. See "
                "docs/extending.md for an example."
            )
    return cast("Task", task)
