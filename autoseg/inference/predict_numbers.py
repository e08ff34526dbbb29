"""Prediction of the numbers of an image in memory."""

from __future__ import annotations

from autoseg.cases.case import Case
from autoseg.core.arrays import Float32Array
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.inference.predictor import Predictor
from autoseg.inference.predictor_group import PredictorGroup


def predict_numbers(predictor: Predictor, image: Float32Array, geometry: Geometry) -> Float32Array:
    """Return the numbers (R, z, y, x) float32 that a model of regression predicts, in the units of its label files.

    Parameters and errors as for ``Predictor.predict_array``, which is for models of classes. Also raises
    ``ConfigError`` for such a model.
    """
    if not predictor.model.dataset.labels.targets:
        raise ConfigError("predict_numbers: found a model of classes, expected one of regression. Use predict_array.")
    group = PredictorGroup((predictor,))
    return group.numbers(group.prepare(Case("image", image, geometry)))
