"""Write files wholly or not at all: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoseg.core.errors import StorageError

_NO_ROOM = {errno.ENOSPC, errno.EFBIG, *({errno.EDQUOT} if hasattr(errno, "EDQUOT") else ())}
_HARDLY_ROOM = 1 << 20
"""Bytes."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` with the same ending; rename it to ``path`` when the block succeeds.

    The temporary name starts with a dot and holds the process id, so parallel writers do not meet. If the block
    raises, or writes nothing, ``path`` is left as it was. The file and its folder are fsynced.
    """
    with atomic_paths([path]) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Do as :func:`atomic_path` for several files of one folder, which is fsynced once.

    No file appears before all are written; a process that is killed while they are renamed leaves some of them.
    Raises ``StorageError`` where there is no room for them, whatever the writer makes of that.
    """
    folder = paths[0].parent
    temporaries = [path.with_name(f".{os.getpid()}.tmp.{path.name}") for path in paths]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
        _sync_folder(folder)
    except Exception as error:
        if lacks_room(error, folder):
            raise no_room(paths[0], error) from error
        raise
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def lacks_room(error: BaseException, folder: Path) -> bool:
    """Whether an error came from a full disk, a quota or a limit of size.

    Writers of other libraries swallow the reason; then a folder that has hardly room left is taken for it.
    """
    if _reason(error) is not None:
        return True
    names_no_reason = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is None)
    return names_no_reason and folder.is_dir() and shutil.disk_usage(folder).free < _HARDLY_ROOM


def no_room(path: Path | str, error: BaseException) -> StorageError:
    """Return the error for a file that could not be written since there is no room for it."""
    if isinstance(error, StorageError):
        return error
    return StorageError(
        f"{path}: found no room to write it ({_reason(error) or 'the disk is full'}), expected room; what was there is "
        "unchanged. Free some space there, or choose another place"
    )


def _reason(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, StorageError) or (isinstance(error, OSError) and error.errno in _NO_ROOM):
            return error.strerror or str(error)
        error = error.__cause__ or error.__context__
    return None


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented, valid JSON (a NaN raises ``ValueError``), atomically."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders; its rename is journalled
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
