"""A trial of a user's task: everything that it returns, for random logits and codes of a tiny case."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autoseg.core.components import call_component
from autoseg.core.errors import ConfigError
from autoseg.dataset.labels import Labels
from autoseg.tasks.decoded import decoded, finished
from autoseg.tasks.task import Task, task_of
from autoseg.training.objective import Objective

EDGES = (5, 6, 7)
"""Voxels (z, y, x) of the case with which a task is tried; (y, x) in two dimensions."""


def check_task(labels: Labels) -> None:
    """Try the task of a data set, unless it is built in.

    Raises
    ------
    ConfigError
        If a member of the task raises an exception, or has another type, shape or range than
        :class:`autoseg.tasks.task.Task` states. The message names the member.
    """
    if labels.task is None:
        return
    task = task_of(labels)
    _check_outputs(task)
    objective = Objective(task, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for shape in (EDGES[1:], EDGES):
        logits = 3 * torch.randn(2, len(task.outputs), *shape, generator=generator)
        codes = torch.randint(labels.n_classes + 1, (2, *shape), generator=generator).to(torch.uint8)
        with torch.random.fork_rng(devices=[]):
            _check_scores(task, logits)
            _check_score(task)
            if task.refinement is not None:
                _check_rules(task, objective, codes)
            values = decoded(task, logits[0].numpy())
    finished(task, values)


def _check_outputs(task: Task) -> None:
    """Check ``outputs`` and ``is_exclusive``."""
    outputs: Any = task.outputs
    is_named = isinstance(outputs, tuple) and bool(outputs) and all(isinstance(name, str) for name in outputs)
    if not is_named or len(set(outputs)) < len(outputs):
        raise _unexpected(task, f"outputs = {outputs!r}", "a tuple of names, each once, one for each output")
    if not isinstance(task.is_exclusive, bool):
        raise _unexpected(task, f"is_exclusive = {task.is_exclusive!r}", "True or False")
    if task.is_exclusive and task.labels.has_regions:
        raise _unexpected(
            task, "is_exclusive = True for a dataset.json with regions, which may overlap",
            "False, or labels without regions: a task that is made for classes cannot be used with regions",
        )  # fmt: skip


def _check_scores(task: Task, logits: Tensor) -> None:
    """Check ``scores`` and ``probabilities`` of logits (B, O, *P)."""
    expected = (len(logits), task.labels.n_heads, *logits.shape[2:])
    for method, function in (("scores", task.scores), ("probabilities", task.probabilities)):
        values = call_component("task", str(task.labels.task), function, logits)
        shown = f"{tuple(values.shape)}" if isinstance(values, Tensor) else f"an object of {type(values).__name__}"
        wanted = f"{expected}: a tensor (batch, classes or regions, *patch) of finite floating-point numbers"
        if not isinstance(values, Tensor) or tuple(values.shape) != expected or not values.is_floating_point():
            raise _unexpected(task, f"{method} returned {shown} for logits {tuple(logits.shape)}", wanted)
        if not bool(torch.isfinite(values).all()):
            raise _unexpected(task, f"{method} returned values that are not finite", wanted)
    if float(values.min()) < -1e-4 or float(values.max()) > 1 + 1e-4:
        found = f"{float(values.min()):.4g} to {float(values.max()):.4g}"
        raise _unexpected(task, f"probabilities returned values of {found}", "values of 0 to 1")
    if task.is_exclusive and not torch.allclose(values.sum(1), torch.ones(()), atol=1e-3):
        raise _unexpected(
            task, "probabilities of the classes of a voxel do not add up to 1", "a sum of 1, since is_exclusive is True"
        )  # fmt: skip


def _check_score(task: Task) -> None:
    """Check ``score`` of counts in which every row has 2 true positives, 1 false positive and 1 false negative."""
    n_rows = task.labels.n_heads
    counts = torch.tensor([[2], [1], [1]]).expand(3, n_rows)
    values: Any = call_component("task", str(task.labels.task), task.score, counts)
    is_sequence = isinstance(values, list | tuple) and len(values) == n_rows
    if not is_sequence or not all(value is None or isinstance(value, int | float) for value in values):
        raise _unexpected(
            task, f"score returned {values!r} for counts {tuple(counts.shape)}",
            f"{n_rows} numbers or None in a list, one for each class or region",
        )  # fmt: skip


def _check_rules(task: Task, objective: Objective, codes: Tensor) -> None:
    """Check ``refinement.rules`` of codes (B, *P): one per class, and one of all classes."""
    refinement, labels = task.refinement, task.labels
    if refinement is None:
        return
    table = torch.cat([torch.eye(labels.n_classes), torch.ones(1, labels.n_classes)]).bool()
    label_sets = table.expand(len(codes), -1, -1)
    rules = call_component("task", str(labels.task), refinement.rules, codes, label_sets, None)
    n_rules = len(refinement.sets)
    wanted = f"a tensor of whole numbers from 0 to {n_rules - 1} of the shape of the codes, {tuple(codes.shape)}"
    if not isinstance(rules, Tensor):
        raise _unexpected(task, f"refinement.rules returned an object of {type(rules).__name__}", wanted)
    if rules.shape != codes.shape or rules.is_floating_point() or rules.dtype == torch.bool:
        raise _unexpected(task, f"refinement.rules returned {tuple(rules.shape)} of {rules.dtype}", wanted)
    if int(rules.min()) < 0 or int(rules.max()) >= n_rules:
        found = f"refinement.rules returned {int(rules.min())} to {int(rules.max())}"
        raise _unexpected(task, found, wanted)
    if bool(rules[codes == labels.unknown].any()):
        raise _unexpected(task, "refinement.rules gave a rule to a voxel of which nothing is known", "rule 0 there")


def _unexpected(task: Task, found: str, expected: str) -> ConfigError:
    return ConfigError(
        f"task {task.labels.task!r}: {found}, expected {expected}. Correct the task; docs/extending.md has an example."
    )
