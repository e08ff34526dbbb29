"""Evaluation of predictions, at the voxels that the reference decides."""

from autoseg.evaluation.evaluator import evaluate_files, evaluate_folder
from autoseg.evaluation.summary import Summary

__all__ = ["Summary", "evaluate_files", "evaluate_folder"]
