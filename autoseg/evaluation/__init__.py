"""Evaluation of predictions, at the voxels that the reference decides."""

from autoseg.evaluation.evaluator import evaluate_files, evaluate_folder
from autoseg.evaluation.number_evaluator import evaluate_numbers, evaluate_numbers_folder, score_folder
from autoseg.evaluation.number_summary import NumberSummary
from autoseg.evaluation.summary import Summary

AnySummary = Summary | NumberSummary
"""Result of an evaluation: of classes, or of the numbers of a regression."""

__all__ = [
    "AnySummary",
    "NumberSummary",
    "Summary",
    "evaluate_files",
    "evaluate_folder",
    "evaluate_numbers",
    "evaluate_numbers_folder",
    "score_folder",
]
