"""Read ``regions_class_order`` of a dataset.json, and write one that gives every region back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoseg.core.findings import Findings, listed, shown
from autoseg.dataset.painting import own_class, sound_order
from autoseg.dataset.unknown_json import BACKGROUND, Entries, as_written

ORDER = "regions_class_order"


def parse_paint_values(
    content: Mapping[str, Any], named: Mapping[str, Any], entries: Entries, ignore: int | None, findings: Findings
) -> tuple[int, ...]:
    """Return ``regions_class_order``: the value painted for each region, in order of declaration."""
    wanted = f"one value per region, in the order {listed(named, 20)}"
    written, _ = order_as_written(content["labels"], entries)
    fix = f"Write {written}; later values are painted over earlier ones, so list large regions first."
    order = content.get(ORDER)
    if order is None:
        findings.fault(ORDER, found="no such key", expected=f"{wanted}, because labels holds regions", fix=fix)
        return ()
    is_list = isinstance(order, Sequence) and not isinstance(order, str)
    if not is_list or not all(isinstance(item, int) and not isinstance(item, bool) for item in order):
        findings.fault(ORDER, found=shown(order), expected=f"a list of integers, {wanted}", fix=fix)
        return ()
    if len(order) != len(named):
        findings.fault(
            ORDER, found=f"{len(order)} values {list(order)}", expected=f"{len(named)} values, {wanted}", fix=fix
        )
    declared = {item for values in entries.values() for item in values}
    if ignore is not None and ignore in order:
        findings.fault(ORDER, found=f"{ignore}, the ignore label", expected="only values of classes", fix=fix)
    unknown = [item for item in order if item not in declared and item != ignore]
    if unknown and len(entries) == len(named):
        findings.fault(
            ORDER, found=f"{listed(unknown)}, no label value", expected=f"values among {sorted(declared)}", fix=fix
        )
    _warn_about_painting(order, entries, findings)
    return tuple(order)


def order_as_written(section: Mapping[str, Any], entries: Entries) -> tuple[str, bool]:
    """Return what to write so that every region comes back, and whether nnU-Net's rule does that with it.

    The labels are written too if their order has to change. Where no order is sound, because regions overlap without
    nesting, larger regions come before smaller ones.

    Parameters
    ----------
    section
        ``labels`` of the dataset.json.
    entries
        The foreground labels in it, as far as they can be used.
    """
    names, values = list(entries), sorted({item for members in entries.values() for item in members})
    regions = np.array([[False, *(value in entries[name] for value in values)] for name in names], dtype=bool)
    order = sound_order(regions) if names else ()
    chosen = order
    if chosen is None:
        by_size = sorted(range(len(names)), key=lambda region: -len(entries[names[region]]))
        chosen = tuple((region, own_class(regions, region)) for region in by_size)
    keys: dict[str, Any] = {ORDER: [values[index - 1] for _, index in chosen]}
    ordered = [names[region] for region, _ in chosen]
    if ordered != names:
        rest = {name: value for name, value in section.items() if name not in {BACKGROUND, *names}}
        labels = {name: section[name] for name in (BACKGROUND, *ordered) if name in section} | rest
        keys = {"labels": labels} | keys
    return as_written(keys), order is not None


def _warn_about_painting(order: Sequence[int], entries: Entries, findings: Findings) -> None:
    for value, (name, values) in zip(order, entries.items(), strict=False):
        if value not in values:
            findings.warn(ORDER, f"{value}, painted for {name!r}, is not in that region {list(values)}")
    if len(set(order)) < len(order):
        findings.warn(ORDER, f"{list(order)} paints several regions with one value")
