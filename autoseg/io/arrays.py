"""Arrays by their location: one function that opens whatever a path, with or without a name in the file, stands for.

docs/volumes.md lists the formats. Every array is read box by box, whatever its size
(:class:`autoseg.io.stored_array.StoredArray`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.core.errors import Fault, FileFormatError
from autoseg.core.findings import did_you_mean
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.core.location import HDF5_ENDINGS, parse_location, split_box
from autoseg.io.chunked import is_chunked, open_chunked, pyramid
from autoseg.io.file_arrays import open_image_file, open_npy
from autoseg.io.file_contents import unreadable
from autoseg.io.file_formats import SUPPORTED_ENDINGS
from autoseg.io.hdf5 import open_hdf5
from autoseg.io.sections import open_sections
from autoseg.io.sidecar import spacing_in, states_spacing
from autoseg.io.stored_array import StoredArray, joined_channels, part_of
from autoseg.io.tiff_boxes import open_tiff
from autoseg.io.tile_json import open_tiles

TIFF_ENDINGS = (".tif", ".tiff")


def open_array(location: str | Path, *, as_labels: bool = False) -> StoredArray:
    """Open an array. At most one section or tile of it is read, unless the format can only be read whole.

    Parameters
    ----------
    location
        Path of a file or folder; after a colon the name of an array in it: ``cubes.h5:raw``, ``volume.zarr``,
        ``volume.zarr:1`` (a level), ``volume.zarr:labels/cells/0``, ``tiles.json``, ``sections/``, ``stack.tif``. A box
        may follow, ``volume.zarr:1[0:30, 64:128, 0:64]`` (z, y, x), which is then the array. Labels that have the shape
        of the box are those of the box, whichever it is.
    as_labels
        Whether the values are labels: pictures with a palette then give its indices, colours of tiles stand for
        numbers, nothing is interpolated, and lossy formats are refused.

    Returns
    -------
    array
        (C, z, y, x). If the format states no voxel size, that of ``<name>.json`` beside it holds
        (``{"spacing": [z, y, x]}`` in mm).

    Raises
    ------
    ConfigError
        If a package that the format needs is not installed; the message has the command that installs it.
    FileFormatError
        If there is no such file or array, or if it cannot be read; if the box is empty, or leaves the array.
    """
    whole, box = split_box(location)
    if box is not None:
        return part_of(open_array(whole, as_labels=as_labels), box, has_own_shape=as_labels)
    path, name = parse_location(location)
    array = _opened(path, name, as_labels=as_labels)
    beside = path.with_suffix(".json") if path.suffix else path.with_name(f"{path.name}.json")
    is_assumed = array.geometry.metadata.get("spacing") == ASSUMED
    if not is_assumed or array.geometry.ndim == 2:
        return array
    if beside == path or not states_spacing(beside):
        unknown = array.header.unknown_size or _unknown_size(beside)
        return replace(array, header=array.header._replace(unknown_size=unknown))
    geometry = Geometry(spacing=spacing_in(beside))
    return replace(array, header=array.header._replace(geometry=geometry, unknown_size=""))


def _unknown_size(file: Path) -> str:
    """Return a remark on a volume without voxel size, which ``file`` could state: it is planned as if of cubes."""
    return (
        "no voxel size is stated; 1 x 1 x 1 mm is assumed. Unless voxels are cubes, state it, in mm, in "
        f'{file.name}: {{"spacing": [z, y, x]}}'
    )


def open_volume(locations: Sequence[str | Path]) -> StoredArray:
    """Open a volume whose channels are spread over one or more arrays; see :func:`open_array`.

    Parameters
    ----------
    locations
        At least one, in the order of the channels; each array may hold several.

    Returns
    -------
    array
        (C, z, y, x) with the channels of all of them, in a type that holds the values of each. A voxel is missing if it
        is missing in any of them. The geometry is that of the first.

    Raises
    ------
    ConfigError, FileFormatError
        As :func:`open_array`; also if the arrays differ in shape or voxel size.
    """
    arrays = [open_array(location) for location in locations]
    first = arrays[0]
    for other in arrays[1:]:
        if other.spatial_shape != first.spatial_shape or other.geometry.differs_from(first.geometry):
            found = f"{other.spatial_shape} voxels of {other.geometry.spacing} mm (z, y, x)"
            expected = f"{first.spatial_shape} voxels of {first.geometry.spacing} mm, as in {first.location}"
            raise FileFormatError(Fault(other.location, found, expected, "Give the channels of one volume."))
    return first if len(arrays) == 1 else joined_channels(arrays)


def levels(location: str | Path) -> tuple[tuple[str, Geometry], ...]:
    """Return location and geometry of each level of an OME-Zarr image, the finest first; () for any other array.

    A level near the wanted voxel size saves reading, and resampling, of finer ones. The arrays are not opened. Raises
    ``FileFormatError`` if the metadata are not valid.
    """
    path, name = parse_location(location)
    return pyramid(path, name) if path.is_dir() else ()


def _opened(path: Path, name: str, *, as_labels: bool) -> StoredArray:
    ending = path.suffix.lower()
    if path.is_dir() and (is_chunked(path) or name or ending in (".zarr", ".n5")):
        return open_chunked(path, name)
    if ending in HDF5_ENDINGS:
        return open_hdf5(path, name or None)
    if not path.exists():
        raise _no_such(path)
    if name:
        fix = "Leave out the colon and what follows it."
        raise unreadable(path, f"the name {name!r} of an array in a file of one array", "a path alone", fix)
    if path.is_dir():
        return open_sections(path, as_labels=as_labels)
    if ending == ".json":
        return open_tiles(path, as_labels=as_labels)
    if ending == ".npy":
        return open_npy(path)
    if ending in TIFF_ENDINGS:
        return open_tiff(path, as_labels=as_labels)
    if path.name.lower().endswith(SUPPORTED_ENDINGS):
        return open_image_file(path, as_labels=as_labels)
    known = (*HDF5_ENDINGS, ".zarr", ".n5", ".npy", ".json", *SUPPORTED_ENDINGS)
    raise unreadable(path, f"the ending {path.suffix!r}", f"one of {', '.join(known)}", "Convert the file.")


def _no_such(path: Path) -> FileFormatError:
    near = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    fix = f"Check the path and the spelling of the name.{did_you_mean(path.name, near)}"
    return unreadable(path, "no such file or folder", "an array", fix)
