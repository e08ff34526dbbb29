"""Ranking of the slices or patches of a data set that are worth annotating next, by a trained model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from autoseg.assist.suggest_case import (
    Candidates,
    Choice,
    LeftOver,
    Selection,
    candidates_of,
    choose,
    left_over,
    pooled,
)
from autoseg.cases.case import Case, Target
from autoseg.core.arrays import Shape3
from autoseg.core.atomic import atomic_path
from autoseg.core.errors import AutosegError, ConfigError, ModelError
from autoseg.core.findings import listed
from autoseg.core.geometry import Geometry, slice_axis
from autoseg.core.plan import Configuration, Plan
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels, class_differences
from autoseg.inference.box_sums import BoxGrid, patch_grid, slice_grid
from autoseg.inference.box_uncertainty import UncertaintyMaps, measure
from autoseg.inference.model import find_checkpoints
from autoseg.inference.out_of_fold import CaseModels, fold_cases
from autoseg.inference.predictor import Predictor
from autoseg.inference.run_cases import run_cases
from autoseg.preprocessing.read_case import read_case, read_unlabelled
from autoseg.preprocessing.volume_size import refuse_large

log = logging.getLogger(__name__)

AXES = "zyx"
"""Names of the axes 0, 1, 2 of an array, as viewers name the axes of the file."""
SLICE_SPREAD = 0.1
"""Share of the slices of a case that lie at least between two suggested ones: neighbours teach nearly the same."""


@dataclass(frozen=True, slots=True)
class Units:
    """Unit of annotation: slices along an axis, or patches of a size."""

    by: Literal["slice", "patch"] = "slice"
    axis: int | None = None
    """Axis of the file perpendicular to slices, 0, 1, 2 for z, y, x; None: :func:`autoseg.core.geometry.slice_axis`."""
    patch_size: Shape3 | None = None
    """Size of patches in voxels of the file (z, y, x); None takes half of the edges of the network's patch."""

    def grid(self, shape: Shape3, geometry: Geometry, plan: Plan, configuration: Configuration) -> BoxGrid:
        """Return the candidates of an image of ``shape`` (z, y, x); a slice of a 2-D image is the whole image."""
        if self.by == "slice":
            axis = 0 if geometry.ndim == 2 else self.axis
            return slice_grid(shape, slice_axis(shape, geometry.spacing) if axis is None else axis)
        return patch_grid(shape, self.patch_size or default_patch(geometry, plan, configuration))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A slice or patch to annotate."""

    rank: int
    """Rank from 1, the best."""
    case: str
    low: Shape3
    """First voxel (z, y, x), from 0."""
    high: Shape3
    """One past the last voxel (z, y, x)."""
    axis: int | None
    """Axis perpendicular to a slice; None for a patch."""
    score: float
    """Mean entropy of its unannotated voxels, 0 to 1."""
    main_class: str | None
    """Foreground class with the highest entropy in it; None if all are certain."""
    drawn_for: str | None
    """Foreground class that it was chosen for; None if it was chosen without regard to classes."""
    open_share: float
    """Share of its voxels that is unannotated."""
    seen_in_training: bool = False
    """Whether a fold that predicted the case was trained on it, also in a pretraining: its entropy may be too low."""

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; boxes by axis name, ``[first, last]`` from 0."""
        return {
            "rank": self.rank,
            "case": self.case,
            "axis": None if self.axis is None else AXES[self.axis],
            "slice": None if self.axis is None else self.low[self.axis],
            "box": {AXES[axis]: [self.low[axis], self.high[axis] - 1] for axis in (2, 1, 0)},
            "score": round(self.score, 6),
            "main_class": self.main_class,
            "drawn_for": self.drawn_for,
            "unannotated_share": round(self.open_share, 6),
            "seen_in_training": self.seen_in_training,
        }


@dataclass(frozen=True, slots=True)
class Ranking:
    """Suggestions, and the candidates and failures behind them."""

    suggestions: tuple[Suggestion, ...]
    """Suggestions, best first."""
    n_candidates: int
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> reason why it could not be predicted."""
    left_over: LeftOver | None = None
    """Counts of boxes that were not chosen, if there are fewer suggestions than requested; otherwise None."""


def members_of(
    model_folder: Path, cases: Sequence[str], folds: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return case -> the folds whose mean predicts it: all finished folds whose weights were not trained on it.

    If all finished folds were trained on a case, here or in a pretraining, all of them predict it, with a warning: a
    model is too certain about its training cases.

    Raises
    ------
    ModelError
        If there is no finished fold among ``folds`` (None: any), or a fold has no list of its training cases.
    """
    finished = tuple(find_checkpoints(model_folder, folds))
    known = fold_cases(model_folder)
    unseen = {
        case: tuple(fold for fold in finished if fold in known and case not in known[fold].seen_cases) for case in cases
    }
    trained_on = [case for case in cases if not unseen[case]]
    if trained_on:
        log.warning(
            "%d cases are predicted by folds that were trained on them, so their uncertainty may be too low: %s. Train "
            "the folds that leave them out.", len(trained_on), listed(trained_on),
        )  # fmt: skip
    return {case: unseen[case] or finished for case in cases}


def default_patch(geometry: Geometry, plan: Plan, configuration: Configuration) -> Shape3:
    """Return half of the edges of the network's patch, in voxels of a file with ``geometry``, (z, y, x), at least 1."""
    half = [max(1, edge // 2) for edge in configuration.patch_size]
    edges_mm = [edge * spacing for edge, spacing in zip(half, configuration.spacing, strict=True)]
    order = plan.voxel_order(geometry).axes
    patch = [1, 1, 1]
    for axis, edge_mm in zip(order[3 - len(half) :], edges_mm, strict=True):
        patch[axis] = max(1, round(edge_mm / geometry.spacing[axis]))
    return (patch[0], patch[1], patch[2])


def rank(
    cases: Mapping[str, CaseFiles],
    models: CaseModels,
    labels: Labels,
    units: Units,
    selection: Selection,
    *,
    left: Callable[[Case], Target | None] = lambda case: case.target,
    maps: Path | None = None,
    read_ahead: bool = True,
    progress: Progress = silent,
) -> Ranking:
    """Predict cases one after the other and choose the slices or patches to annotate next.

    Parameters
    ----------
    cases
        Files of the cases by name; a case without label file is unannotated.
    models
        Folds that predict each case.
    labels
        Labels of the data set.
    units, selection
        The boxes to choose from, and the settings of the choice.
    left
        Case -> the classes that each voxel may have, on the grid of its file; None if it is unannotated. The default is
        the annotation; promises leave fewer classes, and voxels with one class need no annotation.
    maps
        Folder for the maps of each case that a picture needs (:func:`load_maps`); None writes none.
    read_ahead
        Read the next case while the network works.
    progress
        Called with (cases done, cases in all, name of the last).

    Raises
    ------
    AutosegError
        If no case could be predicted.
    ConfigError
        If at least half of every slice or patch is annotated.
    ModelError
        If the model has other classes than the data set.
    """
    parts: list[Candidates] = []

    def checked(predictor: Predictor) -> Predictor:
        _check_classes(predictor, labels, models.folder)
        return predictor

    def keep(case: str, measured: tuple[Candidates, UncertaintyMaps]) -> None:
        part, of_case = measured
        if maps is not None:
            save_maps(maps, case, of_case)
        parts.append(part)

    failed = run_cases(
        models.order,
        map(checked, models.predictors()),
        lambda case: _read(cases[case], labels),
        lambda _, predictor, case: _measured(case, predictor, labels, units, left),
        keep,
        folder=maps or models.folder,
        read_ahead=read_ahead,
        progress=progress,
    )
    if not parts:
        raise AutosegError("\n".join([f"none of {len(cases)} cases could be predicted.", *failed.values()]))
    candidates = pooled(parts)
    if not len(candidates):
        raise ConfigError(
            f"suggestions: found every {units.by} of {len(parts)} cases at least half annotated, expected some that "
            "are not. Name new images with -i, or choose another --by, --axis or --patch-size."
        )
    choices = choose(candidates, selection)
    suggestions = (
        _suggestion(candidates, choice, number, models.seen_cases) for number, choice in enumerate(choices, 1)
    )
    missing = left_over(candidates, choices) if len(choices) < selection.number else None
    return Ranking(tuple(suggestions), len(candidates), failed, missing)


def save_maps(folder: Path, case: str, maps: UncertaintyMaps) -> None:
    """Write the maps (z, y, x) of a case to ``<case>.npz``, until the pictures are drawn."""
    with atomic_path(folder / f"{case}.npz") as temporary:
        np.savez_compressed(temporary, entropy=maps.entropy, labels=maps.labels, is_open=maps.is_open)


def load_maps(folder: Path, case: str) -> UncertaintyMaps:
    """Return the maps (z, y, x) of a case that :func:`save_maps` wrote."""
    with np.load(folder / f"{case}.npz", allow_pickle=False) as stored:
        return UncertaintyMaps(stored["entropy"], stored["labels"], stored["is_open"])


def _read(files: CaseFiles, labels: Labels) -> Case:
    if files.label is not None:
        return read_case(files, labels)
    refuse_large(files)
    return read_unlabelled(files.name, files.images, ())


def _measured(
    case: Case, predictor: Predictor, labels: Labels, units: Units, left: Callable[[Case], Target | None]
) -> tuple[Candidates, UncertaintyMaps]:
    prepared = predictor.prepare(case)
    z, y, x = case.image.shape[1:]
    grid = units.grid((z, y, x), case.geometry, predictor.model.plan, predictor.model.configuration)
    logits = predictor.logits(prepared.image)
    measured, maps = measure(logits, prepared.record, labels, left(case), grid)
    classes = [labels.heads[index].name for index in labels.foreground_heads]
    return candidates_of(case.name, measured, classes, spread=SLICE_SPREAD), maps


def _check_classes(predictor: Predictor, labels: Labels, folder: Path) -> None:
    own = predictor.model.dataset.labels
    if set(class_differences(own, labels)) - {"paint_values"}:  # nothing is painted here
        raise ModelError(
            f"{folder}: found a model of the classes {listed(own.class_names)}, expected those of the data set: "
            f"{listed(labels.class_names)}. Train with the present dataset.json, or choose another model."
        )


def _suggestion(candidates: Candidates, choice: Choice, number: int, seen_cases: Collection[str]) -> Suggestion:
    index = choice.index
    case = candidates.cases[candidates.case[index]]
    low, high = candidates.low[index].tolist(), candidates.high[index].tolist()
    return Suggestion(
        rank=number,
        case=case,
        low=(low[0], low[1], low[2]),
        high=(high[0], high[1], high[2]),
        axis=None if candidates.axis[index] < 0 else int(candidates.axis[index]),
        score=float(candidates.score[index]),
        main_class=candidates.main_class(index),
        drawn_for=choice.drawn_for,
        open_share=float(candidates.open_share[index]),
        seen_in_training=case in seen_cases,
    )
