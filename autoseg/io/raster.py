"""2-D raster images (.png .bmp .jpg), grey or colour, as arrays (C, 1, y, x).

Pillow reads all of them, with two exceptions: it cuts 16-bit colour to 8 bits (ITK reads those files), and it stretches
2- and 4-bit grey to 0..255 (undone here, so that label values do not change). Pillow loads a truncated PNG without an
error, so ``verify`` compares the checksum of every chunk first.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from autoseg.core.atomic import atomic_path
from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.io.file_contents import (
    StoredHeader,
    StoredImage,
    assumed_geometry,
    check_file,
    orientation_remark,
    smallest_unsigned,
    unreadable,
    without_alpha,
)
from autoseg.io.itk import read_itk

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
EXIF_ORIENTATION = 0x0112
STRETCH = {2: 85, 4: 17}
"""Bits per grey pixel -> factor by which Pillow multiplies the values."""
_PILLOW_LIMIT = Lock()
"""Held while Pillow's limit, which belongs to the whole program, is lifted."""
CHANNELS = {"1": 1, "L": 1, "I": 1, "F": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def read_raster(path: Path, *, as_labels: bool = False) -> StoredImage:
    """Read a picture (C, 1, y, x) in its stored type; spacing is assumed.

    A picture with a palette gives its colours (RGB), or the palette's indices if read as labels. Labels come without
    their alpha channel.

    Raises ``FileFormatError`` if the file is truncated, damaged or not of the format that its ending names, or if
    labels have an alpha channel that carries information (:func:`autoseg.io.file_contents.without_alpha`).
    """
    stored = _read(path, as_labels=as_labels)
    has_alpha = as_labels and len(stored.array) in (2, 4)
    return stored._replace(array=without_alpha(path, stored.array)) if has_alpha else stored


def _read(path: Path, *, as_labels: bool) -> StoredImage:
    """Read a picture (C, 1, y, x), with any alpha channel."""
    check_file(path)
    content = path.read_bytes()
    bits, is_colour = _png_bits(path, content)
    try:
        _open(path, content).verify()
        picture = _open(path, content)
        picture.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise unreadable(
            path, f"a damaged file ({error})", "a complete picture", "It may be truncated: copy or export it again."
        ) from error
    if bits == 16 and is_colour:
        return StoredImage(read_itk(path).array, assumed_geometry(2))
    array = np.asarray(picture if as_labels else _without_palette(picture))
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if bits in STRETCH and picture.mode == "L":
        array = array // STRETCH[bits]
    channels = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return StoredImage(channels[:, None], assumed_geometry(2))


def read_raster_header(path: Path) -> StoredHeader:
    """Read shape (C, 1, y, x) without the pixels."""
    check_file(path)
    with _open(path, path) as picture:
        mode = _colour_mode(picture)
        x, y = picture.size
        remarks = orientation_remark(picture.getexif().get(EXIF_ORIENTATION))
    return StoredHeader((CHANNELS.get(mode, len(mode)), 1, y, x), assumed_geometry(2), remarks)


def write_raster(path: Path, labels: NDArray[np.unsignedinteger], geometry: Geometry) -> None:
    """Write labels (1, y, x) as a grey picture of 8 or 16 bits, atomically. These formats do not store ``geometry``.

    Raises ``FileFormatError`` for more than one slice, or values that the format cannot hold without loss.
    """
    array = smallest_unsigned(labels)
    if array.shape[0] != 1 or geometry.ndim != 2:
        raise unreadable(path, f"{array.shape[0]} slices to write", "one 2-D slice", "Use .nii.gz, .nrrd or .tif.")
    types = {".png": (np.uint8, np.uint16), ".bmp": (np.uint8,)}.get(path.suffix.lower(), ())
    if array.dtype not in types:
        problem, better = f"{array.dtype} labels to write", ".tif" if array.dtype == np.uint32 else ".png"
        raise unreadable(path, problem, "a format that keeps every value", f"Use {better} for label files.")
    with atomic_path(path) as temporary:
        Image.fromarray(array[0]).save(temporary)


def _open(path: Path, source: bytes | Path) -> Image.Image:
    """Open a picture of any size. Pillow refuses 179 million pixels or more, which sections of microscopy have."""
    with _PILLOW_LIMIT:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(BytesIO(source) if isinstance(source, bytes) else source)
        except UnidentifiedImageError as error:
            raise _foreign(path) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _foreign(path: Path) -> FileFormatError:
    return unreadable(
        path, "an unknown picture format", f"a {path.suffix} picture", "Check that the file was copied completely."
    )


def _png_bits(path: Path, content: bytes) -> tuple[int, bool]:
    """Return bits per sample, and whether a pixel has more than one sample; (8, False) if the file is not PNG."""
    if not content.startswith(PNG_SIGNATURE):
        return 8, False
    if len(content) < 33 or PNG_END not in content[-4096:]:
        raise unreadable(
            path, f"{len(content)} bytes without the end mark of PNG", "a complete file", "It is truncated: copy again."
        )
    return content[24], content[25] in (2, 4, 6)


def _colour_mode(picture: Image.Image) -> str:
    """Return Pillow's mode of a picture, after a palette is resolved to colours."""
    if picture.mode in ("P", "PA"):
        return "RGBA" if picture.mode == "PA" else "RGB"
    return picture.mode


def _without_palette(picture: Image.Image) -> Image.Image:
    mode = _colour_mode(picture)
    return picture if mode == picture.mode else picture.convert(mode)
