"""What the integers of a label file mean: the one place that turns file values into label sets and back."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, CodeArray
from autoseg.core.chunks import chunks
from autoseg.core.errors import DatasetError, Fault
from autoseg.dataset.file_values import DECLARE_VALUES, value_name
from autoseg.dataset.painting import Painting, paint

LazySemantics: TypeAlias = Literal["marginal", "seed"]
"""What a voxel means that is drawn as a class which ``annotated`` of its case leaves out; see ``Labels``."""


@dataclass(frozen=True, slots=True)
class Head:
    """A row of the result table: a class or a region. What the network's outputs are is up to ``autoseg.tasks``."""

    name: str
    classes: tuple[int, ...]
    """Class indices (not file values) that it stands for."""
    values: tuple[int, ...]
    """The same as file values, ascending."""
    is_background: bool = False

    @property
    def key(self) -> str:
        """The key in a summary.json, nnU-Net's form: ``"1"`` or ``"(1, 2)"``."""
        return str(self.values[0]) if len(self.values) == 1 else str(self.values)


@dataclass(frozen=True, slots=True)
class CaseStatement:
    """What ``dataset.json: cases.<case>`` says of the classes of one case, as class indices."""

    annotated: frozenset[int] | None = None
    """Classes completely drawn; None means all."""
    absent: frozenset[int] = frozenset()
    """Classes certainly not there."""


@dataclass(frozen=True)
class Labels:
    """The classes of a data set, how files encode them, and what the network predicts.

    Made by :meth:`autoseg.dataset.dataset.Dataset.load`, which validates; this class trusts its fields.
    """

    class_values: tuple[int, ...]
    """File value of each class; class 0 is background (0 unless ``unlabelled`` is declared), the others ascend."""
    class_names: tuple[str, ...]
    heads: tuple[Head, ...]
    """One per class, background first; or one per region, in order of declaration, no background."""
    paint_values: tuple[int, ...] | None = None
    """Regions only (else None): file value painted for each head, in painting order (``regions_class_order``)."""
    ignore: int | None = None
    """``labels.ignore``: file value of voxels of which nothing is known, above those of all classes."""
    unlabelled: int | None = None
    """``unlabelled``: another such value, which may be any; ``file_values.NAN_VALUE`` stands for NaN."""
    set_values: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Further file values and the class indices that they may be (``dataset.json: label_sets``)."""
    statements: Mapping[str, CaseStatement] = field(default_factory=dict)
    """Per case, where something was said."""
    lazy_semantics: LazySemantics = "marginal"
    """Where ``annotated`` leaves classes out: "marginal" takes 0 as "none of the annotated classes" and a drawn class
    for what it is; "seed" takes either as "not an absent class" and nothing more."""
    has_masks: bool = False
    """Whether a mask per case says which voxels are annotated (``dataset.json: valid_mask_folder``)."""
    task: str | None = None
    """Name of a user's task (``dataset.json: task``); None: that of the heads, see ``autoseg.tasks.task.task_of``."""

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
        """Whether every voxel of every case is said to carry exactly one class."""
        return not (unknown_values(self) or self.set_values or statements_leave_open(self) or self.has_masks)

    @property
    def unknown(self) -> int:
        """The code of a voxel of which nothing is known."""
        return self.n_classes

    @property
    def outside(self) -> int:
        """The code of padding and of whatever enters from outside an image: background if the data set is dense."""
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
        """For each file value the classes that a voxel of ``case`` with that value may be.

        Source: lazy labels as in ELEKTRONN (``convlayer3d.NLL``), stated as sets. We differ from it, unless
        ``lazy_semantics`` is "seed", in that 0 says "none of the annotated classes" where ELEKTRONN drops the voxel.
        """
        absent = self.statements.get(case, CaseStatement()).absent
        sets = drawn_sets(self, case)
        return {value: members if len(members) == 1 else members - absent for value, members in sets.items()}

    def encode(
        self, file_labels: NDArray[Any], case: str = "", valid: BoolArray | None = None
    ) -> tuple[CodeArray, BoolArray]:
        """Turn the integers of a label file into codes and their label sets.

        Parameters
        ----------
        file_labels
            (*S) integers (a floating type with integral values is accepted), values as in ``dataset.json``.
        case
            Name of the case, for what ``dataset.json: cases`` says of it.
        valid
            (*S): where False, nothing is drawn, whatever the file holds there, be it declared or not; the voxel may
            be any class that is not absent. None: everywhere drawn.

        Returns
        -------
        codes, label_sets
            (*S) uint8 (uint16 when more than 256 codes) and (N, K) bool. Codes 0..K-1 are the single classes, K is
            "unknown"; further codes are the other sets of the case. An empty array gives an empty map. Which code
            means "nobody annotated this voxel" follows from the same table: see :func:`undrawn_code`.

        Raises
        ------
        DatasetError
            If a value is not declared; names the values and their counts.
        """
        rows, codes_by_value = _code_rows(self, case, has_mask=valid is not None)
        dtype = np.uint8 if len(rows) <= 256 else np.uint16
        drawn = file_labels if valid is None else _with_background(file_labels, valid, background_value(self))
        codes = _look_up(drawn, codes_by_value, dtype, case)
        if valid is not None:
            codes[~valid] = rows.index(undrawn_set(self, case))
        label_sets = np.zeros((len(rows), self.n_classes), dtype=bool)
        for code, members in enumerate(rows):
            label_sets[code, list(members)] = True
        return codes, label_sets

    def decode(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.unsignedinteger]:
        """Turn the network's outputs (H, *S) into a label map (*S) of file values.

        Softmax: the class with the largest logit (the lower class on ties). Regions: a value whose regions are exactly
        those with a logit above 0; if there is none, the last of these in ``regions_class_order`` (``core.painting``).
        Never a value of which nothing is known. The type is uint8 if the largest value fits, else uint16.
        Source: nnU-Net ``label_handling.py``.
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
    """Return the file values of which nothing is known: ignore, unlabelled, and label sets of all classes."""
    values = [value for value in (labels.ignore, labels.unlabelled) if value is not None]
    return (*values, *(value for value, members in labels.set_values.items() if len(members) == labels.n_classes))


def painting_of(labels: Labels) -> Painting | None:
    """Return how regions become one class per voxel; None for a softmax over classes."""
    if labels.paint_values is None:
        return None
    return Painting(labels.regions, tuple(labels.class_values.index(value) for value in labels.paint_values))


def class_differences(first: Labels, second: Labels) -> tuple[str, ...]:
    """Return the names of the fields in which the classes and outputs of two data sets differ; empty if none does."""
    fields = ("class_values", "class_names", "heads", "paint_values", "task")
    return tuple(name for name in fields if getattr(first, name) != getattr(second, name))


def free_value(labels: Labels) -> int:
    """Return the smallest value above those of all classes that no label file may hold."""
    taken = labels.file_values()
    return next(value for value in itertools.count(max(labels.class_values) + 1) if value not in taken)


def statements_leave_open(labels: Labels) -> bool:
    """Whether the statement about some case leaves open what a voxel is, or speaks of unannotated voxels."""
    return any(
        bool(case.absent) or labels.lazy_semantics == "seed" or 0 not in (case.annotated or ())
        for case in labels.statements.values()
    )


def drawn_sets(labels: Labels, case: str = "") -> dict[int, frozenset[int]]:
    """For each file value the classes that it leaves in ``case``, whatever is said to be absent there."""
    everything = frozenset(range(labels.n_classes))
    annotated = labels.statements.get(case, CaseStatement()).annotated
    sets = {value: frozenset({index}) for index, value in enumerate(labels.class_values)}
    if annotated is not None and labels.lazy_semantics == "seed":
        sets |= {labels.class_values[index]: everything for index in everything - annotated}
    elif annotated is not None and 0 not in annotated:
        sets[background_value(labels)] = everything - annotated
    return {**sets, **labels.set_values, **dict.fromkeys(unknown_values(labels), everything)}


def undrawn_set(labels: Labels, case: str = "") -> frozenset[int]:
    """Return the classes that a voxel of ``case`` may be where nothing is drawn: all that are not absent."""
    return frozenset(range(labels.n_classes)) - labels.statements.get(case, CaseStatement()).absent


def undrawn_code(labels: Labels, case: str = "", *, has_mask: bool = False) -> int:
    """Return the code that :meth:`Labels.encode` gives to voxels of ``case`` that nobody annotated.

    It is known here, where file values become codes, and carried from here: a set that somebody drew may be as wide.
    Where no value of the data set means "not annotated" and there is no mask, no voxel is unannotated, and the code is
    K ("unknown"), which then occurs nowhere. So it is where a single class is not absent: that statement says as much
    of a voxel as drawing does. A drawn set of exactly the classes that are not absent shares the code: it says nothing
    more than the statement does.

    Parameters
    ----------
    has_mask
        Whether ``encode`` gets a valid mask.
    """
    undrawn = undrawn_set(labels, case)
    everything = frozenset(range(labels.n_classes))
    occurs = has_mask or everything in drawn_sets(labels, case).values()
    if not occurs or len(undrawn) < 2:
        return labels.unknown
    return _code_rows(labels, case, has_mask=has_mask)[0].index(undrawn)


def undrawn_row(labels: Labels, case: str = "") -> BoolArray:
    """(K,) bool: :func:`undrawn_set` as a row of a table of label sets."""
    row: BoolArray = np.zeros(labels.n_classes, dtype=bool)
    row[list(undrawn_set(labels, case))] = True
    return row


def open_row(labels: Labels, case: str = "") -> BoolArray:
    """(K,) bool: classes that an unannotated voxel of ``case`` may have; to measure how much annotation adds to that.

    As :func:`undrawn_row`, but all classes where only one is left: then the statement says as much as drawing does.
    """
    row = undrawn_row(labels, case)
    return row if row.sum() > 1 else np.ones_like(row)


def drawn_codes(label_sets: BoolArray, undrawn: BoolArray) -> BoolArray:
    """(N,) bool: codes of voxels that somebody drew: they say something, and more than ``undrawn`` (K,) does."""
    drawn: BoolArray = informative_codes(label_sets) & (label_sets != undrawn).any(axis=1)
    return drawn


def informative_codes(label_sets: BoolArray) -> BoolArray:
    """(N,) bool: codes that say something, i.e. whose set is neither empty nor all classes."""
    count = label_sets.sum(axis=1)
    informative: BoolArray = (count > 0) & (count < label_sets.shape[1])
    return informative


def foreground_codes(label_sets: BoolArray) -> BoolArray:
    """(N,) bool: codes that are certainly foreground (non-empty sets without background)."""
    return label_sets.any(axis=1) & ~label_sets[:, 0]


def head_states(label_sets: BoolArray, regions: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Decide every head for every code: ``(positive, negative)``, both (N, H) bool; undecided where both are False.

    A head is positive where the label set lies inside its classes, negative where the two are disjoint. An empty set
    (which no valid data set produces) decides nothing.

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
    """Return file values (*S) with that of background wherever ``valid`` (*S) is False."""
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


def _look_up(
    file_labels: NDArray[Any], codes_by_value: Mapping[int, int], dtype: type[np.unsignedinteger[Any]], case: str
) -> CodeArray:
    """Replace file values by codes, a piece at a time: an index array for a whole volume takes 8 bytes a voxel."""
    low, outside = min(0, *codes_by_value), max(codes_by_value) + 1
    table = np.zeros(outside - low + 1, dtype=dtype)
    declared = np.zeros(outside - low + 1, dtype=bool)  # the last entry stands for every value that is out of range
    places = np.array(list(codes_by_value)) - low
    table[places] = list(codes_by_value.values())
    declared[places] = True
    flat = file_labels.reshape(-1)
    codes = np.empty(flat.shape, dtype=dtype)
    undeclared: Counter[int | float] = Counter()
    for chunk in chunks(flat.size):
        piece = flat[chunk]
        indices = _table_indices(piece, low, outside)
        codes[chunk] = table[indices]
        known = declared[indices]
        if not known.all():
            values, counts = np.unique(piece[~known], return_counts=True)
            undeclared.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if undeclared:
        listed = ", ".join(f"{value_name(value)} ({undeclared[value]} voxels)" for value in sorted(undeclared))
        fault = Fault(
            where=f"label file of case {case!r}",
            found=f"undeclared values {listed}",
            expected=f"only [{', '.join(map(value_name, sorted(codes_by_value)))}]",
            fix=DECLARE_VALUES,
        )
        raise DatasetError([fault])
    return codes.reshape(file_labels.shape)


def _table_indices(values: NDArray[Any], low: int, outside: int) -> NDArray[np.intp]:
    """Return integral values from ``low`` to ``outside - 1`` as indices from 0, every other value as the next one."""
    usable = (values >= low) & (values < outside)
    if values.dtype.kind == "f":
        usable &= values == np.floor(values)
    return np.where(usable, np.where(usable, values, 0).astype(np.intp), outside) - low
