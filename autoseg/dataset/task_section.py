"""The key ``task`` of a dataset.json: the meaning of the network's outputs, if labels alone do not determine it."""

from __future__ import annotations

from autoseg.core.components import is_named
from autoseg.core.findings import Findings, did_you_mean, shown
from autoseg.dataset.labels import Labels

BUILT_IN = ("semantic", "regions")
"""Tasks that follow from the labels; ``autoseg.tasks.task.TASKS`` has the same names."""


def read_task(name: str | None, labels: Labels, findings: Findings) -> str | None:
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
