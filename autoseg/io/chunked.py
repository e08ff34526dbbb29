"""Chunked arrays that tensorstore reads: Zarr 2 and 3 (sharded, too), OME-Zarr, N5, Neuroglancer Precomputed.

tensorstore works with threads, and ends a process that was forked after it was used. Workers must be started afresh or
by a fork server, as ``autoseg.core.parallel`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.boxes import Box
from autoseg.core.components import optional
from autoseg.core.errors import FileFormatError
from autoseg.core.findings import did_you_mean, listed
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import StoredHeader, assumed_geometry, unreadable
from autoseg.io.ome_zarr import EXTRA, Level, group_content, json_object, level_of
from autoseg.io.stored_array import StoredArray, number_type
from autoseg.io.units import millimetres_per

MARKS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", "attributes.json", "info")
"""Files by which a folder is known as an array or a group of arrays."""
UNNAMED_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
"""Axes of an array that does not name them. N5 and Precomputed have them in the opposite order."""


def is_chunked(folder: Path) -> bool:
    """Whether a folder is an array or a group of Zarr, N5 or Precomputed."""
    return any((folder / name).is_file() for name in MARKS)


def open_chunked(folder: Path, inner: str = "") -> StoredArray:
    """Return the array at the path ``inner`` of a folder; nothing of it is read but metadata.

    An image of OME-Zarr stands for its finest level, a group with one image, one label image or one array for that. Of
    Precomputed, ``inner`` is the key or the number of a scale.

    Raises
    ------
    ConfigError
        If tensorstore or yaozarrs is not installed; the message has the command that installs them.
    FileFormatError
        If there is no such array (the message lists those that are there), if a choice must be made, or if the array
        has axes or numbers that cannot be read.
    """
    tensorstore = optional("tensorstore", EXTRA)
    location = f"{folder}:{inner}" if inner else str(folder)
    if (folder / "info").is_file():
        return _opened(tensorstore, location, folder, {"driver": "neuroglancer_precomputed", **_scale(folder, inner)})
    array = _array_below(folder, inner.strip("/"))
    return _opened(tensorstore, location, array, {"driver": "auto"})


def pyramid(folder: Path, inner: str = "") -> tuple[tuple[str, Geometry], ...]:
    """Return location and geometry of each level of an OME-Zarr image, the finest first; () for any other array.

    Raises ``FileFormatError`` if the metadata are not valid.
    """
    group = folder / inner.strip("/")
    prefix = f"{inner.strip('/')}/" if inner.strip("/") else ""
    return tuple((f"{folder}:{prefix}{level.path}", level.geometry) for level in group_content(group).levels)


def metadata_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of metadata of all arrays and groups in a folder, and their folders; no chunks."""
    marks = tuple(folder / name for name in MARKS if (folder / name).is_file())
    try:
        names = _children(folder) if _kind(folder) == "group" and not (folder / "info").is_file() else []
    except FileFormatError:
        names = []
    chunks = (folder / "c",) if (folder / "c").is_dir() and "c" not in names else ()
    inner = (part for name in names for part in (folder / name, *metadata_files(folder / name)))
    return (*marks, *chunks, *inner)


def _kind(folder: Path) -> str:
    """Return "array", "group", or "" for any other folder. An N5 group may have no file of metadata."""
    if (folder / ".zarray").is_file():
        return "array"
    for name in ("zarr.json", "attributes.json"):
        if (folder / name).is_file():
            content = json_object(folder / name)
            return "array" if content.get("node_type") == "array" or "dimensions" in content else "group"
    if is_chunked(folder):
        return "group"
    return "group" if folder.is_dir() and _children(folder) else ""


def _children(folder: Path) -> list[str]:
    """Return the names of arrays and groups directly inside a group."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and is_chunked(path))


def _array_below(folder: Path, inner: str) -> Path:
    """Return the folder of the array at a path, or of the only one below it."""
    node = folder / inner
    kind = _kind(node)
    if kind == "array":
        return node
    if kind == "":
        names = [str(array.relative_to(folder)) for array in _arrays(folder)]
        if not names:
            found, fix = "a folder without metadata", "Check the path, or copy the whole folder again."
            raise unreadable(folder, found, f"Zarr, N5 or Precomputed ({', '.join(MARKS)})", fix)
        fix = f"Name one of them after the colon.{did_you_mean(inner, names, 0.6)}"
        raise unreadable(folder, f"the arrays {listed(names, 20)}", f"an array or a group {inner!r}", fix)
    content = group_content(node)
    if content.levels:
        return node / content.levels[0].path
    children = content.children or tuple(_children(node))
    if len(children) != 1:
        example = f"{folder}:{'/'.join(part for part in (inner, (children or ('NAME',))[0]) if part)}"
        found = f"a group of {listed(children, 20)}"
        raise unreadable(node, found, "one image or array", f"Name the one to read after a colon: {example}.")
    return _array_below(folder, "/".join(part for part in (inner, children[0]) if part))


def _arrays(folder: Path, depth: int = 3) -> list[Path]:
    """Return the folders of the arrays in a group, in the group's groups, and so on."""
    found = []
    for name in _children(folder) if folder.is_dir() else []:
        child = folder / name
        if _kind(child) == "array":
            found.append(child)
        elif depth:
            found += _arrays(child, depth - 1)
    return found


def _scale(folder: Path, inner: str) -> dict[str, Any]:
    """Return the part of tensorstore's specification that chooses a scale of Precomputed."""
    scales = [str(scale.get("key")) for scale in json_object(folder / "info").get("scales", [])]
    if inner in scales:
        return {"scale_index": scales.index(inner)}
    if inner == "" or (inner.isdigit() and int(inner) < len(scales)):
        return {"scale_index": int(inner or 0)}
    raise unreadable(folder, f"the scales {listed(scales)}", f"a scale {inner!r}", "Name one of them after the colon.")


@dataclass(frozen=True)
class _Axes:
    """Arrangement of the axes of a stored array."""

    letters: str
    """Letter of each axis, in the order of the file."""

    def index(self, box: Box) -> tuple[slice | int, ...]:
        """Return the index of a box: all channels, and the only time."""
        spatial = dict(zip("zyx", box.slices, strict=True))
        return tuple(0 if letter == "t" else spatial.get(letter, slice(None)) for letter in self.letters)

    def arranged(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array of the axes of the file but t, as (C, z, y, x)."""
        letters = self.letters.replace("t", "")
        ordered = [letter for letter in "czyx" if letter in letters]
        array = array.transpose([letters.index(letter) for letter in ordered])
        lacking = tuple(axis for axis, letter in enumerate("czyx") if letter not in letters)
        return np.expand_dims(array, lacking)

    def lengths(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return the numbers of ``shape`` as (C, z, y, x), 1 for axes that the file does not have."""
        by_letter = dict(zip(self.letters, shape, strict=True))
        c, z, y, x = (int(by_letter.get(letter, 1)) for letter in "czyx")
        return (c, z, y, x)


def _opened(tensorstore: Any, location: str, array: Path, spec: Mapping[str, Any]) -> StoredArray:
    try:
        kvstore = {"driver": "file", "path": f"{array}/"}
        store = tensorstore.open({**spec, "kvstore": kvstore}, read=True, open=True).result()
    except (ValueError, OSError) as error:
        fix = "Check the path, or export the array again."
        raise unreadable(array, f"an array that cannot be opened ({_reason(error)})", "a whole array", fix) from error
    store = store[tensorstore.d[:].translate_to[0]]
    driver = str(store.spec().to_json()["driver"])
    level = level_of(array) if driver.startswith("zarr") else None
    axes = _Axes(_letters(array, driver, tuple(store.domain.labels), tuple(store.shape), level))
    shape = axes.lengths(tuple(store.shape))
    _, *chunk = axes.lengths(tuple(store.chunk_layout.read_chunk.shape))
    geometry = level.geometry if level else _geometry(axes, store.dimension_units)
    dtype = number_type(array, "", np.dtype(store.dtype.numpy_dtype))

    def load(box: Box) -> NDArray[Any]:
        try:
            return axes.arranged(np.asarray(store[axes.index(box)].read().result()))
        except (ValueError, OSError) as error:
            problem = f"chunks in the box {box} that cannot be read ({_reason(error)})"
            raise unreadable(array, problem, "whole chunks", "Copy or write the array again.") from error

    header = StoredHeader(shape, geometry, level.remarks if level else ())
    return StoredArray(location, header, dtype, (chunk[0], chunk[1], chunk[2]), load)


def _letters(array: Path, driver: str, labels: tuple[str, ...], shape: tuple[int, ...], level: Level | None) -> str:
    """Return the letter of each axis. Raise ``FileFormatError`` for axes that are no volume."""
    n = len(shape)
    if level is not None and len(level.axes) == n:
        letters = level.axes
    elif driver == "neuroglancer_precomputed":
        letters = "xyzc"
    elif all(label.lower() in ("t", "c", "z", "y", "x") for label in labels) and len(set(labels)) == n:
        letters = "".join(labels).lower()
    else:
        letters = UNNAMED_AXES.get(n, "")
        letters = letters[::-1] if driver == "n5" else letters
    named = dict(zip(letters, shape, strict=False))
    if not {"y", "x"} <= set(letters) or 0 in shape:
        fix = "Save an array (y, x), (z, y, x) or (C, z, y, x)."
        raise unreadable(array, f"an array of shape {shape}", "2 to 4 axes, none of them empty", fix)
    if named.get("t", 1) > 1:
        found = f"an array with {named['t']} time points (axes {letters}, shape {shape})"
        raise unreadable(array, found, "one", "Save each time point as an array of its own.")
    return letters


def _geometry(axes: _Axes, units: Any) -> Geometry:
    """Return the geometry that units of the axes state, such as 4 nm; assumed if an axis has none."""
    ndim = 3 if "z" in axes.letters else 2
    sizes = {}
    for letter, unit in zip(axes.letters, units, strict=True):
        millimetres = millimetres_per(unit.base_unit) if unit is not None else None
        if letter in "zyx" and millimetres is not None:
            sizes[letter] = unit.multiplier * millimetres
    if ndim == 2 or len(sizes) < 3:
        return assumed_geometry(ndim)
    return Geometry(spacing=(sizes["z"], sizes["y"], sizes["x"]))


def _reason(error: Exception) -> str:
    """Return tensorstore's message without the specification and the places in its source that follow it."""
    text = str(error).split(" [tensorstore_spec")[0].split(" [source locations")[0]
    return " ".join(text.split()) or type(error).__name__
