"""Separation of objects by cellpose, where it is installed: an alternative to the watershed for the shapes it knows."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.core.arrays import BoolArray, LabelMap
from autoseg.core.errors import ConfigError
from autoseg.tasks.separation import SeparationSettings, renumbered


def cellpose_models() -> ModuleType:
    """Return the module ``cellpose.models``; raise ``ConfigError`` if cellpose is not installed."""
    try:
        return import_module("cellpose.models")
    except ImportError as error:
        raise ConfigError(
            f"--instances cellpose: found no cellpose ({error}), expected it to be installed. Run pip install "
            "cellpose, or leave the method out: --instances alone needs nothing else."
        ) from error


def separate_with_cellpose(
    mask: BoolArray,
    probability: NDArray[np.uint8],
    spacing: tuple[float, ...],
    settings: SeparationSettings,
    model: Any,
) -> LabelMap:
    """Return the objects (z, y, x) that cellpose finds in the probability of a class, within the mask of the class.

    Parameters
    ----------
    mask, probability, spacing
        As for :func:`autoseg.tasks.separation.separate`.
    settings
        Only the minimum size is used.
    model
        A ``cellpose.models.CellposeModel``. It gets the probability in [0, 1] as a grey image: a slice of one plane,
        and a volume with the ratio of the spacings.

    Notes
    -----
    Source: deepflash2 ``learner.py`` (cellpose on probabilities, then within the mask).
    """
    if not mask.any():
        return np.zeros(mask.shape, dtype=np.uint16)
    grey = probability.astype(np.float32) / 255
    if len(mask) == 1:
        found = np.asarray(model.eval(grey[0], diameter=None)[0])[None]
    else:
        ratio = spacing[0] / min(spacing[1:])
        found = np.asarray(model.eval(grey, diameter=None, do_3D=True, z_axis=0, anisotropy=ratio)[0])
    return renumbered(np.where(mask, found, 0).astype(np.uint32), settings.min_size)


def cellpose_model() -> Any:
    """Return the default model of cellpose on a GPU if there is one; raises as :func:`cellpose_models`."""
    return cellpose_models().CellposeModel(gpu=torch.cuda.is_available())
