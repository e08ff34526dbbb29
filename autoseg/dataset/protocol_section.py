"""The key ``annotation_protocol`` of a dataset.json: promises of the annotators about how they worked."""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.core.findings import Findings, did_you_mean, listed
from autoseg.dataset.label_section import classes_by_name
from autoseg.dataset.labels import Labels
from autoseg.dataset.protocol import AnnotationProtocol, Reach
from autoseg.dataset.schema import ALL_CLASSES, PROTOCOL, Gap, ProtocolSection

AXES = "zyx"
"""Names of the axes 0, 1, 2 of an array as it is read: z is the last axis of a NIfTI file, x the first."""


def read_protocol(section: ProtocolSection, labels: Labels | None, findings: Findings) -> AnnotationProtocol:
    """Return the promises of ``annotation_protocol`` without the faulty ones. Without the key nothing is promised.

    Parameters
    ----------
    labels
        Labels with the statements on cases, for the names of classes and for the warning that promises have no effect;
        None after a fault in ``labels``: class names are not checked then.
    """
    gap = section.background_encloses
    protocol = AnnotationProtocol(
        classes_complete_in=section.classes_complete_in,
        reach_mm=_reach(section.reach_mm, labels, findings),
        instances_touched=section.instances_touched,
        background_encloses=bool(gap),
        gap_mm=gap.gap_mm if isinstance(gap, Gap) else 0.0,
        slice_axis=None if section.slice_axis is None else AXES.index(section.slice_axis),
    )
    if labels is not None and labels.is_dense and not protocol.is_empty:
        findings.warn(
            PROTOCOL,
            "has no effect, because dataset.json declares every voxel of every case as annotated: there is no ignore "
            "label, no unlabelled, no label_sets, no valid_mask_folder and no entry in cases that leaves a voxel open. "
            'Declare the value of unannotated voxels, such as "unlabelled": 255 beside labels',
        )
    return protocol


def _reach(
    distances: Mapping[str, Reach | None], labels: Labels | None, findings: Findings
) -> Reach | Mapping[int, Reach] | None:
    """Return ``reach_mm``: one distance for all classes, or class index -> distance; None if there is no valid one."""
    if ALL_CLASSES in distances:
        return distances[ALL_CLASSES]
    reach: dict[int, Reach] = {}
    for name, distance in distances.items():
        index = None if labels is None else _class_index(name, labels, findings)
        if index is not None and distance is not None:
            reach[index] = distance
    return reach or None


def _class_index(name: str, labels: Labels, findings: Findings) -> int | None:
    """Return the index of the foreground class ``name``; None after a fault."""
    foreground = {other: members for other, members in classes_by_name(labels).items() if 0 not in members}
    single = {other: next(iter(members)) for other, members in foreground.items() if len(members) == 1}
    if name in single:
        return single[name]
    given, expected = f"the name {name!r}", "a class declared in labels"
    fix = f"Choose among {listed(single, 20)}."
    if name in foreground:
        given = f"the region {name!r} of {len(foreground[name])} classes"
        expected = "the name of one class: a distance is promised per class, not per region"
    elif name in labels.class_names:
        given, expected = f"{name!r}", "a foreground class: background has no reach"
        fix = "Remove it; background_encloses is the promise about annotated background."
    else:
        fix += did_you_mean(name, single)
    findings.fault(f"{PROTOCOL}.reach_mm.{name}", found=given, expected=expected, fix=fix)
    return None
