"""Prediction of images by a group of models, with the further outputs that a user asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.core.parallel import Workers
from autoseg.core.progress import Progress, silent
from autoseg.evaluation.quality import QUALITY_FOLDER, Quality
from autoseg.inference.folder import PredictionReport, predict_files
from autoseg.inference.input_cases import Inputs
from autoseg.inference.outputs import FurtherOutput, Removal
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.inference.quality_output import PredictedQuality, conclude_quality
from autoseg.inference.saved_instances import SavedInstances, has_affinities, parted_by
from autoseg.inference.saved_probabilities import SavedProbabilities
from autoseg.inference.uncertainty_files import SavedUncertainty, conclude_uncertainty, has_means

REMOVALS: tuple[Removal, ...] = (
    SavedProbabilities.remove,
    SavedUncertainty.remove,
    SavedInstances.remove,
    PredictedQuality.remove,
)
"""Of what every kind of further output wrote about a label map that is replaced."""


def predict_group(
    group: PredictorGroup,
    inputs: Inputs,
    output: Path,
    *,
    overwrite: bool = False,
    save_probabilities: bool = False,
    save_uncertainty: bool = False,
    instances: str | None = None,
    predict_quality: bool = True,
    further: Sequence[FurtherOutput] = (),
    workers: Workers = 1,
    progress: Progress = silent,
) -> PredictionReport:
    """Predict images and write ``<case><ending>`` for each to the folder ``output``, with further outputs.

    Further outputs of a label map that is replaced are removed, whether or not their kind is written again.

    Parameters
    ----------
    group
        The model, or the models.
    inputs, overwrite, workers, progress
        As for :func:`autoseg.inference.folder.predict_files`.
    save_probabilities
        Also write ``<case>.npz`` with ``probabilities`` (H, z, y, x) float32.
    save_uncertainty
        Also write the folder of :mod:`autoseg.inference.uncertainty_files`.
    instances
        Name of the method by which touching objects of each class are parted into ``instances/<case><ending>``; None
        writes none. See :class:`autoseg.inference.saved_instances.SavedInstances`. Models with affinities, whose label
        maps hold the objects, part them by this method (watershed or mutex); None: as their model folder says.
    predict_quality
        Also write ``quality.csv`` and the records in ``quality/`` that it is made of; not for regression.
    further
        What else to write.
    """
    outputs, has_quality = [*further], predict_quality and not group.dataset.labels.targets
    has_records, had_means = (output / QUALITY_FOLDER).is_dir(), has_means(output)
    if save_probabilities:
        outputs.append(SavedProbabilities())
    if save_uncertainty:
        outputs.append(SavedUncertainty.beside(output, group))
    if instances is not None and has_affinities(group):
        group = parted_by(group, instances)
    elif instances is not None:
        outputs.append(SavedInstances.by(instances, group.dataset, group.models[0].separation))
    if has_quality:
        outputs.append(PredictedQuality(_quality(group)))
    report = predict_files(
        group, inputs, output, overwrite=overwrite, further=outputs, removals=REMOVALS, workers=workers,
        progress=progress,
    )  # fmt: skip
    if has_quality or has_records:
        conclude_quality(output, report.done)
    if save_uncertainty or had_means:
        conclude_uncertainty(output)
    return report


def _quality(group: PredictorGroup) -> Quality | None:
    """Return the quality of the only model; of several models that of the first, without a predicted Dice.

    The Dice of a mean of models follows other curves than that of each.
    """
    first, *others = group.models
    quality = first.calibration.quality
    if quality is None or not others:
        return quality
    return quality.model_copy(update={"curves": tuple(curve.without_fit() for curve in quality.curves)})
