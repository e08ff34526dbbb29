"""Write images in nnU-Net's folder layout, for commands that make a new data set from an existing one."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from autoseg.dataset.dataset import CaseFiles
from autoseg.io.metaimage import join_meta
from autoseg.io.sidecar import sidecars


def put_images(cases: Iterable[CaseFiles], ending: str, folder: Path, *, copy: bool = False) -> None:
    """Link (or copy) the images of ``cases`` into ``folder`` as ``<case>_<CCCC><ending>``, replacing existing files.

    The JSON file with the spacing of a TIFF stack is linked or copied too. If ``ending`` is ``.mha``, images with the
    ending ``.mhd`` (header and data in two files) are written as single files. Volumes are read where they lie: of
    parts of them nothing is written.
    """
    for case in (case for case in cases if case.volume is None):
        folder.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(case.images):
            put_image(image, folder / f"{case.name}_{number:04d}{ending}", copy=copy)


def put_image(source: Path, target: Path, *, copy: bool = False) -> None:
    """Make ``target`` a link to (or a copy of) the image ``source``; the JSON file with its spacing goes along."""
    if (source.suffix.lower(), target.suffix.lower()) == (".mhd", ".mha"):
        target.unlink(missing_ok=True)
        join_meta(source, target)
        return
    put_file(source, target, copy=copy)
    sidecar = next((path for path in sidecars(source) if path.is_file()), None)
    if sidecar is not None:
        put_file(sidecar, sidecars(target)[-1], copy=copy)  # named without the channel number, as nnU-Net expects


def put_file(source: Path, target: Path, *, copy: bool = False) -> None:
    """Make ``target`` a symbolic link to (or a copy of) ``source``, replacing an existing file."""
    target.unlink(missing_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())
