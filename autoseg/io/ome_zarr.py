"""OME-Zarr metadata (0.4 and 0.5): axes, levels of a pyramid with their voxel sizes, and groups of labels."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoseg.core.components import optional
from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import assumed_geometry, flat_spacing, unreadable
from autoseg.io.units import millimetres_per

EXTRA = "zarr"
"""Extra of the package that installs yaozarrs and tensorstore."""
SPATIAL = "zyx"
DEFAULT_UNIT = "micrometer"
"""Unit of spatial axes that state none. OME-TIFF has the same; OME-Zarr has no default."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of a pyramid."""

    path: str
    """Path of the array, relative to the group."""
    axes: str
    """Letter of each axis of the array, in its order: t, c, z, y, x."""
    geometry: Geometry
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupContent:
    """Images of a group, as its metadata list them."""

    levels: tuple[Level, ...] = ()
    """Levels of the group's image, the finest first; () if it has none."""
    children: tuple[str, ...] = ()
    """Paths of groups with images, relative to the group: labels, or series of one file."""


def group_content(folder: Path) -> GroupContent:
    """Return the images of a Zarr group; nothing if it has no OME-Zarr metadata.

    Raises ``FileFormatError`` if the metadata are not valid (the message has the reasons), or of a version that is not
    supported.
    """
    metadata = _attributes(folder)
    if metadata is None:
        return GroupContent()
    yaozarrs = optional("yaozarrs", EXTRA)
    fix = "Name the array itself after a colon; its voxel size is then not known."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what the format only recommends
            group = yaozarrs.validate_ome_object(metadata)
    except ValidationError as error:
        faults = dict.fromkeys(item["msg"].removeprefix("Value error, ") for item in error.errors())
        problem = f"OME-Zarr metadata that are not valid ({'; '.join(list(faults)[:3])})"
        raise unreadable(folder, problem, "OME-Zarr 0.4 or 0.5", fix) from error
    ome = group.attributes.ome if hasattr(group, "attributes") else group
    if hasattr(ome, "multiscales"):
        if len(ome.multiscales) > 1:
            raise unreadable(folder, f"{len(ome.multiscales)} pyramids in one group", "one", fix)
        return GroupContent(levels=_levels(ome.multiscales[0]))
    children = getattr(ome, "labels", None) or getattr(ome, "series", None) or ()
    return GroupContent(children=tuple(children))


def level_of(array: Path) -> Level | None:
    """Return what the metadata of an enclosing group say about an array; None if none of them describes it.

    Metadata that are not valid are passed over.
    """
    for depth, group in enumerate(array.parents):
        path = "/".join(array.parts[-depth - 1 :])
        with suppress(FileFormatError):
            for level in group_content(group).levels:
                if level.path.strip("/") == path:
                    return level
        if depth >= 3 or not any((group / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
            return None
    return None


def json_object(path: Path) -> dict[str, Any]:
    """Return the content of a file of metadata. Raise ``FileFormatError`` if it is no JSON object."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise unreadable(path, f"a file that is no JSON ({error})", "metadata", "Copy or write it again.") from error
    if not isinstance(content, dict):
        raise unreadable(path, f"JSON of type {type(content).__name__}", "an object", "Copy or write it again.")
    return content


def _attributes(folder: Path) -> dict[str, Any] | None:
    """Return the content of ``.zattrs``, or of the ``zarr.json`` of a group, if it has keys of OME-Zarr; else None."""
    for name in ("zarr.json", ".zattrs"):
        path = folder / name
        if not path.is_file():
            continue
        content = json_object(path)
        if name == ".zattrs":
            known = ("multiscales", "labels", "series", "plate", "well", "bioformats2raw.layout")
            return content if any(key in content for key in known) else None
        is_ome = content.get("node_type") == "group" and "ome" in content.get("attributes", {})
        return content if is_ome else None
    return None


def _levels(multiscale: Any) -> tuple[Level, ...]:
    axes = _axis_letters(multiscale.axes)
    overall = _transformation(multiscale.coordinateTransformations or (), len(axes))
    found = []
    for dataset in multiscale.datasets:
        scale, shift = _transformation(dataset.coordinateTransformations, len(axes))
        edges = [one * other for one, other in zip(scale, overall[0], strict=True)]
        origin = [at * s + offset for at, s, offset in zip(shift, *overall, strict=True)]
        geometry, remarks = _geometry(axes, multiscale.axes, edges, origin)
        found.append(Level(dataset.path, axes, geometry, remarks))
    return tuple(found)


def _axis_letters(axes: Any) -> str:
    """Return one letter for each axis. Spatial axes with other names than z, y, x are taken in this order."""
    spatial = [axis.name.lower() for axis in axes if axis.type == "space"]
    names = spatial if set(spatial) <= set(SPATIAL) and len(set(spatial)) == len(spatial) else SPATIAL[-len(spatial) :]
    in_order = iter(names)
    return "".join(next(in_order) if axis.type == "space" else "t" if axis.type == "time" else "c" for axis in axes)


def _transformation(transformations: Any, n_axes: int) -> tuple[list[float], list[float]]:
    """Return scale and translation of a list of transformations, 1 and 0 where they are not given."""
    scale, shift = [1.0] * n_axes, [0.0] * n_axes
    for item in transformations:
        scale = list(getattr(item, "scale", scale))
        shift = list(getattr(item, "translation", shift))
    return scale, shift


def _geometry(letters: str, axes: Any, edges: list[float], origin: list[float]) -> tuple[Geometry, tuple[str, ...]]:
    """Return the geometry in mm, and a remark if an axis has no unit of length."""
    ndim = 3 if "z" in letters else 2
    units = {letter: axis.unit for letter, axis in zip(letters, axes, strict=True) if letter in SPATIAL}
    placed = {letter: (edge, at) for letter, edge, at in zip(letters, edges, origin, strict=True) if letter in SPATIAL}
    millimetres = {letter: millimetres_per(unit or "") for letter, unit in units.items()}
    unknown = [letter for letter in SPATIAL if letter in units and millimetres[letter] is None]
    if unknown and all(edge == 1 for edge, _ in placed.values()):
        return assumed_geometry(ndim), ()
    remarks: tuple[str, ...] = ()
    if unknown:
        remarks = (f"no unit of length is stated for {', '.join(unknown)}; {DEFAULT_UNIT} is assumed",)
    default = millimetres_per(DEFAULT_UNIT) or 1.0
    sizes = {letter: edge * (millimetres[letter] or default) for letter, (edge, _) in placed.items()}
    starts = {letter: at * (millimetres[letter] or default) for letter, (_, at) in placed.items()}
    spacing = (sizes["z"], sizes["y"], sizes["x"]) if ndim == 3 else flat_spacing(sizes["y"], sizes["x"])
    return Geometry(spacing=spacing, origin=(starts["x"], starts["y"], starts.get("z", 0.0)), ndim=ndim), remarks
