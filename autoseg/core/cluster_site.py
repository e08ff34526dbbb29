"""Examination of the workers of a cluster, which need the same software and the same folders."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import autoseg
from autoseg.core.environment import package_version

SAME = ("autoseg", "python", "distributed")
"""Software of which a worker must have the same version: what is sent to it could otherwise not be read."""
ALIKE = ("numpy", "scipy", "torch")
"""Software of which another version is only warned of: results may differ in their last digits."""


@dataclass(frozen=True, slots=True)
class Site:
    """Software and folders that a worker must share with this process."""

    working: str | None
    """Working folder, to which relative paths belong; None if all paths are absolute."""
    paths: tuple[str, ...]
    """Files and folders that are read or written."""
    versions: tuple[tuple[str, str], ...]
    """Software and its version."""
    shares_terminal: bool = False
    """Whether workers were started by this process, on its terminal."""

    @classmethod
    def here(cls, paths: Sequence[Path], *, shares_terminal: bool = False) -> Site:
        """Return what this process has of ``paths``; that one is missing here is for the command to say."""
        is_absolute = all(path.is_absolute() for path in paths)
        seen = tuple(str(path) for path in paths if path.exists())
        return cls(None if is_absolute else str(Path.cwd()), seen, versions(), shares_terminal)

    def enter(self) -> None:
        """Make the working folder that of this process."""
        if self.working is not None and Path(self.working) != Path.cwd():
            os.chdir(self.working)


@dataclass(frozen=True, slots=True)
class Examination:
    """What a worker says of itself."""

    faults: tuple[str, ...]
    """Reasons for which it cannot work here."""
    remarks: tuple[str, ...]
    """Differences that may change results a little."""


def examine(site: Site) -> Examination:
    """Compare this process, a worker, with the process that gives it work.

    If both share a terminal, this one leaves Ctrl-C and messages to the other.
    """
    if site.shares_terminal:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        logging.getLogger("autoseg").handlers[:] = [logging.NullHandler()]
    own = dict(versions())
    differences = {
        name: f"{name} {own[name]} instead of {expected}" for name, expected in site.versions if own[name] != expected
    }
    absent = [place for place in (site.working, *site.paths) if place is not None and not _seen(site, place)]
    return Examination(
        faults=(
            *(differences[name] for name in SAME if name in differences),
            *(f"no {path}" for path in absent),
        ),
        remarks=tuple(differences[name] for name in ALIKE if name in differences),
    )


def _seen(site: Site, place: str) -> bool:
    return Path(site.working or "/", place).exists()


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of all software that is compared; builds of one version (``+cpu``) are alike."""
    found = {name: package_version(name).partition("+")[0] for name in (*SAME, *ALIKE)}
    found["autoseg"] = f"{autoseg.__version__} (source {_source_digest()})"
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    return tuple(found.items())


def _source_digest() -> str:
    """Return eight digits that differ if the source of autoseg does."""
    folder, digest = Path(autoseg.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
