"""The layers of a case: named arrays on one grid, each of a kind.

Each stage has a table of rules by kind: ``preprocessing.resample_layers.RESAMPLE``, ``sampling.move_layers.MOVE`` and
``sampling.input_channels.CHANNELS``. A further kind is one line in each. Every case has the layers "image" and
"target"; this module describes further ones.
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
"""Names of the arrays of every case; no further layer may have one of these names."""
TARGETS = "targets"
"""Name of the layer with the numbers that a regression learns."""
LEVELS = "levels"
"""Name of the layer with the weight levels of voxels; merged into the codes before a case is written."""
OBJECTS = "objects"
"""Name of the layer with the numbers of objects, from which a network learns to part those that touch."""
PREVIOUS = "previous"
"""Name of the layer with the classes predicted by the previous stage of a cascade."""


class Kind(StrEnum):
    """Meaning of the numbers of a layer, which decides how they are resampled, moved and given to a network."""

    INTENSITY = "intensity"
    """(C, *S) measurements: values between voxels are interpolated."""
    LABEL_SETS = "label_sets"
    """(*S) codes of an annotation: not interpolated; annotated voxels win over unannotated ones."""
    INSTANCES = "instances"
    """(*S) ids of objects: not interpolated; ids of different cases are unrelated."""
    NUMBERS = "numbers"
    """(C, *S) measurements that are known in some voxels, NaN in the others: numbers between voxels are interpolated
    from known voxels alone, and no number where less than half of the weight is known; unknown outside the image."""
    CLASSES = "classes"
    """(*S) class indices in every voxel, as a network predicts them: not interpolated; 0 is background."""


class LayerInfo(BaseModel):
    """Description of a layer, without its voxels."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Lower-case letters, digits and _, since files of the cache are named after it."""
    kind: Kind
    dtype: str
    """NumPy's name of the dtype in the cache."""
    channels: int = 1
    """INTENSITY, NUMBERS: number of channels; CLASSES: number of classes without background; otherwise 1."""
    outside: int = 0
    """Value of voxels beyond the edge of the image: of padding, and of voxels that a warp moves in."""
    undrawn: int | None = None
    """LABEL_SETS: code of unannotated voxels, over which all others win; None if every voxel is annotated."""

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
    """(C, *S) for INTENSITY and NUMBERS, (*S) otherwise."""


def further_inputs(configuration: Configuration, n_classes: int) -> tuple[LayerInfo, ...]:
    """Return the layers that are network inputs after the image; none, except in the second stage of a cascade.

    Parameters
    ----------
    configuration
        Configuration of the network; the second stage of a cascade gets the classes predicted by the first.
    n_classes
        K, background included.
    """
    if configuration.previous_stage is None:
        return ()
    return (classes_layer(PREVIOUS, n_classes),)


def target_layers(labels: Labels) -> tuple[LayerInfo, ...]:
    """Return the layers that a network learns from besides the codes: targets of a regression, or numbers of objects.

    () for classes. Objects end at the edge of the image, but not by what anybody drew: beyond it they have the number
    -1, "not known". In the cache of a case they have the smallest dtype of uint16 and uint32 that holds them.
    """
    if labels.instances is not None:
        return (LayerInfo(name=OBJECTS, kind=Kind.INSTANCES, dtype="uint32", outside=-1),)
    if not labels.targets:
        return ()
    return (LayerInfo(name=TARGETS, kind=Kind.NUMBERS, dtype="float32", channels=len(labels.targets)),)


def classes_layer(name: str, n_classes: int) -> LayerInfo:
    """Return the description of a layer of class indices below ``n_classes``; outside the image is background."""
    return LayerInfo(name=name, kind=Kind.CLASSES, dtype=np.min_scalar_type(n_classes).name, channels=n_classes - 1)


def input_channels(plan: Plan, configuration: Configuration, labels: Labels) -> tuple[str, ...]:
    """Return the names of the input channels of a configuration's network: those of the image, then further ones.

    A previous stage adds one channel per class without background, as in nnU-Net
    (``label_handling.py:determine_num_input_channels``). All of them are 0 in background and outside the image.
    """
    names = plan.channel_names
    for info in further_inputs(configuration, labels.n_classes):
        names = (*names, *(f"{info.name} {name}" for name in labels.class_names[1:]))
    return names


def class_indices(values: NDArray[np.integer[Any]], labels: Labels) -> NDArray[np.unsignedinteger[Any]]:
    """Return class indices (*S) of a dense label map of file values (*S), in the dtype of :func:`classes_layer`.

    Raises ``ValueError`` naming the values that are not of a class, such as that of the ignore label.
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
