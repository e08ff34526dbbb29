"""Recognition of DICOM files, which autoseg does not read, and the advice how to convert them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

ENDINGS = (".dcm", ".dicom", ".ima")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
"""Endings of files that hold a volume with its geometry."""
LOOKED_AT = 20
"""Number of files and of inner folders that are checked; one DICOM file is enough."""
MARK_AT = 128
"""Offset of the mark in a file, bytes."""
MARK = b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether the content of a file has the mark of DICOM. False if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MARK_AT + len(MARK))[MARK_AT:] == MARK
    except OSError:
        return False


def dicom_folder(folder: Path) -> Path | None:
    """Return ``folder`` if it holds DICOM files, otherwise the first folder in it that does; None without any."""
    if not folder.is_dir():
        return None
    inner = sorted(path for path in islice(folder.iterdir(), 1000) if path.is_dir())
    for place in (folder, *inner[:LOOKED_AT]):
        files = (path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
        if any(is_dicom(path) for path in islice(files, LOOKED_AT)):
            return place
    return None


def conversion(folder: Path | str, ending: str) -> str:
    """Return a sentence with the command that converts a folder of slices to one image file.

    The file has ``ending`` if that format holds a volume, otherwise ``.nii.gz``.
    """
    ending = ending if ending.lower() in VOLUME_ENDINGS else ".nii.gz"
    code = (
        "import SimpleITK as s; r = s.ImageSeriesReader(); "
        f"r.SetFileNames(r.GetGDCMSeriesFileNames('{folder}')); s.WriteImage(r.Execute(), 'case_0000{ending}')"
    )
    return f'Convert each series to one file: python -c "{code}"'
