"""The layers of a case: named arrays on one grid, each of a kind.

What a kind does is a table per stage: ``preprocessing.resample_layers.RESAMPLE``, ``sampling.move_layers.MOVE`` and
``sampling.input_channels.CHANNELS``. A further kind is one line in each. The layers "image" and "target" are always
there and are declared by the case itself; what is listed here are further ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, field_validator

from autoseg.core.plan import Configuration, Plan
from autoseg.dataset.labels import Labels

ARRAYS = ("image", "target", "locations")
"""Names of the arrays that every case has; no further layer may be called so."""
PREVIOUS = "previous"
"""Name of the layer with the classes that the previous stage of a cascade predicts."""


class Kind(StrEnum):
    """What the numbers of a layer are, and so how they may be resampled, moved and given to a network."""

    INTENSITY = "intensity"
    """(C, *S) measurements: numbers between two voxels are means of them."""
    LABEL_SETS = "label_sets"
    """(*S) codes of an annotation: nominal, and annotated voxels win over unannotated ones."""
    INSTANCES = "instances"
    """(*S) ids of objects: nominal, and an id means nothing in another case."""
    CLASSES = "classes"
    """(*S) class indices in every voxel, as a network predicts them: nominal, 0 is background."""


class LayerInfo(BaseModel):
    """All that is known of a layer besides its voxels."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Lower-case letters, digits and _, since files of the cache are named after it."""
    kind: Kind
    dtype: str
    """NumPy's name of the type in the cache."""
    channels: int = 1
    """INTENSITY: channels of the array; CLASSES: classes beside background; otherwise 1."""
    outside: int = 0
    """Value beyond the edge of the image, as of padding and of what a warp moves in."""
    undrawn: int | None = None
    """LABEL_SETS: code of unannotated voxels, over which the others win; None if every voxel is annotated."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in ARRAYS or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"found {name!r}, expected lower-case letters, digits and _, and none of {ARRAYS}")
        return name


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in memory."""

    info: LayerInfo
    array: NDArray[Any]
    """(C, *S) for INTENSITY, (*S) otherwise."""


def further_inputs(configuration: Configuration, n_classes: int) -> tuple[LayerInfo, ...]:
    """Return the layers whose channels follow those of the image at the entrance of the network; mostly none.

    Parameters
    ----------
    configuration
        The second stage of a cascade sees the classes that the first one predicts.
    n_classes
        K, background included.
    """
    if configuration.previous_stage is None:
        return ()
    return (classes_layer(PREVIOUS, n_classes),)


def classes_layer(name: str, n_classes: int) -> LayerInfo:
    """Return what is known of a layer of class indices below ``n_classes``; outside lies background."""
    return LayerInfo(name=name, kind=Kind.CLASSES, dtype=np.min_scalar_type(n_classes).name, channels=n_classes - 1)


def input_channels(plan: Plan, configuration: Configuration, labels: Labels) -> tuple[str, ...]:
    """Return the names of the channels at the entrance of a configuration's network: the image's, then further ones.

    A previous stage adds one channel per class but background, as in nnU-Net
    (``label_handling.py:determine_num_input_channels``): background is where all of them are 0, as they are outside.
    """
    names = plan.channel_names
    for info in further_inputs(configuration, labels.n_classes):
        names = (*names, *(f"{info.name} {name}" for name in labels.class_names[1:]))
    return names


def class_indices(values: NDArray[np.integer[Any]], labels: Labels) -> NDArray[np.unsignedinteger[Any]]:
    """Turn a dense label map of file values (*S) into class indices (*S), of the type that :func:`classes_layer` names.

    Raises ``ValueError`` naming the values that are no class, as that of the ignore label.
    """
    classes = np.zeros(values.shape, dtype=np.min_scalar_type(labels.n_classes))
    is_class = values == labels.class_values[0]
    for index, value in enumerate(labels.class_values[1:], start=1):
        of_class = values == value
        classes[of_class] = index
        is_class |= of_class
    if not is_class.all():
        others = np.unique(values[~is_class]).tolist()
        raise ValueError(f"values {others}, which are not of a class: {list(labels.class_values)}")
    return classes
