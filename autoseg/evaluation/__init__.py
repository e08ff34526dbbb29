"""How good a prediction is, counted only where the reference knows."""

from autoseg.evaluation.evaluator import evaluate_files, evaluate_folder
from autoseg.evaluation.summary import Summary

__all__ = ["Summary", "evaluate_files", "evaluate_folder"]
