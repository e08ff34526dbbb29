"""Truth and prediction of a case as codes: what they mean, where they contradict each other, and how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, Float32Array, LabelMap
from autoseg.dataset.labels import Labels
from autoseg.dataset.objects import objects_of_class
from autoseg.evaluation.instances import unmatched_voxels
from autoseg.report.batch_sheet import meaning_paint
from autoseg.report.object_shades import edges, shade, shades_of
from autoseg.report.overlay import PALETTE, Rgb
from autoseg.report.patterns import Paint, blended, enlarge, outline, paint
from autoseg.sampling.patch_view import Meaning

MISSED, ADDED, CONFUSED = "missed", "falsely predicted", "confused with another class"
"""Kinds of errors: foreground predicted as background, background predicted as foreground, and one foreground class
predicted as another."""
UNMATCHED = "object without a match"
"""Kind of error of objects: merged, divided, missed or false ones, whose overlap with any other is below 0.5."""
ERROR_COLOURS: dict[str, Rgb] = {
    MISSED: (0.34, 0.71, 0.91), ADDED: (0.84, 0.37, 0.0), CONFUSED: (0.94, 0.89, 0.26), UNMATCHED: (0.80, 0.47, 0.65),
}  # fmt: skip
"""Colours of the kinds of errors. Source: Okabe and Ito, for any colour vision."""

SWATCH = (12, 22)
"""Size of a sample in a legend, pixels (y, x)."""
IntegerArray = NDArray[np.integer[Any]]
Drawn = tuple[IntegerArray, LabelMap | None]
"""File values of classes, and numbers of objects if files hold them, both (z, y, x): see
:func:`autoseg.cases.label_codes.classes_and_objects`."""


@dataclass(frozen=True, slots=True)
class View:
    """Size of the picture of a slice (y, x): every ``step``-th voxel, each as ``scale`` (rows, columns) pixels."""

    scale: tuple[int, int]
    step: int

    def of(self, plane: NDArray[Any]) -> NDArray[Any]:
        """Return a plane (..., y, x) as pixels (..., rows, columns)."""
        return enlarge(plane[..., :: self.step, :: self.step], self.scale)

    def of_first(self, plane: NDArray[Any], is_first: BoolArray) -> NDArray[Any]:
        """Return a plane (y, x) of codes as pixels; of each ``step`` x ``step`` voxels one whose code is first, if any.

        So that thin strokes stay in pictures that leave out voxels. ``is_first``: (N,) bool.
        """
        short = [-edge % self.step for edge in plane.shape]
        padded = np.pad(plane, [(0, n) for n in short], mode="edge")
        rows, columns = (edge // self.step for edge in padded.shape)
        blocks = padded.reshape(rows, self.step, columns, self.step).swapaxes(1, 2).reshape(rows, columns, -1)
        chosen = is_first[blocks].argmax(axis=-1)
        return enlarge(np.take_along_axis(blocks, chosen[..., None], axis=-1)[..., 0], self.scale)


@dataclass(frozen=True, slots=True)
class ClassMaps:
    """Truth and prediction of a case as codes."""

    labels: Labels
    meanings: tuple[Meaning, ...]
    """Meaning of each code; code k is class k for all classes. Empty if the prediction holds values that are no
    classes: codes are then these values, for example numbers of objects."""
    truth: IntegerArray | None
    """(z, y, x)."""
    predicted: IntegerArray
    """(z, y, x)."""
    truth_objects: LabelMap | None = None
    """(z, y, x) number of the object of each voxel, 0 where there is none; None unless files hold objects."""
    predicted_objects: LabelMap | None = None
    """(z, y, x), in the same way."""

    @classmethod
    def of(
        cls,
        predicted: Drawn,
        truth: Drawn | None,
        labels: Labels,
        *,
        case: str,
        valid: BoolArray | None = None,
    ) -> ClassMaps:
        """Return the maps of file values of classes (z, y, x) and, where files hold them, numbers of objects.

        Where ``valid`` is False nothing is known of the truth.

        Raises ``DatasetError`` if the truth holds values that ``labels`` do not declare, and the prediction does not.
        """
        found, found_objects = predicted
        values = np.array(labels.class_values)
        order = np.argsort(values)
        index = order[np.minimum(np.searchsorted(values, found, sorter=order), len(values) - 1)]
        if (values[index] != found).any():
            return cls(labels, (), None if truth is None else truth[0], found)
        if truth is None:
            meanings = _meanings(np.eye(labels.n_classes, dtype=bool))
            return cls(labels, meanings, None, index, predicted_objects=found_objects)
        drawn, objects = truth
        codes, label_sets = labels.encode(drawn, case, valid)
        if objects is not None and valid is not None:
            objects = np.where(valid, objects, objects.dtype.type(0))
        return cls(labels, _meanings(label_sets), codes, index, objects, found_objects)

    def errors(self) -> dict[str, BoolArray]:
        """Return kind of an error -> (z, y, x) bool; empty without a truth, or for values that are no classes.

        Objects that match none come first: errors of voxels are drawn over them.
        """
        if self.truth is None or not self.meanings:
            return {}
        allowed = self._allowed()
        is_wrong = ~allowed[self.truth, self.predicted]
        is_background = np.array([meaning.classes == {0} for meaning in self.meanings])[self.truth]
        missed = is_wrong & (self.predicted == 0)
        added = is_wrong & ~missed & is_background
        unmatched = self._unmatched(allowed)
        of_objects = {} if unmatched is None else {UNMATCHED: unmatched}
        return {**of_objects, MISSED: missed, ADDED: added, CONFUSED: is_wrong & ~missed & ~added}

    def _allowed(self) -> BoolArray:
        """Return (N, K) bool: the classes that each code leaves possible."""
        return np.array([[k in meaning.classes for k in range(self.labels.n_classes)] for meaning in self.meanings])

    def _unmatched(self, allowed: BoolArray) -> BoolArray | None:
        """Return (z, y, x) bool: voxels of objects that match none of their class; None unless there are objects."""
        if self.truth is None or self.truth_objects is None or self.predicted_objects is None:
            return None
        is_single = allowed.sum(axis=1) == 1
        result = np.zeros(self.predicted.shape, dtype=bool)
        for index in range(1, self.labels.n_classes):
            decided = (is_single | ~allowed[:, index])[self.truth]
            drawn = np.where((is_single & allowed[:, index])[self.truth], self.truth_objects, 0)
            predicted = objects_of_class(self.predicted_objects, self.predicted, index)
            result |= unmatched_voxels(predicted, drawn, decided)
        return result

    def foreground(self) -> BoolArray:
        """Return (z, y, x) bool: voxels that are foreground in the truth or in the prediction."""
        inside: BoolArray = self.predicted > 0
        if self.truth is not None:
            is_inside = [meaning.kind == "annotated" and 0 not in meaning.classes for meaning in self.meanings]
            inside = inside | (np.array(is_inside)[self.truth] if self.meanings else self.truth > 0)
        return inside

    def shown_meanings(self, slices: Sequence[int]) -> frozenset[Meaning]:
        """Return the meanings that occur in slices."""
        if not self.meanings:
            return frozenset()
        maps = [codes[list(slices)] for codes in (self.truth, self.predicted) if codes is not None]
        return frozenset(self.meanings[int(code)] for codes in maps for code in np.unique(codes))

    def panels(self, z: int, base: Float32Array, view: View) -> list[tuple[str, Float32Array]]:
        """Return truth, prediction and errors of a slice over its image ``base`` (rows, columns, 3), with captions."""
        own = None if self.predicted_objects is None else self.predicted_objects[z]
        painted = self._painted(view.of(self.predicted[z]), base, is_tinted=False)
        panels = [("prediction", self._parted(painted, view.of(self.predicted[z]), own, view))]
        if self.truth is not None:
            is_known = np.array([meaning.kind == "annotated" for meaning in self.meanings])
            codes = view.of_first(self.truth[z], is_known) if self.meanings else view.of(self.truth[z])
            own = None if self.truth_objects is None else self.truth_objects[z]
            painted = self._painted(codes, base, is_tinted=True)
            panels.insert(0, ("truth", self._parted(painted, codes, own, view)))
        errors = {kind: where[z] for kind, where in self.errors().items()}
        if errors:
            over = base.copy()
            for kind, where in errors.items():
                over[view.of_first(where.astype(np.intp), np.array([False, True])) == 1] = ERROR_COLOURS[kind]
            panels.append(("errors", over))
        return panels

    def _painted(self, codes: IntegerArray, base: Float32Array, *, is_tinted: bool) -> Float32Array:
        """Return pixels of codes (rows, columns) over ``base``: strokes opaque, areas transparent with an outline.

        ``is_tinted``: whether background has a colour, as it is to have in sparse annotation.
        """
        if not self.meanings:
            colours = [Paint("plain", ((0, 0, 0),), 0.0), *(Paint("plain", (colour,), 0.6) for colour in PALETTE)]
            turns = np.where(codes > 0, (codes.astype(np.int64) - 1) % len(PALETTE) + 1, 0)
            return blended(base, paint(turns, colours, over_image=True))
        annotated = np.array([meaning.kind == "annotated" for meaning in self.meanings])[codes]
        is_filled = bool(2 * np.count_nonzero(outline(annotated)) <= np.count_nonzero(annotated))
        paints = [meaning_paint(meaning, self.labels, is_filled=is_filled) for meaning in self.meanings]
        if not is_tinted:
            paints = [
                replace(item, cover=0.0) if m.classes == {0} else item
                for item, m in zip(paints, self.meanings, strict=True)
            ]
        over = blended(base, paint(codes, paints, over_image=True))
        for code in np.unique(codes) if is_filled else ():
            meaning = self.meanings[int(code)]
            if meaning.kind == "annotated" and len(meaning.classes) == 1 and meaning.classes != {0}:
                over[outline(codes == code)] = meaning_paint(meaning, self.labels).colours[0]
        return over

    def _parted(self, painted: Float32Array, codes: IntegerArray, objects: LabelMap | None, view: View) -> Float32Array:
        """Return painted pixels in which objects (y, x) that touch have other shades, and lines between them."""
        if objects is None:
            return painted
        shade(painted, view.of(shades_of(objects)))
        is_edge = edges(view.of(objects))
        for code in np.unique(codes[is_edge]):
            paints = meaning_paint(self.meanings[int(code)], self.labels)
            if paints.pattern == "plain":
                painted[is_edge & (codes == code)] = paints.colours[0]
        return painted


def meaning_pixels(meaning: Meaning, labels: Labels) -> NDArray[np.uint8]:
    """Return a small picture (y, x, 3) of the look of a meaning, for a legend."""
    return as_bytes(paint(np.zeros(SWATCH, dtype=np.intp), [meaning_paint(meaning, labels)])[..., :3])


def plain_pixels(colour: Rgb) -> NDArray[np.uint8]:
    """Return a small picture (y, x, 3) of one colour, for a legend."""
    return as_bytes(np.full((*SWATCH, 3), colour, dtype=np.float32))


def as_bytes(pixels: Float32Array) -> NDArray[np.uint8]:
    """Return pixels (y, x, 3) from 0 to 1 as (y, x, 3) uint8."""
    return np.rint(255 * pixels).astype(np.uint8)


def _meanings(label_sets: BoolArray) -> tuple[Meaning, ...]:
    """Return the meaning of each code of a label map with ``label_sets`` (N, K)."""
    sets = (frozenset(int(index) for index in np.flatnonzero(row)) for row in label_sets)
    n_classes = label_sets.shape[1]
    return tuple(Meaning("annotated" if len(classes) < n_classes else "unannotated", classes) for classes in sets)
