"""MetaImage (.mha, .mhd): its text header, and its compressed data, inflated with a check of the checksum.

ITK reads noise if the compressed stream is damaged or its length is not stated, and warns on the terminal only; here
zlib compares the checksum. Keys and values are parsed as by ITK's MetaIO: separated by ``=`` or ``:``, truth values by
their first letter, either name of the byte order.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoseg.core.atomic import atomic_path
from autoseg.io.file_contents import check_file, unreadable

META_ENDINGS = (".mha", ".mhd")
HEADER_LIMIT = 65536
"""Bytes. A MetaImage header is a text of a few hundred bytes whose last line is ElementDataFile."""
DATA_FILE = "ElementDataFile"
BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
SINGLE_FILE = (
    "Join the files to one: sitk.WriteImage(sitk.ReadImage('IN.mhd'), 'OUT.mha', True) in Python with SimpleITK."
)


class MetaHeader(NamedTuple):
    """The text header of a MetaImage."""

    path: Path
    keys: dict[str, str]
    n_bytes: int
    """Length of the text header in bytes."""

    def is_true(self, *names: str) -> bool:
        """Whether the value of at least one of these keys is true."""
        return any(self.keys.get(name, "")[:1] in ("T", "t", "1") for name in names)

    @property
    def is_compressed(self) -> bool:
        """Whether the data are a zlib stream."""
        return self.is_true("CompressedData")

    @property
    def is_local(self) -> bool:
        """Whether the data follow the header in the same file."""
        return self.keys.get(DATA_FILE, "").upper() == "LOCAL"

    @property
    def has_parts(self) -> bool:
        """Whether each slice has a data file of its own."""
        name = self.keys.get(DATA_FILE, "")
        return name.upper().startswith("LIST") or "%" in name

    @property
    def data_file(self) -> Path:
        """The file that holds the voxels. Not defined if ``has_parts``."""
        return self.path if self.is_local else self.path.parent / self.keys.get(DATA_FILE, "")

    @property
    def data_offset(self) -> int:
        """Offset of the voxels in ``data_file``, bytes."""
        stated = int(self.keys.get("HeaderSize", "0"))
        return stated if stated > 0 else self.n_bytes if self.is_local else 0


def read_meta_header(path: Path) -> MetaHeader:
    """Read the text header. Raise ``FileFormatError`` if it is incomplete or HeaderSize is not a number."""
    with path.open("rb") as file:
        text = file.read(HEADER_LIMIT)
    keys: dict[str, str] = {}
    start = 0
    while start < len(text) and DATA_FILE not in keys:
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        key, *value = re.split("[=:]", text[start:end].decode("latin-1"), maxsplit=1)
        keys[key.strip()] = "".join(value).strip()
        start = end + 1
    if DATA_FILE not in keys or not re.fullmatch(r"-?\d+", keys.get("HeaderSize", "0")):
        expected = f"a MetaImage header that ends with {DATA_FILE}"
        raise unreadable(path, "an incomplete header", expected, "Export it again.")
    return MetaHeader(path, keys, start)


def check_meta_data(header: MetaHeader, n_bytes: int) -> None:
    """Raise ``FileFormatError`` if the data file is missing, or if uncompressed data are shorter than ``n_bytes``.

    ITK would report a short data file as "no such file".
    """
    if header.has_parts:
        return
    path = header.data_file
    if not header.is_local and not path.is_file():
        problem = f"the data file {header.keys[DATA_FILE]!r}, which is not there"
        fix = f"Copy it beside {header.path.name}; a .mhd file holds only the header."
        raise unreadable(header.path, problem, "the data file that the header names", fix)
    size = check_file(path) - header.data_offset
    if not header.is_compressed and header.is_true("BinaryData") and size < n_bytes:
        raise unreadable(path, f"{size} bytes of voxels", f"{n_bytes}", "It is truncated: copy or export it again.")


def inflate_meta(header: MetaHeader, axes: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the inflated data as an array of any shape, ``axes``, and of ``dtype`` in the byte order of the header.

    Raises ``FileFormatError`` if the data are missing, damaged or too short, or lie in several files.
    """
    if header.has_parts:
        raise unreadable(header.path, "one compressed file per slice", "one data file", SINGLE_FILE)
    path = header.data_file
    with path.open("rb") as file:
        file.seek(header.data_offset)
        stream = file.read()
    stored = dtype.newbyteorder(">" if header.is_true(*BYTE_ORDER) else "<")
    expected = int(np.prod(axes)) * dtype.itemsize
    fix = "It may be truncated: copy or export it again."
    try:
        data = zlib.decompress(stream, wbits=47, bufsize=max(1, expected))  # 47: zlib or gzip, as MetaIO
    except zlib.error as error:
        problem = f"a damaged compressed stream ({error})"
        raise unreadable(path, problem, f"{expected} bytes and a matching checksum", fix) from error
    if len(data) != expected:
        raise unreadable(path, f"{len(data)} bytes of voxels", f"{expected} bytes", fix)
    return np.frombuffer(data, dtype=stored).reshape(tuple(axes))


def join_meta(source: Path, target: Path) -> None:
    """Join the header and the data file of a MetaImage into one file (``.mha``), atomically, without decoding voxels.

    Raises ``FileFormatError`` if the data file is missing, or if each slice has its own file.
    """
    header = read_meta_header(source)
    if header.has_parts:
        raise unreadable(source, "one file per slice", "one data file", SINGLE_FILE)
    check_meta_data(header, 0)
    with header.data_file.open("rb") as file:
        file.seek(header.data_offset)
        data = file.read()
    sizes = {"CompressedDataSize": str(len(data))} if header.is_compressed else {}
    keys = {key: value for key, value in header.keys.items() if key != "HeaderSize"} | sizes
    del keys[DATA_FILE]
    with atomic_path(target) as temporary:
        text = "".join(f"{key} = {value}\n" for key, value in (keys | {DATA_FILE: "LOCAL"}).items())
        temporary.write_bytes(text.encode("latin-1") + data)
