"""MetaImage (.mha, .mhd): what its text header says of the data, and compressed data, inflated with their checksum.

ITK reads noise where the compressed stream is damaged, or where its length is not stated, and says so on the terminal
only; here zlib compares the checksum. Keys and values are understood as ITK's MetaIO does: ``=`` or ``:`` between them,
a truth value by its first letter, either name of the byte order.
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
"""A MetaImage header is a few hundred bytes of text; its last line is ElementDataFile."""
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
    """Length of the text."""

    def says(self, *names: str) -> bool:
        """Whether one of these keys is true."""
        return any(self.keys.get(name, "")[:1] in ("T", "t", "1") for name in names)

    @property
    def is_compressed(self) -> bool:
        """Whether the data are a zlib stream."""
        return self.says("CompressedData")

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
        """The file that holds the data, of a header without parts."""
        return self.path if self.is_local else self.path.parent / self.keys.get(DATA_FILE, "")

    @property
    def data_offset(self) -> int:
        """The first byte of the data in their file."""
        stated = int(self.keys.get("HeaderSize", "0"))
        return stated if stated > 0 else self.n_bytes if self.is_local else 0


def read_meta_header(path: Path) -> MetaHeader:
    """Read the text header; raise ``FileFormatError`` if it has no end or a number that is none."""
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
        raise unreadable(path, "no whole header", f"a MetaImage header that ends with {DATA_FILE}", "Export it again.")
    return MetaHeader(path, keys, start)


def check_meta_data(header: MetaHeader, n_bytes: int) -> None:
    """Raise ``FileFormatError`` if the file of the data is missing, or holds less than ``n_bytes`` not compressed.

    ITK says "no such file" of a short one.
    """
    if header.has_parts:
        return
    path = header.data_file
    if not header.is_local and not path.is_file():
        found = f"the data file {header.keys[DATA_FILE]!r}, which is not there"
        fix = f"Copy it beside {header.path.name}; a .mhd file is only the header of it."
        raise unreadable(header.path, found, "the data that the header names", fix)
    size = check_file(path) - header.data_offset
    if not header.is_compressed and header.says("BinaryData") and size < n_bytes:
        raise unreadable(path, f"{size} bytes of voxels", f"{n_bytes}", "It is truncated: copy or export it again.")


def inflate_meta(header: MetaHeader, axes: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the compressed data as an array with these axes, of a type with the byte order that the header states.

    Raises ``FileFormatError`` if the data are missing, damaged or short, or lie in several files.
    """
    if header.has_parts:
        raise unreadable(header.path, "compressed slices in files of their own", "one file of data", SINGLE_FILE)
    path = header.data_file
    with path.open("rb") as file:
        file.seek(header.data_offset)
        stream = file.read()
    stored = dtype.newbyteorder(">" if header.says(*BYTE_ORDER) else "<")
    expected = int(np.prod(axes)) * dtype.itemsize
    fix = "It may be truncated: copy or export it again."
    try:
        data = zlib.decompress(stream, wbits=47, bufsize=max(1, expected))  # 47: zlib or gzip, as MetaIO
    except zlib.error as error:
        found = f"a damaged compressed stream ({error})"
        raise unreadable(path, found, f"{expected} bytes and a matching checksum", fix) from error
    if len(data) != expected:
        raise unreadable(path, f"{len(data)} bytes of voxels", f"{expected} bytes", fix)
    return np.frombuffer(data, dtype=stored).reshape(tuple(axes))


def join_meta(source: Path, target: Path) -> None:
    """Write a MetaImage of a header and a data file as one file (``.mha``), atomically; no voxel is decoded.

    Raises ``FileFormatError`` if the data are missing, or each slice has a file of its own.
    """
    header = read_meta_header(source)
    if header.has_parts:
        raise unreadable(source, "slices in files of their own", "one file of data", SINGLE_FILE)
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
