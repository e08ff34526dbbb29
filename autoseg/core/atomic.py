"""Write files wholly or not at all: temporary name in the same folder, fsync, rename."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    """
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    temporaries = [path.with_name(f".{os.getpid()}.tmp.{path.name}") for path in paths]
    try:
        yield temporaries
        for temporary in temporaries:
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
        _sync_folder(folder)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


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
