"""Self-configuring biomedical image segmentation from whatever annotation people could afford."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.api import (
        check,
        complete,
        evaluate,
        merge_datasets,
        plan,
        predict,
        preprocess,
        preview_batches,
        simulate_annotation,
        suggest,
        train,
    )
    from autoseg.core.errors import AutosegError, DatasetError
    from autoseg.core.fingerprint import Fingerprint
    from autoseg.core.geometry import Geometry
    from autoseg.core.plan import Plan
    from autoseg.core.workspace import Workspace
    from autoseg.dataset.dataset import Dataset
    from autoseg.evaluation.summary import Summary
    from autoseg.inference.predictor import Predictor
    from autoseg.inspection.measure import extract_fingerprint
    from autoseg.io.images import read_image, read_labels, write_labels

__version__ = "0.1.0"
__all__ = [
    "AutosegError",
    "Dataset",
    "DatasetError",
    "Fingerprint",
    "Geometry",
    "Plan",
    "Predictor",
    "Summary",
    "Workspace",
    "check",
    "complete",
    "evaluate",
    "extract_fingerprint",
    "merge_datasets",
    "plan",
    "predict",
    "preprocess",
    "preview_batches",
    "read_image",
    "read_labels",
    "simulate_annotation",
    "suggest",
    "train",
    "write_labels",
]

_MODULES = {
    "AutosegError": "core.errors",
    "Dataset": "dataset.dataset",
    "DatasetError": "core.errors",
    "Fingerprint": "core.fingerprint",
    "Geometry": "core.geometry",
    "Plan": "core.plan",
    "Predictor": "inference.predictor",
    "Summary": "evaluation.summary",
    "Workspace": "core.workspace",
    "extract_fingerprint": "inspection.measure",
    "read_image": "io.images",
    "read_labels": "io.images",
    "write_labels": "io.images",
}
"""Module of each public name; the others are functions of ``autoseg.api``."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: numpy and pydantic would be half of the time of every --help."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__})
