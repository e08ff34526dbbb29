"""Agreement of several models, which is needed for one mean: the same classes, channels and axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoseg.core.errors import ModelError
from autoseg.core.findings import listed
from autoseg.dataset.labels import Labels
from autoseg.inference.model import Model


def check_agreement(models: Sequence[Model]) -> None:
    """Raise ``ModelError`` unless the predictions of all models can be averaged.

    Needed are the same classes, regions and file values, by name, in any order; the same channels in the same order;
    the same axes, and a crop in all or none. One model agrees with itself. Tasks of users are refused, because they
    decode logits, of which several models have no mean.
    """
    if not models:
        raise ModelError("models: found none, expected at least one. Name a model folder.")
    first, *others = models
    if others and first.dataset.labels.task is not None:
        raise ModelError(
            f"{first.folder}: found the task {first.dataset.labels.task!r}, expected classes or regions: a task of "
            "one's own decodes logits, and of several model folders probabilities are averaged. Give one model folder."
        )
    folders = [model.folder.resolve() for model in models]
    for model, folder in zip(models, folders, strict=True):
        if folders.count(folder) > 1:
            raise ModelError(f"{model.folder}: found the model folder twice, expected each once. Drop one.")
    for other in others:
        found = [*_class_differences(first.dataset.labels, other.dataset.labels), *_grid_differences(first, other)]
        if found:
            raise ModelError(
                f"{other.folder}: found {'; '.join(found)} than in {first.folder}, expected models of one data set. "
                "Give models with the same classes and channels."
            )


def matched_heads(first: Labels, other: Labels) -> tuple[int, ...]:
    """Return for each head (or target of a regression) of ``first`` the index of that of ``other`` with its name."""
    if first.targets:
        return tuple(other.targets.index(name) for name in first.targets)
    names = [head.name for head in other.heads]
    return tuple(names.index(head.name) for head in first.heads)


def _class_differences(first: Labels, other: Labels) -> Iterator[str]:
    """Yield in which classes, regions, their values, or targets two data sets differ, each as "other ... (...)"."""
    if (first.task, first.instances) != (other.task, other.instances) or set(first.targets) != set(other.targets):
        tasks = [_task(labels) for labels in (other, first)]
        yield f"another task ({tasks[0]} instead of {tasks[1]})"
        return
    kind = "regions" if first.has_regions else "classes"
    mine, theirs = ({head.name: head.values for head in labels.heads} for labels in (first, other))
    if mine.keys() != theirs.keys():
        yield f"other {kind} ({_exchanged(set(mine), set(theirs))})"
        return
    changed = [name for name in mine if mine[name] != theirs[name]]
    values = [f"{name} {listed(map(str, theirs[name]))} instead of {listed(map(str, mine[name]))}" for name in changed]
    if values:
        yield f"other values of {kind} ({'; '.join(values)})"
    elif _painted(first) != _painted(other):
        yield "another regions_class_order"


def _task(labels: Labels) -> str:
    """Return the task in words: targets of a regression, instances, a user's task, or classes."""
    if labels.targets:
        return listed(labels.targets)
    if labels.instances is not None:
        per_class, offsets = labels.instances.per_class, labels.instances.offsets
        words = [f"instances_per_class {per_class}"] if per_class is not None else []
        words += [f"affinities {[list(offset) for offset in offsets]}"] if offsets else []
        return f"instances with {' and '.join(words)}" if words else "instances"
    return labels.task or "classes"


def _painted(labels: Labels) -> dict[str, int]:
    """Return the value with which each region is painted; {} for classes."""
    return dict(zip((head.name for head in labels.heads), labels.paint_values or (), strict=False))


def _exchanged(mine: set[str], theirs: set[str]) -> str:
    """Return which names are missing in ``theirs``, and which it has besides."""
    parts = [f"without {listed(sorted(mine - theirs))}"] if mine - theirs else []
    return ", ".join([*parts, *([f"also {listed(sorted(theirs - mine))}"] if theirs - mine else [])])


def _grid_differences(first: Model, other: Model) -> Iterator[str]:
    """Yield in what the inputs of two models differ, or the grid on which they meet."""
    if first.dataset.channels != other.dataset.channels:
        yield f"other channels ({listed(other.dataset.channels)} instead of {listed(first.dataset.channels)})"
    plans = first.plan, other.plan
    if len({plan.transpose_forward for plan in plans}) > 1 or len({plan.direction for plan in plans}) > 1:
        yield "another order of the axes in plans.json (average their saved probabilities instead)"
    if len({plan.is_of_2d_images for plan in plans}) > 1:
        yield "training images of another number of axes in plans.json (average their saved probabilities instead)"
    if len({plan.crop for plan in plans}) > 1:
        yield "another crop in plans.json (average their saved probabilities instead)"
