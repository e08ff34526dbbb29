"""Prediction: dense label maps of images, by a trained model."""

from autoseg.inference.export import decide, probabilities
from autoseg.inference.folder import PredictionReport
from autoseg.inference.model import Model
from autoseg.inference.predictor import Predictor
from autoseg.inference.window import predict_logits

__all__ = ["Model", "PredictionReport", "Predictor", "decide", "predict_logits", "probabilities"]
