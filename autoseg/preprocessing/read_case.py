"""Cases as their files hold them: image, annotation, and what promises leave of it; of a volume also its context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.annotation.promises import Inference, infer
from autoseg.annotation.touches import promise_statement
from autoseg.cases.case import Case, Target
from autoseg.cases.label_codes import read_annotation, read_class_map
from autoseg.cases.layers import LEVELS, Kind, Layer, LayerInfo, target_layers
from autoseg.core.boxes import Box
from autoseg.core.channel_statistics import ChannelStatistics
from autoseg.core.geometry import Geometry
from autoseg.core.location import is_location, split_box
from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels, weight_levels
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.arrays import open_volume
from autoseg.io.images import read_header, read_image, read_intensities
from autoseg.preprocessing.context import PREDICTED_CONTEXT, TRAINED_CONTEXT, context_margin
from autoseg.preprocessing.freshness import file_stamp
from autoseg.preprocessing.volume_size import refuse_large
from autoseg.preprocessing.volume_statistics import volume_statistics

Grid = tuple[Plan, Configuration]
"""What decides how much context a case needs."""
ReadImage = Callable[[Sequence[str | Path]], tuple[NDArray[Any], Geometry]]
"""Function that reads the files of a case: image (C, *S), and its geometry."""


def read_case(files: CaseFiles, labels: Labels, grid: Grid | None = None) -> Case:
    """Read image and annotation of a case.

    With ``grid`` the image of a box of a volume comes with the context that training needs. There the annotation is
    unknown: a class that is declared absent from the case may lie in its context.

    Raises
    ------
    FileFormatError
        If a file cannot be read without loss.
    DatasetError
        If the label file or the valid mask does not have the shape of the image, the mask is zero everywhere, the case
        has no label file, or a value is not declared. If the case is too large for memory.
    """
    refuse_large(files)
    case = _read_image(files.name, files.images, [] if grid is None else [grid], TRAINED_CONTEXT, read_intensities)
    target = read_annotation(files, labels, case.own_image.shape[1:])
    if case.box is not None:
        target = _target_with_context(target, case.box, case.image.shape[1:], labels)
    learnt = target.numbers if target.objects is None else target.objects
    layers = () if learnt is None else tuple(_learnt_layer(info, learnt) for info in target_layers(labels))
    if target.levels is not None:
        info = LayerInfo(
            name=LEVELS, kind=Kind.LABEL_SETS, dtype=target.levels.dtype.name, undrawn=len(weight_levels(labels))
        )
        layers = (*layers, Layer(info, target.levels))
    return replace(case, target=target, layers=layers)


def read_unlabelled(name: str, files: Sequence[Path], grids: Sequence[Grid]) -> Case:
    """Read the image of a case to predict, float32; of a box of a volume with the context that prediction needs.

    ``grids`` are those of the models that predict it. Raises ``FileFormatError`` as
    :func:`autoseg.io.images.read_image`.
    """
    return _read_image(name, files, grids, PREDICTED_CONTEXT, read_image)


def infer_case(case: Case, labels: Labels, protocol: AnnotationProtocol) -> Inference | None:
    """Return the classes that promises leave in a case, on the grid of its image; None if they exclude nothing.

    Promises say nothing about context.
    """
    if labels.is_dense or protocol.is_empty or case.target is None:
        return None
    statement = promise_statement(labels, case.name)
    codes = case.target.codes if case.box is None else case.target.codes[case.box.slices]
    inference = infer(codes, case.target.label_sets, case.geometry.spacing, protocol, statement=statement)
    if len(inference.label_sets) <= 1:
        return None
    if case.box is None:
        return inference
    return replace(inference, codes=_padded(inference.codes, case.box, case.image.shape[1:], 0))


def read_previous(path: Path, info: LayerInfo, labels: Labels, case: Case) -> Layer:
    """Return the classes that the previous stage of a cascade predicted of a case; its context is background.

    Raises ``FileFormatError`` as :func:`autoseg.cases.label_codes.read_class_map`.
    """
    layer = read_class_map(path, info, labels, case.own_image.shape[1:])
    if case.box is None:
        return layer
    return replace(layer, array=_padded(layer.array, case.box, case.image.shape[1:], info.outside))


def _learnt_layer(info: LayerInfo, array: NDArray[Any]) -> Layer:
    """Return a layer that a network learns from, described with the dtype that it has in this case."""
    return Layer(info.model_copy(update={"dtype": array.dtype.name}), array)


def _read_image(name: str, files: Sequence[Path], grids: Sequence[Grid], share: float, read: ReadImage) -> Case:
    """Return a case without target; of a part of a volume with context and with the statistics of the volume."""
    if not any(map(is_location, files)):
        return Case(name, *read(files))
    wholes, boxes = zip(*map(split_box, files), strict=True)
    volume, box = open_volume(wholes), boxes[0]
    statistics = _statistics(wholes, str([file_stamp(Path(whole)) for whole in wholes]))
    if box is None or not grids:
        return Case(name, *read(files), statistics=statistics)
    margins = [context_margin(*grid, volume.geometry, share) for grid in grids]
    z, y, x = (max(along) for along in zip(*margins, strict=True))
    grown = box.grown((z, y, x)).intersection(Box.whole(volume.spatial_shape))
    image, _ = read([f"{whole}{grown}" for whole in wholes])
    _, geometry = read_header(files[0])
    return Case(name, image, geometry, box=box.relative_to(grown), statistics=statistics)


@lru_cache(maxsize=4)
def _statistics(locations: tuple[str, ...], stamps: str) -> tuple[ChannelStatistics, ...]:
    """Return the statistics of a volume, once for all of its boxes that a process reads; ``stamps`` tell changes."""
    return volume_statistics(open_volume(locations))


def _target_with_context(target: Target, box: Box, shape: tuple[int, ...], labels: Labels) -> Target:
    """Return a target on a grid of ``shape``, of which ``box`` is the case; nothing is known around it."""

    def padded(array: NDArray[Any] | None, value: float) -> Any:
        return None if array is None else _padded(array, box, shape, value)

    return Target(
        codes=padded(target.codes, labels.unknown),
        label_sets=target.label_sets,
        undrawn=target.undrawn,
        numbers=padded(target.numbers, np.nan),
        levels=padded(target.levels, len(weight_levels(labels))),
        objects=padded(target.objects, 0),
    )


def _padded(array: NDArray[Any], box: Box, shape: tuple[int, ...], value: float) -> NDArray[Any]:
    """Return an array (..., *shape) of ``value`` with ``array`` (..., *box) in ``box``."""
    result = np.full((*array.shape[:-3], *shape), value, dtype=array.dtype)
    result[(..., *box.slices)] = array
    return result
