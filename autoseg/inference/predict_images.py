"""Prediction of images by one or several model folders: they are loaded, averaged, and their outputs written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.core.progress import Progress, silent
from autoseg.inference.folder import PredictionReport
from autoseg.inference.input_cases import Inputs
from autoseg.inference.predict_group import predict_group
from autoseg.inference.predict_volume import VolumeOptions, predict_volume, volume_locations
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor_group import PredictorGroup


def predict_images(
    inputs: Inputs,
    output: str | Path,
    models: Sequence[str | Path | Predictor],
    *,
    folds: Sequence[int | str] | None = None,
    device: str = "auto",
    checkpoint: str = "final",
    mirror: bool = True,
    step: float | None = None,
    fast: bool = False,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    instances: str | None = None,
    predict_quality: bool = True,
    overwrite: bool = False,
    volume: VolumeOptions | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict images with the mean of the models, and write ``<case><ending>`` to the folder ``output``.

    A volume (:func:`autoseg.inference.predict_volume.volume_locations`) is predicted part by part, and written as
    ``<case>.zarr``.

    Parameters
    ----------
    inputs, output, overwrite, workers, progress
        As for :func:`autoseg.inference.folder.predict_files`.
    models
        Model folders, or loaded predictors: one, which decides by the mean of the logits of its folds; or several,
        whose probabilities are averaged. Those of several have the same classes and channels.
    folds, device, checkpoint, mirror, step, fast
        As for :meth:`autoseg.inference.Predictor.load`, for every model folder.
    save_probabilities, save_uncertainty, instances, predict_quality
        As for :func:`autoseg.inference.predict_group.predict_group`. Of a volume there is no quality.
    volume
        How a volume is predicted; None is the default, and the only choice if cases are given.

    Raises ``ModelError`` if there is no model, or they do not fit together, and as the functions named above.
    """
    loaded = (
        model
        if isinstance(model, Predictor)
        else Predictor.load(model, folds, device, checkpoint=checkpoint, mirror=mirror, step=step, fast=fast)
        for model in models
    )
    group = PredictorGroup(tuple(loaded))
    options = volume or VolumeOptions()
    locations = volume_locations(inputs, options, group.models[0].plan)
    if locations:
        return predict_volume(
            group, locations, Path(output), options, save_probabilities=save_probabilities,
            save_uncertainty=save_uncertainty, instances=instances, overwrite=overwrite, workers=workers,
            progress=progress,
        )  # fmt: skip
    return predict_group(
        group, inputs, Path(output), overwrite=overwrite, save_probabilities=save_probabilities,
        save_uncertainty=save_uncertainty, instances=instances, predict_quality=predict_quality, workers=workers,
        progress=progress,
    )  # fmt: skip
