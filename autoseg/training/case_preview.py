"""Pictures of whole cases with the present prediction of a run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from autoseg.cases.label_codes import classes_and_objects, read_label_file
from autoseg.cases.target_numbers import read_numbers
from autoseg.core.arrays import Float32Array
from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.findings import listed
from autoseg.core.workspace import FoldName
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Labels
from autoseg.inference import Predictor
from autoseg.inference.model import Model, previous_folder
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.io.png import write_png
from autoseg.preprocessing.read_case import read_unlabelled
from autoseg.preprocessing.volume_size import is_large
from autoseg.report.number_sheet import NumberColumn, draw_numbers
from autoseg.report.overlay import Layer, choose_slices, draw_overlay
from autoseg.training.request import FoldRequest
from autoseg.training.trainer import Parts

log = logging.getLogger(__name__)

FOLDER = "previews"
N_SLICES = 4


def preview_names(request: FoldRequest) -> tuple[str, ...]:
    """Return the cases of the previews: as set, otherwise the first validation case that fits into memory; () for none.

    Raises ``ConfigError`` for a case that the data set does not have.
    """
    names = request.config.monitoring.preview_cases
    unknown = [name for name in names if name not in request.dataset.case_names]
    if unknown:
        raise ConfigError(
            f"monitoring.preview_cases: found {', '.join(unknown)}, expected cases of {request.dataset.name}: "
            f"{listed(request.dataset.case_names)}. Correct the names."
        )
    return names or tuple(name for name in request.val_cases if not is_large(request.dataset.case(name)))[:1]


def draw_previews(request: FoldRequest, parts: Parts, seconds: float) -> list[Path]:
    """Predict the preview cases with the present weights, and draw each into ``previews/CASE_<hours>h.png``.

    Slices and range of intensities of a case are the same in all its pictures, so that they can be compared. A case
    that cannot be predicted, or needs more memory than the training leaves, is named in a warning. Predictions are not
    mirrored.
    """
    predictor = _predictor(request, parts)
    network, paths = parts.network, []
    supervises, trains = network.deep_supervision, network.training
    network.deep_supervision = False  # type: ignore[assignment]
    network.eval()
    try:
        for name in preview_names(request):
            path = request.folder / FOLDER / f"{name}_{seconds / 3600:07.3f}h.png"
            try:
                _draw(request, predictor, name, path, seconds)
            except (AutosegError, OSError, MemoryError, torch.cuda.OutOfMemoryError) as error:
                log.warning("preview of case %s: %s", name, error)
            else:
                paths.append(path)
    finally:
        network.deep_supervision = supervises
        network.train(trains)
    return paths


def _draw(request: FoldRequest, predictor: Predictor, name: str, path: Path, seconds: float) -> None:
    files, labels = request.dataset.case(name), request.dataset.labels
    if is_large(files):
        raise ConfigError("it is too large for memory. Name a smaller case in monitoring.preview_cases")
    case = read_unlabelled(name, files.images, [(request.plan, request.configuration)])
    image, geometry = case.own_image.astype(np.float32, copy=False), case.geometry
    title = f"{name}, after {seconds / 3600:.2f} h of training"
    if labels.targets:
        with torch.inference_mode():
            group = PredictorGroup((predictor,))
            numbers = group.numbers(group.prepare(case))
        columns = _number_columns(files, labels, numbers)
        slices = choose_slices(np.isfinite(columns[0].numbers), N_SLICES)
        write_png(path, draw_numbers(image, columns, geometry.spacing, slices, title=title))
        return
    with torch.inference_mode():
        predicted = predictor.predict_case(case)
    classes, _ = classes_and_objects(predicted, labels, path)
    layers = [Layer("prediction", classes)]
    if files.label is not None:
        annotation = read_label_file(files.label, labels).drawn
        if annotation.shape == classes.shape:
            layers.insert(0, Layer("annotation", annotation))
    slices = choose_slices(layers[0].labels != 0, N_SLICES)
    write_png(path, draw_overlay(image, layers, labels, geometry.spacing, title=title, slices=slices))


def _number_columns(files: CaseFiles, labels: Labels, predicted: Float32Array) -> list[NumberColumn]:
    """Return the columns of a picture of predicted numbers (R, z, y, x): for each target what is known comes first."""
    known = [] if files.label is None else [("known", read_numbers(files.label, labels)[0])]
    return [
        NumberColumn(f"{target}, {what}", target, numbers[index])
        for index, target in enumerate(labels.targets)
        for what, numbers in (*known, ("predicted", predicted))
        if numbers.shape == predicted.shape
    ]


def _predictor(request: FoldRequest, parts: Parts) -> Predictor:
    """Return what predicts with the network that trains; with the earlier stage of a cascade as it is on disk."""
    folder = request.folder.parent
    model = Model(request.plan, request.configuration, request.dataset, (parts.network,), (), (request.fold,), folder)
    stage = previous_folder(folder, request.configuration)
    previous = None if stage is None else Predictor.load(stage, [FoldName.parse(request.fold).fold], request.device)
    return Predictor(model, parts.device, parts.autocast_dtype, mirror=False, previous=previous)
