"""Prediction of images by one or several model folders: they are loaded, averaged, and their outputs written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.core.errors import ConfigError
from autoseg.core.parallel import Workers
from autoseg.core.progress import Progress, silent
from autoseg.inference.folder import PredictionReport
from autoseg.inference.group_source import GroupSource
from autoseg.inference.input_cases import Inputs
from autoseg.inference.predict_group import predict_group
from autoseg.inference.predict_volume import predict_volume
from autoseg.inference.predictor import Predictor
from autoseg.inference.volume_locations import volume_locations
from autoseg.inference.volume_options import VolumeOptions
from autoseg.inference.volume_workers import predict_by_workers


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
    workers: Workers = 1,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict images with the mean of the models, and write ``<case><ending>`` to the folder ``output``.

    A volume (:func:`autoseg.inference.volume_locations.volume_locations`) is predicted part by part, and written as
    ``<case>.zarr``.

    Parameters
    ----------
    inputs, output, overwrite, workers, progress
        As for :func:`autoseg.inference.folder.predict_files`. For a cluster all ``models`` are folders.
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
    source = GroupSource(
        tuple(models), None if folds is None else tuple(folds), device, checkpoint, mirror, step, fast, instances
    )
    if not isinstance(workers, int) and instances == "cellpose":
        raise ConfigError("--instances cellpose: found with --cluster, expected one of them. Use watershed.")
    group = source.load() if isinstance(workers, int) else source.load_for_workers()
    options = volume or VolumeOptions()
    locations = volume_locations(inputs, options, group.models[0].plan)
    if locations:
        if not isinstance(workers, int):
            return predict_by_workers(
                workers, group, locations, Path(output), options, save_probabilities=save_probabilities,
                save_uncertainty=save_uncertainty, instances=instances, overwrite=overwrite, progress=progress,
            )  # fmt: skip
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
