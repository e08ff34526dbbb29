"""Label maps of models whose objects are parted by the mutex watershed, each case by the fold that left it out.

The validation of a fold parts objects by the watershed, since the method of the model follows from the validations of
all its folds, and it keeps no affinities.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from autoseg.assist.pair_predictions import load_fold, predict_left_out
from autoseg.assist.trained_folds import TrainedModel
from autoseg.core.progress import Progress, silent
from autoseg.dataset.dataset import Dataset
from autoseg.inference.separation_file import read_separation
from autoseg.tasks.separation import SeparationSettings


def is_parted_by_mutex(model: TrainedModel, dataset: Dataset) -> bool:
    """Whether a model of objects parts them by the mutex watershed, as its ``separation.json`` says."""
    return dataset.labels.instances is not None and read_separation(model.folder).method == "mutex"


def predicted_by_mutex(
    model: TrainedModel,
    dataset: Dataset,
    folder: Path,
    *,
    boxes: Collection[str] = (),
    device: str = "auto",
    workers: int = 1,
    progress: Progress = silent,
) -> TrainedModel:
    """Return a model with the label maps that it predicts by the mutex watershed, with the default of its only setting.

    They are written to ``folder/<model>``, as far as they are missing there, or older than weights or label map of the
    validation. The cases named in ``boxes`` are boxes of volumes too large for memory, of which they are predicted as
    parts, as in the validation.

    Raises
    ------
    ConfigError, ModelError
        If bioimage-cpp is not installed, offsets are missing, or the model has other classes than the data set.
    AutosegError
        If a case cannot be predicted.
    """
    label_maps = {case: folder / model.name / path.name for case, path in model.predictions.items()}
    outdated = {case: fold for case, fold in model.fold_of.items() if _is_outdated(model, label_maps, case)}
    order, done = sorted(outdated, key=lambda case: (outdated[case], case)), 0
    for fold, cases in groupby(order, key=outdated.__getitem__):
        loaded = load_fold(model, fold, dataset, device)
        predictor = replace(loaded, model=replace(loaded.model, separation=SeparationSettings(method="mutex")))
        for case in cases:
            predict_left_out(predictor, dataset.case(case), folder / model.name, boxes, workers=workers)
            done += 1
            progress(done, len(order), case)
    return replace(model, predictions=label_maps)


def _is_outdated(model: TrainedModel, label_maps: Mapping[str, Path], case: str) -> bool:
    """Whether the label map of a case is missing, or older than weights or label map of its fold."""
    path = label_maps[case]
    return not path.is_file() or path.stat().st_mtime <= model.changed(case)
