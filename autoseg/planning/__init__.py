"""Fingerprint, planner and folds of a data set."""

from autoseg.inspection.measure import extract_fingerprint, fingerprint_is_current
from autoseg.planning.files import load_fingerprint, load_plan, save_fingerprint, save_plan
from autoseg.planning.planner import plan
from autoseg.planning.presets import PLANNERS, PlannerSettings
from autoseg.planning.splits import Split, load_or_make_splits, make_splits, select_fold

__all__ = [
    "PLANNERS",
    "PlannerSettings",
    "Split",
    "extract_fingerprint",
    "fingerprint_is_current",
    "load_fingerprint",
    "load_or_make_splits",
    "load_plan",
    "make_splits",
    "plan",
    "save_fingerprint",
    "save_plan",
    "select_fold",
]
