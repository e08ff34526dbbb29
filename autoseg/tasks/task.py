"""The task of a data set: what the outputs of its network mean, and what they are trained to say.

Rows are the heads of the labels, one per class or region: annotation, scores and sampling speak of these. Outputs are
the channels of the network; there may be more of them than rows. Only the task knows how one becomes the other. No
module of this package imports torch: tensors bring their own methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.core.components import call_component, resolve
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Labels
from autoseg.tasks.regions import Regions
from autoseg.tasks.semantic import Semantic

if TYPE_CHECKING:
    from torch import Tensor


class Refinement(Protocol):
    """Which outputs a voxel may have, where that depends on its neighbours and not on its class alone.

    It is made after augmentation, of the annotation of a batch, and on the batch's device.
    """

    @property
    def sets(self) -> BoolArray:
        """(M, K, O) bool: the outputs that a voxel of class k may have by rule m.

        Where ``Task.regions`` is (O, C) these are not outputs but its columns, (M, K, C).
        Rule 0 is for voxels of which only the class is known: it allows whatever another rule does.
        """

    def rules(self, codes: Tensor, label_sets: Tensor) -> Tensor:
        """Return the rule of each voxel, (B, *P) int64 < M.

        Parameters
        ----------
        codes
            (B, *P) integers < N.
        label_sets
            (B, N, K) bool: the classes that were annotated for each code; all of them where nothing is known. Such a
            voxel gets rule 0.
        """


class Task(Protocol):
    """Everything that knows what an output of the network is; R rows, O outputs."""

    @property
    def labels(self) -> Labels:
        """Of the data set."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """(O,) names of the network's outputs; weights of another network are taken over by these names."""

    @property
    def is_exclusive(self) -> bool:
        """Whether each voxel has exactly one row (classes), as opposed to any number of them (regions)."""

    @property
    def regions(self) -> BoolArray | None:
        """(O, K) bool: the classes for which each output is a sigmoid; None: one softmax over all outputs.

        With a refinement (O, C): the columns are those of its sets.
        """

    @property
    def refinement(self) -> Refinement | None:
        """How label sets of classes become sets of outputs; None: the network learns the label sets as they are."""

    def scores(self, logits: Tensor) -> Tensor:
        """Return logits of rows (B, R, *P), of which softmax or sigmoid are the probabilities, from (B, O, *P)."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probability of each row, (B, R, *P) in [0, 1], from logits (B, O, *P)."""

    def decode(self, logits: NDArray[np.floating[Any]]) -> LabelMap:
        """Return file values (*S) from logits (O, *S), which may be any part of a case."""

    def finish(self, label_map: LabelMap) -> LabelMap:
        """Return the label map (z, y, x) that is written, from the decoded one of a whole case in its file's axes."""


TASKS: dict[str, Callable[[Labels], Task]] = {"semantic": Semantic, "regions": Regions}
"""Built-in tasks by name: labels -> task."""
NEEDS = ("labels", "outputs", "is_exclusive", "regions", "refinement", "scores", "probabilities", "decode", "finish")
"""Attributes of a task."""


def task_of(labels: Labels) -> Task:
    """Return the task that ``labels.task`` names; where it names none, that of their heads: classes or regions.

    Raises ``ConfigError`` if a task of a user cannot be imported, or lacks something of :class:`Task`.
    """
    name = labels.task or ("regions" if labels.has_regions else "semantic")
    task = call_component("task", name, resolve("task", name, TASKS, needs=("__call__",)), labels)
    missing = [attribute for attribute in NEEDS if not hasattr(task, attribute)]
    if missing:
        raise ConfigError(
            f"task {name!r}: found {type(task).__name__} without {', '.join(missing)}, expected a class made from "
            "labels that has them. See docs/extending.md for an example."
        )
    for attribute in ("scores", "probabilities", "decode", "finish"):
        if not callable(getattr(task, attribute)):
            raise ConfigError(
                f"task {name!r}: found {attribute} = {getattr(task, attribute)!r}, expected a method. See "
                "docs/extending.md for an example."
            )
    return cast("Task", task)
