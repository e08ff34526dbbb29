"""A picture of the training patches of a run."""

from __future__ import annotations

from pathlib import Path

from autoseg.io.png import write_png
from autoseg.report.augmentation_sheet import draw_augmentation_sheet
from autoseg.report.batch_sheet import draw_batch_sheet
from autoseg.report.overlay import are_colours
from autoseg.sampling.patch_view import PatchView
from autoseg.training.preview import original_of, preview_patches
from autoseg.training.request import FoldRequest


def draw_patches(request: FoldRequest, number: int, iteration: int, path: Path) -> list[PatchView]:
    """Draw the first ``number`` patches from ``iteration`` on into the PNG file ``path``; return them.

    Errors as :func:`autoseg.training.preview.preview_patches`.
    """
    views = preview_patches(request, number, iteration)
    names, title = request.plan.channel_names, sheet_title(request, views)
    picture = draw_batch_sheet(views, request.dataset.labels, names, title=title, is_colour=_is_colour(request))
    write_png(path, picture)
    return views


def draw_augmentation(request: FoldRequest, number: int, iteration: int, path: Path) -> list[PatchView]:
    """Draw the first ``number`` patches from ``iteration`` on beside what they were before augmentation; return them.

    Errors as :func:`autoseg.training.preview.preview_patches`.
    """
    views = preview_patches(request, number, iteration)
    originals = [original_of(view, request) for view in views]
    names, title = request.plan.channel_names, sheet_title(request, views)
    picture = draw_augmentation_sheet(
        views, originals, request.dataset.labels, names, title=title, is_colour=_is_colour(request)
    )
    write_png(path, picture)
    return views


def _is_colour(request: FoldRequest) -> bool:
    """Whether the channels are red, green and blue."""
    names, norms = request.plan.channel_names, request.configuration.normalization
    return len(names) == 3 and (set(norms) == {"rgb_to_0_1"} or are_colours(names))


def sheet_title(request: FoldRequest, views: list[PatchView]) -> str:
    """Return one line that names data set, configuration, fold, iterations and augmentation of the patches."""
    config = request.config
    first, last = views[0].iteration, views[-1].iteration
    when = f"iteration {first}" if last == first else f"iterations {first} to {last}"
    shape = " x ".join(map(str, request.configuration.patch_size))
    return (
        f"{request.dataset.name}, {request.configuration.name}, fold {request.fold}, seed {config.seed}, {when}: "
        f"{len(views)} patches of {shape} voxels, augmentation {config.augmentation.name}"
    )
