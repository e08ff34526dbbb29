"""Software and hardware on which a result was computed, to be recorded beside it."""

from __future__ import annotations

import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import autoseg
from autoseg.core.parallel import available_cores

PACKAGES = ("torch", "numpy")
"""Packages on whose versions numbers depend."""
GIT_TIMEOUT_S = 10


class Environment(BaseModel):
    """Software and hardware of a process."""

    model_config = ConfigDict(frozen=True)

    versions: dict[str, str]
    """Of autoseg, python, torch and numpy."""
    git: str | None
    """Commit of autoseg, followed by ``+changes`` if files differ from it; None if it does not run from a checkout."""
    device: str
    """Name of the processor or GPU that trained."""
    cores: int
    """Processor cores that this process may use."""
    platform: str
    """Operating system and architecture."""

    @classmethod
    def of(cls, device: str) -> Environment:
        """Return the environment of this process; ``device`` is the name of what computes, "" for the processor."""
        versions = {"autoseg": autoseg.__version__, "python": platform.python_version()}
        return cls(
            versions=versions | {name: package_version(name) for name in PACKAGES},
            git=git_state(Path(autoseg.__file__).parent.parent),
            device=device or processor_name(),
            cores=available_cores(),
            platform=platform.platform(),
        )


def command_line() -> str:
    """Return the command line of this process, quoted for a shell; commands of autoseg by their names."""
    given = Path(sys.argv[0] if sys.argv else "")
    is_module = given.parent == Path(autoseg.__file__).parent / "cli"  # python -m autoseg.cli.NAME
    program = f"autoseg_{given.stem}" if is_module else given.name
    return shlex.join([program if program not in ("", "-c") else "python", *sys.argv[1:]])


def git_state(folder: Path) -> str | None:
    """Return the commit of a checkout, followed by ``+changes`` if files that git knows differ from it.

    None if ``folder`` is not the top of a checkout, or git is not installed.
    """
    if not (folder / ".git").exists():
        return None
    commit = _git(folder, ["rev-parse", "HEAD"])
    changes = _git(folder, ["status", "--porcelain", "--untracked-files=no"])
    return None if commit is None else commit + ("+changes" if changes else "")


def processor_name() -> str:
    """Return the model of the processor; its architecture where the system does not tell it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _git(folder: Path, arguments: Sequence[str]) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 (git alone, with arguments of this module)
            [git, "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def package_version(package: str) -> str:
    """Return the version of an installed package; "unknown" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
