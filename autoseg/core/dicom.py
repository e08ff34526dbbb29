"""Recognise DICOM files, which are not read, and say how to convert them: a folder of slices is a common input."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

ENDINGS = (".dcm", ".dicom", ".ima")
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
"""Of files that hold a volume with its geometry."""
LOOKED_AT = 20
"""Files of a folder that are looked at: one that is DICOM is enough."""
MARK_AT = 128
MARK = b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM, whatever its name; False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(MARK_AT + len(MARK))[MARK_AT:] == MARK
    except OSError:
        return False


def dicom_folder(folder: Path) -> Path | None:
    """Return ``folder``, or the first folder in it, that holds DICOM files; None if there is none."""
    if not folder.is_dir():
        return None
    inner = sorted(path for path in islice(folder.iterdir(), 1000) if path.is_dir())
    for place in (folder, *inner[:LOOKED_AT]):
        files = (path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
        if any(is_dicom(path) for path in islice(files, LOOKED_AT)):
            return place
    return None


def conversion(folder: Path | str, ending: str) -> str:
    """Return the advice how to make one image file of a folder of slices, with ``ending`` if that holds a volume."""
    ending = ending if ending.lower() in VOLUME_ENDINGS else ".nii.gz"
    code = (
        "import SimpleITK as s; r = s.ImageSeriesReader(); "
        f"r.SetFileNames(r.GetGDCMSeriesFileNames('{folder}')); s.WriteImage(r.Execute(), 'case_0000{ending}')"
    )
    return f'Convert each series to one file: python -c "{code}"'
