"""From images and a trained model to a ranked list of what to annotate next."""

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
from autoseg.inference.model import find_checkpoints
from autoseg.inference.out_of_fold import CaseModels, fold_cases
from autoseg.inference.predictor import Predictor
from autoseg.inference.run_cases import run_cases
from autoseg.inference.uncertainty import UncertaintyMaps, measure
from autoseg.io.images import read_image
from autoseg.preprocessing.runner import read_case

log = logging.getLogger(__name__)

AXES = "zyx"
"""Names of the axes 0, 1, 2 of an array, as viewers name those of the file."""
SLICE_SPREAD = 0.1
"""Two chosen slices of a case are further apart than this share of its slices: neighbours teach nearly the same."""


@dataclass(frozen=True, slots=True)
class Units:
    """What is annotated at a time."""

    by: Literal["slice", "patch"] = "slice"
    axis: int | None = None
    """Slices: file axis (0, 1, 2 for z, y, x) that counts them; None: see :func:`autoseg.core.geometry.slice_axis`."""
    patch_size: Shape3 | None = None
    """Patches: voxels of the file (z, y, x); None takes half of the edges that the network sees."""

    def grid(self, shape: Shape3, geometry: Geometry, plan: Plan, configuration: Configuration) -> BoxGrid:
        """Return the candidates of an image of ``shape`` (z, y, x); a slice of a 2-D image is the whole image."""
        if self.by == "slice":
            axis = 0 if geometry.ndim == 2 else self.axis
            return slice_grid(shape, slice_axis(shape, geometry.spacing) if axis is None else axis)
        return patch_grid(shape, self.patch_size or default_patch(geometry, plan, configuration))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One slice or patch to annotate."""

    rank: int
    """From 1."""
    case: str
    low: Shape3
    """First voxel (z, y, x), from 0."""
    high: Shape3
    """One past the last voxel."""
    axis: int | None
    """Of a slice; None for a patch."""
    score: float
    """Mean entropy where nothing is annotated, 0 to 1."""
    main_class: str | None
    """The foreground class that the model is most unsure about there."""
    drawn_for: str | None
    """The class in whose turn it was drawn; None without regard to classes."""
    open_share: float
    """Share of its voxels that is not annotated."""
    seen: bool = False
    """Whether a fold that predicted the case was trained on it, here or in a pretraining: it may look too certain."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values; boxes by axis name, ``[first, last]`` from 0."""
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
            "seen_in_training": self.seen,
        }


@dataclass(frozen=True, slots=True)
class Ranking:
    """What was suggested, and from what."""

    suggestions: tuple[Suggestion, ...]
    n_candidates: int
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case -> why it could not be predicted."""
    left_over: LeftOver | None = None
    """Why there are fewer suggestions than asked for; None if there are as many."""


def members_of(
    model_folder: Path, cases: Sequence[str], folds: Sequence[str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Return case -> the folds whose mean predicts it: all finished ones whose weights were not trained on it.

    Where every one has seen a case, in its training or in the pretraining that it started from, it is predicted by all
    of them, with a warning: a model is too sure of what it has learnt by heart.

    Raises
    ------
    ModelError
        If there is no finished fold among ``folds`` (None: any), or it does not say what it was trained on.
    """
    finished = tuple(find_checkpoints(model_folder, folds))
    known = fold_cases(model_folder)
    unseen = {
        case: tuple(fold for fold in finished if fold in known and case not in known[fold].seen) for case in cases
    }
    seen = [case for case in cases if not unseen[case]]
    if seen:
        log.warning(
            "%d cases are predicted by folds that were trained on them, and may look too certain: %s. Train the folds "
            "that leave them out.", len(seen), listed(seen),
        )  # fmt: skip
    return {case: unseen[case] or finished for case in cases}


def default_patch(geometry: Geometry, plan: Plan, configuration: Configuration) -> Shape3:
    """Return half of the edges that the network sees, in voxels of a file with ``geometry``, (z, y, x)."""
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
    """Predict cases one after the other and choose what to annotate next.

    Parameters
    ----------
    cases
        By name; those without label file have no annotation yet.
    models
        What predicts them.
    labels
        Of the data set.
    units, selection
        What to choose from, and how.
    left
        What each voxel of a case may still be, on the grid of its file; the default is what was drawn. Promises leave
        less, and what they settle needs no annotation.
    maps
        Folder for the maps of each case that a picture needs, see :func:`load_maps`.
    read_ahead
        Read the next case while the network works.
    progress
        Called with (cases done, cases in all, name of the last).

    Raises
    ------
    AutosegError
        If no case could be predicted.
    ConfigError
        If nothing is left to annotate.
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
            f"suggestions: found at least half of every {units.by} annotated in {len(parts)} cases, expected something "
            "to annotate. Name new images with -i, or choose another --by, --axis or --patch-size."
        )
    choices = choose(candidates, selection)
    suggestions = (_suggestion(candidates, choice, number, models.seen) for number, choice in enumerate(choices, 1))
    missing = left_over(candidates, choices) if len(choices) < selection.number else None
    return Ranking(tuple(suggestions), len(candidates), failed, missing)


def save_maps(folder: Path, case: str, maps: UncertaintyMaps) -> None:
    """Keep the maps of a case until the pictures are drawn."""
    with atomic_path(folder / f"{case}.npz") as temporary:
        np.savez_compressed(temporary, entropy=maps.entropy, labels=maps.labels, is_open=maps.is_open)


def load_maps(folder: Path, case: str) -> UncertaintyMaps:
    """Return what :func:`save_maps` kept."""
    with np.load(folder / f"{case}.npz", allow_pickle=False) as stored:
        return UncertaintyMaps(stored["entropy"], stored["labels"], stored["is_open"])


def _read(files: CaseFiles, labels: Labels) -> Case:
    if files.label is not None:
        return read_case(files, labels)
    image, geometry = read_image(files.images)
    return Case(files.name, image, geometry)


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


def _meaning(labels: Labels) -> tuple[object, ...]:
    return (labels.class_names, labels.class_values, labels.heads, labels.task)


def _suggestion(candidates: Candidates, choice: Choice, number: int, seen: Collection[str]) -> Suggestion:
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
        seen=case in seen,
    )
