"""Entries for a dataset.json as text that can be copied: values of unannotated voxels, orders of regions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from autoseg.dataset.file_values import json_value
from autoseg.dataset.painting import own_class, sound_order
from autoseg.dataset.schema import BACKGROUND, IGNORE, ORDER, UNLABELLED


def as_written(keys: Mapping[str, Any]) -> str:
    """Return keys and values as JSON text, without the braces around them."""
    return json.dumps(keys, ensure_ascii=False)[1:-1]


def declare_unknown(content: Mapping[str, Any], *values: int) -> dict[str, Any]:
    """Return the keys of a dataset.json that declare voxels with ``values`` as unannotated.

    ``unlabelled`` declares the first value if ``content``, the dataset.json, does not have it yet. ``label_sets``, with
    the existing sets, declares the others as sets of all classes. Without values there are no keys.
    """
    others = list(values)
    keys: dict[str, Any] = {}
    if content.get(UNLABELLED) is None and others:
        keys[UNLABELLED] = json_value(others.pop(0))
    if others:
        labels, sets = content.get("labels", {}), content.get("label_sets", {})
        names = [name for name in labels if name != IGNORE] if isinstance(labels, Mapping) else []
        keys["label_sets"] = {
            **(sets if isinstance(sets, Mapping) else {}),
            **{str(json_value(value)): names for value in others},
        }
    return keys


def move_to_unlabelled(content: Mapping[str, Any], name: str, *values: int) -> str:
    """Return the entries by which ``name`` is no label any more and voxels with ``values`` are unannotated."""
    labels = {other: value for other, value in content["labels"].items() if other != name}
    return as_written({"labels": labels} | declare_unknown({**content, "labels": labels}, *values))


def paint_advice(labels: Mapping[str, Any]) -> str:
    """Return the remedy for a missing or wrong ``regions_class_order``, given ``labels``."""
    return (
        f"Write {order_as_written(labels)[0]}; later values are painted over earlier ones, so list large regions first."
    )


def order_as_written(labels: Mapping[str, Any]) -> tuple[str, bool]:
    """Return an entry with an order of regions, and whether nnU-Net's rule recovers every region with it.

    The entry includes ``labels`` if their order has to change; faulty labels are ignored. If no order is sound, because
    regions overlap without nesting, larger regions come before smaller ones.
    """
    written = {name: list(value) if isinstance(value, (list, tuple)) else [value] for name, value in labels.items()}
    foreground = {
        name: set(items)
        for name, items in written.items()
        if name not in (BACKGROUND, IGNORE) and items and all(type(item) is int for item in items)
    }
    names, values = list(foreground), sorted(set().union(*foreground.values()))
    regions = np.array([[False, *(value in foreground[name] for value in values)] for name in names], dtype=bool)
    order = sound_order(regions) if names else ()
    by_size = sorted(range(len(names)), key=lambda region: -len(foreground[names[region]]))
    chosen = tuple((region, own_class(regions, region)) for region in by_size) if order is None else order
    keys: dict[str, Any] = {ORDER: [values[index - 1] for _, index in chosen]}
    ordered = [names[region] for region, _ in chosen]
    if ordered != names:
        first = {name: labels[name] for name in (BACKGROUND, *ordered) if name in labels}
        keys = {"labels": {**first, **labels}} | keys
    return as_written(keys), order is not None
