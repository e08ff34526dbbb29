"""The meaning of the integers of a label file: the only module that converts file values to label sets and back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.dataset.instance_numbers import InstanceNumbers
from autoseg.dataset.painting import Painting, paint
from autoseg.dataset.value_codes import look_up

LazySemantics: TypeAlias = Literal["marginal", "seed"]


@dataclass(frozen=True, slots=True)
class Head:
    """A row of the result table: a class or a region. The outputs of the network are defined by ``autoseg.tasks``."""

    name: str
    classes: tuple[int, ...]
    """Indices (not file values) of its classes."""
    values: tuple[int, ...]
    """File values of its classes, ascending."""
    is_background: bool = False

    @property
    def key(self) -> str:
        """Key in a summary.json, in nnU-Net's form: ``"1"`` or ``"(1, 2)"``."""
        return str(self.values[0]) if len(self.values) == 1 else str(self.values)


@dataclass(frozen=True, slots=True)
class CaseStatement:
    """Statement of ``dataset.json: cases.<case>`` on the classes of one case, as class indices."""

    annotated: frozenset[int] | None = None
    """Completely annotated classes; None means all."""
    absent: frozenset[int] = frozenset()
    """Classes that certainly do not occur."""


@dataclass(frozen=True)
class Labels:
    """The classes of a data set, their file values, and the rows of its result table.

    Made by :meth:`autoseg.dataset.dataset.Dataset.load`, which validates; this class does not check its fields.
    """

    class_values: tuple[int, ...]
    """File value of each class; class 0 is background (0 unless ``unlabelled`` is declared), the others ascend."""
    class_names: tuple[str, ...]
    heads: tuple[Head, ...]
    """One per class, background first; or one per region, in order of declaration, without background."""
    paint_values: tuple[int, ...] | None = None
    """For regions, file value painted for each head, in painting order (``regions_class_order``); otherwise None."""
    ignore: int | None = None
    """``labels.ignore``: file value of unannotated voxels, above the values of all classes; None if not declared."""
    unlabelled: int | None = None
    """``unlabelled``: another file value of unannotated voxels; ``file_values.NAN_VALUE`` stands for NaN."""
    set_values: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Further file value -> indices of the possible classes (``dataset.json: label_sets`` and ``label_weights``)."""
    value_weights: Mapping[int, float] = field(default_factory=dict)
    """File value in ``set_values`` -> how much a voxel counts in training, above 0 and below 1 (``label_weights``)."""
    statements: Mapping[str, CaseStatement] = field(default_factory=dict)
    """Case -> its statement; cases without one are missing."""
    lazy_semantics: LazySemantics = "marginal"
    """Meaning of labels in cases whose ``annotated`` omits classes. "marginal": 0 means "none of the annotated
    classes", a class means itself. "seed": 0 and the omitted classes mean only "not an absent class"."""
    has_masks: bool = False
    """Whether every case has a mask of its annotated voxels (``dataset.json: valid_mask_folder``)."""
    has_boxes: bool = False
    """Whether cases are parts of volumes, around which the image is read, but nothing is annotated."""
    task: str | None = None
    """Name of a user's task (``dataset.json: task``); None: that of the heads, see ``autoseg.tasks.task.task_of``."""
    targets: tuple[str, ...] = ()
    """For regression, the names of the numbers that label files hold for each voxel, one per channel; () for classes.
    Then class 1 stands for "a number is known here", class 0 never occurs, and each target is a head of class 1."""
    no_number: int | None = None
    """For regression, the number of a voxel of which nothing is known, besides NaN; None if there is none."""
    instances: InstanceNumbers | None = None
    """Rule by which label files hold numbers of objects; None: they hold classes. All else speaks of classes."""

    @property
    def n_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.class_values)

    @property
    def n_heads(self) -> int:
        """Number of heads: rows of the result table."""
        return len(self.heads)

    @property
    def has_regions(self) -> bool:
        """Whether heads are regions, which may overlap, instead of classes."""
        return self.paint_values is not None

    @property
    def is_dense(self) -> bool:
        """Whether dataset.json implies that every voxel of every case is annotated as exactly one class."""
        has_sets = any(len(members) != 1 for members in self.set_values.values())
        return not (unknown_values(self) or has_sets or statements_leave_open(self) or self.has_masks or self.has_boxes)

    @property
    def unknown(self) -> int:
        """Code of a voxel that may have any class: K."""
        return self.n_classes

    @property
    def outside(self) -> int:
        """Code of voxels outside an image, as in padding: background if the data set is dense, otherwise unknown."""
        return 0 if self.is_dense else self.unknown

    @cached_property
    def regions(self) -> BoolArray:
        """(H, K) bool: the classes that each head stands for."""
        table = np.zeros((self.n_heads, self.n_classes), dtype=bool)
        for row, head in enumerate(self.heads):
            table[row, list(head.classes)] = True
        return table

    @property
    def foreground_heads(self) -> tuple[int, ...]:
        """Indices of the heads that are not background."""
        return tuple(index for index, head in enumerate(self.heads) if not head.is_background)

    def file_values(self) -> tuple[int, ...]:
        """All values that a label file may hold, ascending."""
        return tuple(sorted({*self.class_values, *self.set_values, *unknown_values(self)}))

    def sets_by_value(self, case: str = "") -> dict[int, frozenset[int]]:
        """Return file value -> indices of the classes that a voxel of ``case`` with that value may have.

        Source: lazy labels of ELEKTRONN (``convlayer3d.NLL``), expressed as sets. Differs, unless ``lazy_semantics`` is
        "seed", in that 0 means "none of the annotated classes", where ELEKTRONN ignores the voxel.
        """
        absent = self.statements.get(case, CaseStatement()).absent
        sets = drawn_sets(self, case)
        return {value: members if len(members) == 1 else members - absent for value, members in sets.items()}

    def encode(
        self, file_labels: NDArray[Any], case: str = "", valid: BoolArray | None = None
    ) -> tuple[CodeArray, BoolArray]:
        """Return codes and label sets for the integers of a label file.

        Parameters
        ----------
        file_labels
            (*S) integers (a floating type with integral values is accepted), values as in ``dataset.json``.
        case
            Name of the case, to apply its statement in ``dataset.json: cases``.
        valid
            (*S) bool: False for unannotated voxels, whatever value the file holds there, declared or not; they may have
            any class that is not absent. None: the file alone decides.

        Returns
        -------
        codes, label_sets
            (*S) uint8 (uint16 for more than 256 codes) and (N, K) bool. Codes 0..K-1 are the single classes, K is
            "unknown"; further codes are the other sets of the case. An empty array gives an empty map. The code of
            unannotated voxels is :func:`undrawn_code`.

        Raises
        ------
        DatasetError
            If a value is not declared; names the values and their counts.
        """
        rows, codes_by_value = _code_rows(self, case, has_mask=valid is not None)
        dtype = np.uint8 if len(rows) <= 256 else np.uint16
        drawn = file_labels if valid is None else _with_background(file_labels, valid, background_value(self))
        codes = look_up(drawn, codes_by_value, dtype, case)
        if valid is not None:
            codes[~valid] = rows.index(undrawn_set(self, case))
        label_sets = np.zeros((len(rows), self.n_classes), dtype=bool)
        for code, members in enumerate(rows):
            label_sets[code, list(members)] = True
        return codes, label_sets

    def decode(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.unsignedinteger]:
        """Return the label map (*S) of file values for logits of heads (H, *S).

        Softmax: the class with the largest logit (the lower class on ties). Regions: a class whose regions are exactly
        those with a logit above 0; if there is none, the class of the last of these in ``regions_class_order``
        (``dataset.painting``). Never a value of unannotated voxels. The dtype is uint8 if the largest file value fits,
        otherwise uint16. Source: nnU-Net ``label_handling.py``.
        """
        dtype = np.uint8 if max(self.file_values()) < 256 else np.uint16
        values = np.array(self.class_values, dtype=dtype)
        painting = painting_of(self)
        if painting is None:
            painted = np.full(logits.shape[1:], background_value(self), dtype=dtype)
            best = np.array(logits[0])
            for value, logit in zip(self.class_values[1:], logits[1:], strict=True):  # several times faster than argmax
                np.copyto(painted, value, where=logit > best)
                np.maximum(best, logit, out=best)
            return painted
        return paint(logits, painting, values)


def background_value(labels: Labels) -> int:
    """Return the file value of background."""
    return labels.class_values[0]


def unknown_values(labels: Labels) -> tuple[int, ...]:
    """Return the file values of unannotated voxels: ignore, unlabelled, and label sets of all classes."""
    values = [value for value in (labels.ignore, labels.unlabelled) if value is not None]
    return (*values, *(value for value, members in labels.set_values.items() if len(members) == labels.n_classes))


def weight_levels(labels: Labels) -> tuple[float, ...]:
    """Return the different weights of annotated voxels, 1 first, then ascending."""
    return (1.0, *sorted(set(labels.value_weights.values())))


def painting_of(labels: Labels) -> Painting | None:
    """Return the rule that turns regions into one class per voxel; None for a softmax over classes."""
    if labels.paint_values is None:
        return None
    return Painting(labels.regions, tuple(labels.class_values.index(value) for value in labels.paint_values))


def class_differences(first: Labels, second: Labels) -> tuple[str, ...]:
    """Return the names of the fields in which the classes and outputs of two data sets differ; empty if none does."""
    fields = ("class_values", "class_names", "heads", "paint_values", "task", "targets", "instances")
    return tuple(name for name in fields if getattr(first, name) != getattr(second, name))


def free_value(labels: Labels) -> int:
    """Return the smallest value above those of all classes that no label file may hold."""
    taken = labels.file_values()
    return next(value for value in itertools.count(max(labels.class_values) + 1) if value not in taken)


def statements_leave_open(labels: Labels) -> bool:
    """Whether the statement on any case implies voxels with several possible classes."""
    return any(
        bool(case.absent) or labels.lazy_semantics == "seed" or 0 not in (case.annotated or ())
        for case in labels.statements.values()
    )


def drawn_sets(labels: Labels, case: str = "") -> dict[int, frozenset[int]]:
    """Return file value -> indices of the classes that it allows in ``case``, without regard to absent classes."""
    everything = frozenset(range(labels.n_classes))
    annotated = labels.statements.get(case, CaseStatement()).annotated
    sets = {value: frozenset({index}) for index, value in enumerate(labels.class_values)}
    if annotated is not None and labels.lazy_semantics == "seed":
        sets |= {labels.class_values[index]: everything for index in everything - annotated}
    elif annotated is not None and 0 not in annotated:
        sets[background_value(labels)] = everything - annotated
    return {**sets, **labels.set_values, **dict.fromkeys(unknown_values(labels), everything)}


def undrawn_set(labels: Labels, case: str = "") -> frozenset[int]:
    """Return the indices of the classes that an unannotated voxel of ``case`` may have: all that are not absent."""
    return frozenset(range(labels.n_classes)) - labels.statements.get(case, CaseStatement()).absent


def settled_cases(labels: Labels) -> frozenset[str]:
    """Return the cases of which all classes but one are absent: the statement alone gives all voxels that class."""
    return frozenset(case for case in labels.statements if len(undrawn_set(labels, case)) == 1)


def undrawn_code(labels: Labels, case: str = "", *, has_mask: bool = False) -> int:
    """Return the code that :meth:`Labels.encode` gives to unannotated voxels of ``case``.

    It must be determined here and carried along: later it cannot be distinguished from an annotated set of as many
    classes. The code is K ("unknown"), which then occurs nowhere, in two cases. First, if no value of the data set
    means "unannotated" and there is no mask. Second, if all classes but one are absent, since that statement determines
    a voxel as annotation does. An annotated set of exactly the classes that are not absent shares the code, because it
    adds nothing to the statement.

    Parameters
    ----------
    has_mask
        Whether ``encode`` is given a valid mask.
    """
    undrawn = undrawn_set(labels, case)
    everything = frozenset(range(labels.n_classes))
    occurs = has_mask or everything in drawn_sets(labels, case).values()
    if not occurs or len(undrawn) < 2:
        return labels.unknown
    return _code_rows(labels, case, has_mask=has_mask)[0].index(undrawn)


def annotated_codes(label_sets: BoolArray, undrawn: int) -> BoolArray:
    """Return (N,) bool: codes of annotated voxels, those whose set is informative and not that of unannotated voxels.

    Parameters
    ----------
    label_sets
        (N, K) bool.
    undrawn
        Code of unannotated voxels, see :func:`undrawn_code`; other codes of the same set are not annotated either.
    """
    annotated: BoolArray = informative_codes(label_sets) & (label_sets != label_sets[undrawn]).any(axis=1)
    return annotated


def informative_codes(label_sets: BoolArray) -> BoolArray:
    """Return (N,) bool: codes whose set, a row of ``label_sets`` (N, K), is neither empty nor all classes."""
    count = label_sets.sum(axis=1)
    informative: BoolArray = (count > 0) & (count < label_sets.shape[1])
    return informative


def foreground_codes(label_sets: BoolArray) -> BoolArray:
    """Return (N,) bool: codes of certain foreground: rows of ``label_sets`` (N, K) with a class but not background."""
    return label_sets.any(axis=1) & ~label_sets[:, 0]


def head_states(label_sets: BoolArray, regions: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Return ``(positive, negative)``, both (N, H) bool: certain state of each head for each code.

    A head is positive if the label set is a subset of its classes, and negative if the two are disjoint. An empty set
    (which no valid data set produces) leaves every head undecided.

    Parameters
    ----------
    label_sets
        (N, K) bool.
    regions
        (H, K) bool; the identity for a softmax over classes.
    """
    known = label_sets.sum(axis=1, keepdims=True) > 0
    overlap = label_sets.astype(np.int64) @ regions.T.astype(np.int64)
    positive = known & (overlap == label_sets.sum(axis=1, keepdims=True))
    return positive, known & (overlap == 0)


def _with_background(file_labels: NDArray[Any], valid: BoolArray, background: int) -> NDArray[Any]:
    """Return file values (*S) with the value of background wherever ``valid`` (*S) is False."""
    dtype = np.result_type(file_labels.dtype, np.min_scalar_type(background))
    return np.where(valid, file_labels, np.array(background, dtype=dtype))


def _code_rows(labels: Labels, case: str, *, has_mask: bool) -> tuple[list[frozenset[int]], dict[int, int]]:
    """Return the label set of each code of ``case``, and the code of each file value."""
    rows = [frozenset({index}) for index in range(labels.n_classes)]
    rows.append(frozenset(range(labels.n_classes)))
    sets = labels.sets_by_value(case)
    for members in (*sets.values(), *([undrawn_set(labels, case)] if has_mask else [])):
        if members not in rows:
            rows.append(members)
    return rows, {value: rows.index(members) for value, members in sets.items()}
