"""Weights of classes, or of regions, in the cross entropy of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator

from autoseg.cases.entry import CacheEntry
from autoseg.core.config_levels import value_text
from autoseg.core.errors import ConfigError
from autoseg.core.findings import counted, did_you_mean, listed
from autoseg.nn.losses.registry import LOSSES
from autoseg.tasks.task import Task

MOST = 10.0
"""Largest weight that ``auto`` gives; the most frequent class has 1. With more, a few voxels of a rare class, and the
errors of their annotation, would decide the direction of a step."""
EXPECTED = (
    "expected auto, a number of 0 or more for each class in the order of dataset.json (1,2,5), or pairs NAME=NUMBER "
    "(tumour=5,liver=2), not all 0"
)


def read_class_weights(value: Any) -> Any:
    """Return ``"auto"``, a tuple of weights, or a dict of name -> weight, from these or from text.

    Raises ``ValueError`` for anything else, for weights that are negative or not finite, and if all are 0.
    """
    if value == "auto":
        return value
    pairs = _pairs(value)
    names = [name for name, _ in pairs]
    if any(names) and (not all(names) or len(set(names)) < len(names)):
        raise ValueError(EXPECTED)
    try:
        weights = [float(number) for _, number in pairs]
    except (TypeError, ValueError):
        raise ValueError(EXPECTED) from None
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ValueError(EXPECTED)
    return dict(zip(names, weights, strict=True)) if any(names) else tuple(weights)


ClassWeights = Annotated[Literal["auto"] | tuple[float, ...] | dict[str, float], BeforeValidator(read_class_weights)]
"""``auto``, one weight for each output of the network, or name of an output -> weight (the others have 1)."""


def output_weights(
    setting: ClassWeights | None, loss: str, task: Task, entries: Iterable[CacheEntry]
) -> tuple[float, ...] | None:
    """Return the weight of each output of the network in the cross entropy, (O,); None if all are alike.

    Parameters
    ----------
    setting
        As in the configuration; only ratios matter. None: all alike.
    loss
        Name of the loss.
    task
        Of the data set; outputs are its classes or regions.
    entries
        Cached training cases, whose annotated voxels ``auto`` counts.

    Raises
    ------
    ConfigError
        If the loss takes no weights, if number or names of the weights are not those of the outputs, or for ``auto``
        with a task whose outputs are no classes or regions.
    """
    if setting is None:
        return None
    if loss not in LOSSES:
        raise ConfigError(
            f"class_weights: found {value_text(setting)} with loss {loss!r}, expected loss=label_sets, which takes "
            "them. Weigh the classes in your loss, and set class_weights=none."
        )
    weights = _inverse_frequencies(task, entries) if setting == "auto" else _given(setting, task)
    return weights if len(set(weights)) > 1 else None


def _pairs(value: Any) -> list[tuple[str, Any]]:
    """Return (name, weight) pairs, without names ("" each) for a list; nothing is checked but the kind of value."""
    if isinstance(value, str):
        parts = [item.rpartition("=") for item in value.split(",")]
        return [(name.strip(), number) for name, _, number in parts]
    if isinstance(value, Mapping):
        return [(str(name), number) for name, number in value.items()]
    if isinstance(value, (list, tuple)):
        return [("", number) for number in value]
    raise ValueError(EXPECTED)


def _given(setting: tuple[float, ...] | dict[str, float] | str, task: Task) -> tuple[float, ...]:
    """Return the weights (O,) of a list or of names; raise ``ConfigError`` if they do not fit the outputs."""
    outputs = task.outputs
    if isinstance(setting, dict):
        unknown = [name for name in setting if name not in outputs]
        if unknown:
            raise ConfigError(
                f"class_weights: found {listed(unknown)}, expected names of {listed(outputs, len(outputs))}."
                + (did_you_mean(unknown[0], outputs) or " Correct them.")
            )
        return tuple(setting.get(name, 1.0) for name in outputs)
    weights = tuple(float(weight) for weight in setting)
    if len(weights) != len(outputs):
        raise ConfigError(
            f"class_weights: found {counted(len(weights), 'number')}, expected {len(outputs)}, one for each of "
            f"{listed(outputs, len(outputs))}. Write for example class_weights={','.join('1' * len(outputs))}"
        )
    return weights


def _inverse_frequencies(task: Task, entries: Iterable[CacheEntry]) -> tuple[float, ...]:
    """Return the weight (O,) of each output: voxels of the most frequent one over its own, at most ``MOST``.

    Counted are voxels annotated so that they certainly belong to the class or region. An output without any has 1.
    """
    if task.refinement is not None:
        raise ConfigError(
            f"class_weights: found auto with task {task.labels.task or 'instances'!r}, whose outputs are no classes, "
            f"expected a number for each of {listed(task.outputs, len(task.outputs))}. Write for example "
            f"class_weights={','.join('1' * len(task.outputs))}"
        )
    heads = np.eye(task.labels.n_classes, dtype=bool) if task.regions is None else task.regions
    counts = np.zeros(len(heads))
    for entry in entries:
        positive, _ = entry.table.head_states(heads)
        for code, count in entry.code_counts.items():
            counts += count * positive[code]
    weights = np.minimum(counts.max() / np.maximum(counts, 1), MOST)
    return tuple(np.where(counts > 0, weights, 1.0).tolist())
