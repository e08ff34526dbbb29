"""Sidecar of a TIFF stack: a small JSON file beside it that holds its spacing.

Source: nnU-Net ``imageio/tif_reader_writer.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from autoseg.core.atomic import write_json
from autoseg.io.file_contents import Spacing, unreadable

TIFF_ENDINGS = (".tif", ".tiff")


def sidecars(path: Path) -> tuple[Path, ...]:
    """Return the possible paths of the sidecar of a file, of which the first that exists is used; () if it is no TIFF.

    The channel number may be left out of the name: ``case_0000.tif`` has ``case_0000.json`` or ``case.json``.
    """
    if path.suffix.lower() not in TIFF_ENDINGS:
        return ()
    names = dict.fromkeys((path.stem, re.sub(r"_\d{4}$", "", path.stem)))
    return tuple(path.with_name(f"{name}.json") for name in names)


def read_spacing(path: Path) -> Spacing | None:
    """Return the spacing (z, y, x) in mm from the sidecar of ``path``; None without a sidecar.

    A spacing (y, x) gets z = 1. Raises ``FileFormatError`` if the sidecar has no valid spacing.
    """
    sidecar = next((name for name in sidecars(path) if name.is_file()), None)
    return None if sidecar is None else spacing_in(sidecar)


def spacing_in(sidecar: Path) -> Spacing:
    """Return the spacing (z, y, x) in mm from a JSON file; (y, x) gets z = 1. Raises ``FileFormatError`` if invalid."""
    reason = ""
    try:
        edges = [float(edge) for edge in json.loads(sidecar.read_text(encoding="utf-8"))["spacing"]]
    except (ValueError, KeyError, TypeError) as error:
        edges = []
        reason = f" ({error!r})"
    if len(edges) not in (2, 3) or not all(np.isfinite(edge) and edge > 0 for edge in edges):
        raise unreadable(
            sidecar, f"no spacing of 3 edges above 0{reason}", '{"spacing": [z, y, x]} in mm', "Correct the file."
        )
    z, y, x = edges if len(edges) == 3 else (1.0, *edges)
    return (z, y, x)


def states_spacing(path: Path) -> bool:
    """Whether a file exists and is a JSON object with the key "spacing", of whatever value."""
    try:
        content = json.loads(path.read_bytes()) if path.is_file() else None
    except ValueError:
        return False
    return isinstance(content, dict) and "spacing" in content


def write_spacing(path: Path, spacing: Spacing) -> None:
    """Write the spacing (z, y, x) in mm to the sidecar of ``path``, atomically."""
    write_json(path.with_suffix(".json"), {"spacing": list(spacing)})
