"""Read ``task`` of a dataset.json: what the outputs of the network mean, where labels alone do not say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoseg.core.components import is_named
from autoseg.core.findings import Findings, did_you_mean, shown
from autoseg.dataset.labels import Labels

BUILT_IN = ("semantic", "regions")
"""Tasks that follow from the labels; ``autoseg.tasks.task.TASKS`` has the same names."""


def parse_task(content: Mapping[str, Any], labels: Labels, findings: Findings) -> str | None:
    """Return the name of a task of the user's; None for a built-in one, which is that of the labels.

    A task that nobody knows, or that does not go with ``labels``, is added to ``findings``. The module of a task is not
    imported here, so that predictions can be evaluated without it.
    """
    if "task" not in content:
        return None
    name, own = content["task"], BUILT_IN[labels.has_regions]
    if not isinstance(name, str) or not is_named("task", name, BUILT_IN):
        hint = did_you_mean(name, BUILT_IN) if isinstance(name, str) else ""
        findings.fault(
            "task", found=shown(name), expected=f"one of {list(BUILT_IN)}, or 'package.module:attribute'",
            fix=f'Remove the key (it is "{own}" by the labels), or name a task of your own as docs/extending.md says.'
            + hint,
        )  # fmt: skip
    elif name in BUILT_IN and name != own:
        kind = "regions" if labels.has_regions else "classes without regions"
        findings.fault(
            "task", found=shown(name), expected=f'"{own}", since labels declares {kind}',
            fix="Remove the key, or change labels.",
        )  # fmt: skip
    elif name not in BUILT_IN:
        return name
    return None
