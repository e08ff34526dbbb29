"""Commands and versions behind the results on a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoseg.core.environment import Environment, command_line
from autoseg.report.page import facts, heading, note, preformatted

UNRECORDED = "The command was not recorded: an earlier version of autoseg ran it."


@dataclass(frozen=True, slots=True)
class Origin:
    """A command with the versions and the machine that ran it."""

    name: str
    """What it did, or for which part of the results; "" if there is nothing to tell apart."""
    command: str | None
    """None if it was not recorded."""
    versions: Mapping[str, str]
    """Package -> version; empty if they were not recorded."""
    git: str | None = None
    """State of the checkout; None if it ran from none."""
    machine: str = ""
    directory: str = ""
    """Folder in which it ran."""


def command_parts(origins: Sequence[Origin]) -> tuple[str, ...]:
    """Return the commands with their versions, and those of this page itself. Versions that repeat are shown once."""
    own = Environment.of("")
    parts: list[str] = []
    before: str | None = None
    for origin in [*origins, Origin("this page", command_line(), own.versions, own.git)]:
        details = facts(
            {
                "versions": ", ".join(f"{name} {version}" for name, version in origin.versions.items()),
                "checkout": origin.git,
                "machine": origin.machine,
                "folder": origin.directory,
            }
        )
        parts.append(heading(origin.name) if origin.name else "")
        parts.append(note(UNRECORDED) if origin.command is None else preformatted(origin.command))
        parts.append(details if details != before else note("Versions and machine as above."))
        before = details
    return tuple(parts)
