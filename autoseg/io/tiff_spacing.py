"""Voxel size of a TIFF file, from its sidecar or the description of ImageJ or OME.

If only some edges are known, all of them are assumed to be 1 mm, with a remark. A known edge is never combined with an
assumed one: voxels of 0.5 um x 0.5 um x 1 mm would be wrong by a factor of a thousand.
"""

from __future__ import annotations

import html
import math
import re
from pathlib import Path
from typing import Any

import tifffile

from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import assumed_geometry, flat_spacing
from autoseg.io.sidecar import read_spacing
from autoseg.io.units import millimetres_per

Edges = tuple[float | None, float | None, float | None]
"""Voxel edges (z, y, x) in mm; None for an edge that the file does not state."""
UNKNOWN: Edges = (None, None, None)


def tiff_geometry(path: Path, file: tifffile.TiffFile, *, ndim: int) -> tuple[Geometry, str]:
    """Return the geometry of a file, and a remark if it is a stack with an unknown voxel edge; otherwise ""."""
    edges: Edges = read_spacing(path) or _imagej_edges(file) or _ome_edges(file) or UNKNOWN
    z, y, x = edges
    if y is not None and x is not None and (ndim == 2 or z is not None):
        return Geometry(spacing=flat_spacing(y, x) if z is None or ndim == 2 else (z, y, x), ndim=ndim), ""
    return assumed_geometry(ndim), _unknown(path, edges) if ndim == 3 else ""


def _unknown(path: Path, edges: Edges) -> str:
    """Return the remark that the voxel size is not known, with the way to state it."""
    known = {axis: edge for axis, edge in zip("zyx", edges, strict=True) if edge is not None}
    missing = [axis for axis in "zyx" if axis not in known]
    stated = ", ".join(f"{axis} {edge:.4g} mm" for axis, edge in known.items())
    problem = f"the voxel size in {', '.join(missing)} is not stated (only {stated})" if known else (
        "no voxel size is stated"
    )  # fmt: skip
    example = ", ".join(f"{known[axis]:.4g}" if axis in known else axis for axis in "zyx")
    return (
        f"{problem}, so 1 x 1 x 1 mm is assumed. Unless voxels are cubes, write the true size (z, y, x) in mm into "
        f'{path.absolute().parent.name}/<case>.json: {{"spacing": [{example}]}}'
    )


def _length(value: Any, unit: str) -> float | None:
    """Return a length in mm; None if the unit is unknown, or the value is 0 or not a finite number."""
    scale = millimetres_per(unit)
    try:
        number = abs(float(value))  # ImageJ writes a negative spacing for stacks that start at the bottom
    except (TypeError, ValueError):
        return None
    return number * scale if scale is not None and math.isfinite(number) and number > 0 else None


def _imagej_edges(file: tifffile.TiffFile) -> Edges | None:
    """Return the voxel edges in ImageJ's description; None if it has none.

    ImageJ writes ``yunit`` and ``zunit`` only if they differ from ``unit``. Pixels without a resolution are one unit.
    Source: ImageJ ``ij/io/FileOpener.java`` (``decodeDescriptionString``).
    """
    metadata = file.imagej_metadata or {}
    unit = str(metadata.get("unit", ""))
    tags = file.pages.first.tags
    edges = (
        _length(metadata.get("spacing"), str(metadata.get("zunit", unit))),
        _pixel_edge(tags.valueof("YResolution", (1, 1)), str(metadata.get("yunit", unit))),
        _pixel_edge(tags.valueof("XResolution", (1, 1)), unit),
    )
    return None if edges == UNKNOWN else edges


def _pixel_edge(resolution: Any, unit: str) -> float | None:
    """Return the edge of a pixel in mm. ``resolution`` is pixels per unit as a fraction; None if it is not valid."""
    scale = millimetres_per(unit)
    try:
        numerator, denominator = resolution
        edge = None if scale is None else scale / (numerator / denominator)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return edge if edge is not None and math.isfinite(edge) and edge > 0 else None


def _ome_edges(file: tifffile.TiffFile) -> Edges | None:
    """Return the voxel edges of the first image in an OME description; None if it has none.

    The default unit is the micrometre. Source: OME schema 2016-06, ``Pixels``.
    """
    tag = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", file.ome_metadata or "")
    if tag is None:
        return None
    values = {name: html.unescape(value) for name, _, value in re.findall(r"(\w+)\s*=\s*([\"'])(.*?)\2", tag.group())}
    z, y, x = (
        _length(values.get(f"PhysicalSize{axis}"), values.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"
    )
    return None if (z, y, x) == UNKNOWN else (z, y, x)
