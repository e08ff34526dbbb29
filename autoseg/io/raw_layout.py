"""Lay out the images of a data set anew as nnU-Net does, for commands that make one data set of another."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from autoseg.dataset.dataset import CaseFiles
from autoseg.io.metaimage import join_meta
from autoseg.io.sidecar import sidecars


def put_images(cases: Iterable[CaseFiles], ending: str, folder: Path, *, copy: bool = False) -> None:
    """Link (or copy) the images of ``cases`` into ``folder`` as ``<case>_<CCCC><ending>``, replacing what is there.

    The spacing of a TIFF stack lies in a JSON file beside it, which goes along. Images with the ending ``.mhd``, whose
    data lie in a file beside them, are written as single files where ``ending`` is ``.mha``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        for number, image in enumerate(case.images):
            put_image(image, folder / f"{case.name}_{number:04d}{ending}", copy=copy)


def put_image(source: Path, target: Path, *, copy: bool = False) -> None:
    """Make ``target`` a link to (or a copy of) the image ``source``, with the sidecar that says its spacing."""
    if (source.suffix.lower(), target.suffix.lower()) == (".mhd", ".mha"):
        target.unlink(missing_ok=True)
        join_meta(source, target)
        return
    put_file(source, target, copy=copy)
    sidecar = next((path for path in sidecars(source) if path.is_file()), None)
    if sidecar is not None:
        put_file(sidecar, sidecars(target)[-1], copy=copy)  # without the channel number, as nnU-Net looks for it


def put_file(source: Path, target: Path, *, copy: bool = False) -> None:
    """Make ``target`` a symbolic link to (or a copy of) ``source``, replacing what is there."""
    target.unlink(missing_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())
