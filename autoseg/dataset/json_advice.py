"""What to write in a dataset.json, as text that can be copied: values of which nothing is known, orders of regions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoseg.dataset.file_values import json_value
from autoseg.dataset.painting import own_class, sound_order
from autoseg.dataset.schema import BACKGROUND, IGNORE, ORDER, UNLABELLED


def as_written(keys: Mapping[str, Any]) -> str:
    """Return keys and values as they stand in a JSON file, without the braces around them."""
    return json.dumps(keys, ensure_ascii=False)[1:-1]


def declare_unknown(content: Mapping[str, Any], *values: int) -> dict[str, Any]:
    """Return the keys of a dataset.json that say that nothing is known of voxels with ``values``.

    ``unlabelled`` for the first value if ``content``, the dataset.json, has none yet; label sets of all classes, beside
    those that it has, for the others. No value gives no key.
    """
    others = list(values)
    keys: dict[str, Any] = {}
    if content.get(UNLABELLED) is None and others:
        keys[UNLABELLED] = json_value(others.pop(0))
    if others:
        section, sets = content.get("labels", {}), content.get("label_sets", {})
        names = [name for name in section if name != IGNORE]
        keys["label_sets"] = {
            **(sets if isinstance(sets, Mapping) else {}),
            **{str(json_value(value)): names for value in others},
        }
    return keys


def move_to_unlabelled(content: Mapping[str, Any], name: str, *values: int) -> str:
    """Return what to write so that label ``name`` is no label any more and nothing is known of ``values``."""
    labels = {other: value for other, value in content["labels"].items() if other != name}
    return as_written({"labels": labels} | declare_unknown({**content, "labels": labels}, *values))


def order_as_written(section: Mapping[str, Any], foreground: Mapping[str, Sequence[int]]) -> tuple[str, bool]:
    """Return what to write so that every region comes back, and whether nnU-Net's rule does that with it.

    The labels are written too if their order has to change. Where no order is sound, because regions overlap without
    nesting, larger regions come before smaller ones.

    Parameters
    ----------
    section
        ``labels`` of the dataset.json.
    foreground
        Name -> file values of the labels in it, without faulty ones.
    """
    names, values = list(foreground), sorted({item for members in foreground.values() for item in members})
    regions = np.array([[False, *(value in foreground[name] for value in values)] for name in names], dtype=bool)
    order = sound_order(regions) if names else ()
    chosen = order
    if chosen is None:
        by_size = sorted(range(len(names)), key=lambda region: -len(foreground[names[region]]))
        chosen = tuple((region, own_class(regions, region)) for region in by_size)
    keys: dict[str, Any] = {ORDER: [values[index - 1] for _, index in chosen]}
    ordered = [names[region] for region, _ in chosen]
    if ordered != names:
        rest = {name: value for name, value in section.items() if name not in {BACKGROUND, *names}}
        labels = {name: section[name] for name in (BACKGROUND, *ordered) if name in section} | rest
        keys = {"labels": labels} | keys
    return as_written(keys), order is not None


def paint_advice(section: Mapping[str, Any]) -> str:
    """Return what to do about a missing or wrong ``regions_class_order`` beside ``labels``."""
    values = {name: list(value) if isinstance(value, (list, tuple)) else [value] for name, value in section.items()}
    foreground = {
        name: sorted(set(items))
        for name, items in values.items()
        if name not in (BACKGROUND, IGNORE) and items and all(type(item) is int for item in items)
    }
    written, _ = order_as_written(section, foreground)
    return f"Write {written}; later values are painted over earlier ones, so list large regions first."
