"""File values that a task of a user decodes, checked before they are written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import LabelMap
from autoseg.core.components import call_component
from autoseg.core.errors import ConfigError
from autoseg.core.findings import listed
from autoseg.tasks.task import Task


def decoded(task: Task, logits: NDArray[np.floating[Any]]) -> LabelMap:
    """Return the file values (*S) that a task decodes from logits (O, *S).

    Raises ``ConfigError`` if a user's task raises an exception, or decodes another shape, another type than unsigned
    integers, or values that are not those of a class.
    """
    if task.labels.task is None:
        return task.decode(logits)
    values = call_component("task", task.labels.task, task.decode, logits)
    return _checked(task, "decode", values, logits.shape[1:])


def finished(task: Task, label_map: LabelMap) -> LabelMap:
    """Return the label map (z, y, x) that a task makes of the decoded one; raises as :func:`decoded`."""
    if task.labels.task is None:
        return task.finish(label_map)
    values = call_component("task", task.labels.task, task.finish, label_map)
    return _checked(task, "finish", values, label_map.shape)


def _checked(task: Task, method: str, values: Any, shape: tuple[int, ...]) -> LabelMap:
    """Return ``values``, what ``method`` of a user's task returned; raise ``ConfigError`` unless it is a label map."""
    declared = task.labels.class_values
    if not isinstance(values, np.ndarray):
        found = f"an object of {type(values).__name__}"
    elif values.shape != shape or values.dtype.kind != "u":
        found = f"an array of shape {values.shape} and {values.dtype}"
    elif not (is_declared := np.isin(values, declared)).all():
        wrong = np.unique(values[~is_declared])
        found = f"the values {listed(map(str, wrong.tolist()))}, which are those of no class"
    else:
        return values
    raise ConfigError(
        f"task {task.labels.task!r}: {method} returned {found}, expected an array of shape {shape} of unsigned "
        f"integers among {list(declared)}, the values of the classes in dataset.json. Correct {method} of the task, "
        "for example with labels.decode(scores) or .astype(np.uint8)."
    )
