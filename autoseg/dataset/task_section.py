"""The keys ``task`` and ``targets`` of a dataset.json: the meaning of the network's outputs."""

from __future__ import annotations

from dataclasses import replace

from autoseg.core.components import is_named
from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.file_values import NAN_VALUE
from autoseg.dataset.instance_numbers import LARGEST_NUMBER, InstanceNumbers, Offset
from autoseg.dataset.label_section import read_labels
from autoseg.dataset.labels import Head, Labels
from autoseg.dataset.schema import (
    AFFINITIES,
    BACKGROUND,
    IGNORE,
    INSTANCES,
    ORDER,
    PER_CLASS,
    PROTOCOL,
    REGRESSION,
    TARGETS,
    DatasetFile,
)

BUILT_IN = ("semantic", "regions", INSTANCES, REGRESSION)
"""Tasks that follow from labels, as in ``autoseg.tasks.task.TASKS``; then those that dataset.json must name."""
OF_CLASSES = ("labels", "label_sets", "label_weights", "lazy_semantics", ORDER, PROTOCOL, "expert_fusion")
"""Keys that speak of classes, which regression has none of."""


def read_task_labels(file: DatasetFile, findings: Findings) -> Labels | None:
    """Return the labels that a dataset.json declares, or the targets of a regression, with the name of a user's task.

    Without ``label_sets`` and ``cases``. None after a fault in these keys.
    """
    if file.schema.task == REGRESSION:
        return _read_targets(file, findings)
    if TARGETS in file.content:
        findings.fault(
            TARGETS, found="the key beside another task", expected='"task": "regression", of which it is a part',
            fix='Write "task": "regression" if label files hold numbers to be predicted; otherwise remove the key.',
        )  # fmt: skip
    for key in (PER_CLASS, AFFINITIES):
        if key in file.content and file.schema.task != INSTANCES:
            findings.fault(
                key, found="the key beside another task", expected='"task": "instances", of which it is a part',
                fix='Write "task": "instances" if label files hold numbers of objects; otherwise remove the key.',
            )  # fmt: skip
    labels = read_labels(file, findings)
    if labels is None:
        return None
    if file.schema.task == INSTANCES:
        return _with_instances(file, labels, findings)
    return replace(labels, task=_read_task(file.schema.task, labels, findings))


def _with_instances(file: DatasetFile, labels: Labels, findings: Findings) -> Labels | None:
    """Return the labels of a data set whose label files hold numbers of objects; None after a fault."""
    n_faults, per_class = len(findings.faults), file.schema.instances_per_class
    for key in ("label_sets", "label_weights", ORDER):
        if key in file.content:
            findings.fault(
                key, found="the key beside the task instances",
                expected="classes without regions, sets of classes, and weights",
                fix='Remove it; for regions, sets of classes, or weights remove "task" instead.',
            )  # fmt: skip
    for case, entry in file.schema.cases.items():
        if entry is not None and entry.experts:
            findings.fault(
                f"cases.{case}.experts", found="masks of several experts beside the task instances",
                expected="one label file, since experts number objects each in his own way",
                fix="Remove experts, and put a label file into labelsTr. Or fuse the masks to classes, with gaps "
                "between objects that touch: autoseg_fuse_experts MASKS -o DATASET --images IMAGES --instances",
            )  # fmt: skip
    if labels.has_regions and ORDER not in file.content:
        findings.fault("labels", found="regions", expected="one value per class", fix="Write one value per class.")
    if labels.ignore is not None:
        findings.fault(
            f"labels.{IGNORE}", found=str(labels.ignore), expected="no ignore label, which could be an object's number",
            fix='Write "unlabelled": 65535 beside labels (or the value that unannotated voxels have).',
        )  # fmt: skip
    n_classes = labels.n_classes - 1
    if per_class is None and n_classes > 1:
        findings.fault(
            "labels", found=f"{n_classes} classes of objects", expected=f'one, or the key "{PER_CLASS}"',
            fix=f'Write objects of class c as c * 1000 + number in the label files, and "{PER_CLASS}": 1000.',
        )  # fmt: skip
    most = LARGEST_NUMBER // (max(labels.class_values) + 1)
    if per_class is not None and n_classes > 0 and per_class > most:
        findings.fault(
            PER_CLASS, found=str(per_class), expected=f"at most {most}, as no value may be above {LARGEST_NUMBER}",
            fix="Write a smaller number here and in the label files, or smaller values of classes.",
        )  # fmt: skip
    offsets = _read_offsets(file.schema.affinities, findings)
    is_sound = len(findings.faults) == n_faults
    return replace(labels, instances=InstanceNumbers(per_class, offsets)) if is_sound else None


def _read_offsets(offsets: list[list[int]], findings: Findings) -> tuple[Offset, ...]:
    """Return the offsets of ``affinities``; faults are added to ``findings``."""
    found = tuple((z, y, x) for z, y, x in offsets)
    wrong = [list(offset) for offset in found if sum(step != 0 for step in offset) != 1]
    if wrong:
        findings.fault(
            AFFINITIES, found=f"{wrong[0]}", expected="offsets along one axis: one number of three is not 0",
            fix="Write for example [0, -9, 0], 9 voxels along y.",
        )  # fmt: skip
    axes = [[abs(step) for step in offset] for offset in found]
    if any(axes.count(offset) > 1 for offset in axes):
        findings.fault(
            AFFINITIES, found="a pair of voxels twice", expected="each distance along an axis once, in one direction",
            fix="Remove one: [0, 1, 0] is [0, -1, 0] seen from the other voxel.",
        )  # fmt: skip
    if found and not any(sum(offset) == 1 for offset in axes):
        findings.fault(
            AFFINITIES, found="no nearest neighbours", expected="at least one offset of one voxel, which parts objects",
            fix="Add [0, -1, 0] and [0, 0, -1], in 3-D [-1, 0, 0] too.",
        )  # fmt: skip
    return found


def _read_targets(file: DatasetFile, findings: Findings) -> Labels | None:
    """Return the labels of a regression; None after a fault in ``targets``."""
    for key in OF_CLASSES:
        if key in file.content:
            findings.fault(
                key, found="the key beside the task regression", expected="no classes: label files hold numbers",
                fix='Remove it; if label files hold classes, remove "task" and "targets" instead.',
            )  # fmt: skip
    for case, entry in file.schema.cases.items():
        if entry is not None and (entry.annotated is not None or entry.absent or entry.experts):
            findings.fault(
                f"cases.{case}", found="annotated or absent classes, or experts",
                expected="no classes: label files hold numbers",
                fix="Remove annotated, absent and experts; priority and group may stay.",
            )  # fmt: skip
    names = file.schema.targets
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        findings.fault(
            TARGETS, found=f"{listed(repeated)} more than once", expected="a name of its own for each target",
            fix="Rename all but one.",
        )  # fmt: skip
    if repeated or not names:
        return None
    return target_labels(tuple(names), file.schema.unlabelled)


def target_labels(names: tuple[str, ...], no_number: int | None) -> Labels:
    """Return the labels of a regression.

    Parameters
    ----------
    names
        One per channel of the label files, at least one.
    no_number
        Number of voxels of which nothing is known; NaN always is one.
    """
    return Labels(
        class_values=(0, 1),
        class_names=(BACKGROUND, "known"),
        heads=tuple(Head(name, (1,), (1,)) for name in names),
        unlabelled=NAN_VALUE,
        targets=names,
        no_number=None if no_number == NAN_VALUE else no_number,
    )


def _read_task(name: str | None, labels: Labels, findings: Findings) -> str | None:
    """Return the name of a user's task; None for a built-in task, which follows from the labels.

    A name that is unknown, or does not fit ``labels``, adds a fault to ``findings``. The module of a task is not
    imported here, so that predictions can be evaluated without it.
    """
    own = BUILT_IN[labels.has_regions]
    if name is None or name == own:
        return None
    if not is_named("task", name, BUILT_IN):
        findings.fault(
            "task", found=shown(name), expected=f"one of {list(BUILT_IN)}, or 'package.module:attribute'",
            fix=f'Remove the key (it is "{own}" by the labels), or name a task of your own as docs/extending.md says.'
            + did_you_mean(name, BUILT_IN),
        )  # fmt: skip
    elif name in BUILT_IN:
        kind = "regions" if labels.has_regions else "classes without regions"
        findings.fault(
            "task", found=shown(name), expected=f'"{own}", since labels declares {kind}',
            fix="Remove the key, or change labels.",
        )  # fmt: skip
    else:
        return name
    return None
