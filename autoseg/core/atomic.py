"""Atomic writing of files: a temporary name in the same folder, fsync, rename. A file is complete or does not exist."""

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
"""Free bytes below which a disk counts as full."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``, with the same ending; rename it to ``path`` at the end.

    If the block raises, or writes nothing, an existing file ``path`` is unchanged. The temporary name starts with a dot
    and contains the process id, so that parallel writers use different names. The file and its folder are fsynced.
    Raises ``StorageError`` if there is no room for the file.
    """
    with atomic_paths([path]) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield temporary paths for several files of one folder, as :func:`atomic_path` does for one.

    No file appears before all are written; then they appear in order. Only a process that is killed during the renaming
    leaves the first of them.
    Raises ``StorageError`` if there is no room for the files, whichever exception the writer raised because of it.
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
    """Whether the cause of an error is a full disk, a quota or a limit on the size of files.

    Some libraries hide the cause. It then counts as a full disk if ``folder`` has less than 1 MB left.
    """
    if _reason(error) is not None:
        return True
    names_no_reason = isinstance(error, RuntimeError) or (isinstance(error, OSError) and error.errno is None)
    return names_no_reason and folder.is_dir() and shutil.disk_usage(folder).free < _HARDLY_ROOM


def no_room(path: Path | str, error: BaseException) -> StorageError:
    """Return the error for a file that could not be written because there is no room for it."""
    if isinstance(error, StorageError):
        return error
    return StorageError(
        f"{path}: cannot be written: {_reason(error) or 'the disk is full'}. Existing files are unchanged. Free some "
        "space there, or choose another place"
    )


def _reason(error: BaseException | None) -> str | None:
    """Return the system's message about missing room from an error or its causes; None if there is none."""
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
    except OSError:  # Windows cannot open folders, but journals renames
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
