"""Address of a cluster, as a user writes it: ``tcp://host:port``, a scheduler file, or ``local:N``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from autoseg.core.errors import ConfigError

FORMS = "tcp://HOST:PORT, a scheduler file, or local:N"
PROTOCOLS = ("tcp", "tls")


@dataclass(frozen=True, slots=True)
class Address:
    """Scheduler to connect with, or processes to start."""

    given: str
    """What the user wrote."""
    scheduler: str | None = None
    """``tcp://host:port`` or ``tls://host:port``; None if one is to be started."""
    n_local: int = 0
    """Processes to start on this machine; 0 if a scheduler is there."""


def parse_address(given: str) -> Address:
    """Return the address that a user wrote.

    Raises ``ConfigError`` if it has none of the forms, or the scheduler file cannot be read.
    """
    if given.startswith("local:") or given == "local":
        number = given.removeprefix("local").removeprefix(":")
        if not re.fullmatch(r"[1-9]\d{0,3}", number):
            raise ConfigError(f"--cluster {given}: found no number of processes, expected local:N. Write local:2.")
        return Address(given, n_local=int(number))
    if "://" in given:
        return Address(given, scheduler=_checked(given, given))
    if Path(given).is_file():
        return Address(given, scheduler=_checked(given, _from_file(given)))
    if re.fullmatch(r"[\w.-]+:\d+", given):
        raise ConfigError(f"--cluster {given}: found no protocol, expected {FORMS}. Write tcp://{given}.")
    raise ConfigError(
        f"--cluster {given}: found neither an address nor a file, expected {FORMS}. For a scheduler file, start: "
        f"dask scheduler --scheduler-file {given if given.endswith('.json') else 'scheduler.json'}"
    )


def _checked(given: str, address: str) -> str:
    """Return the address of a scheduler if it has the form of one."""
    protocol, _, place = address.partition("://")
    host, _, port = place.rpartition(":")
    if protocol not in PROTOCOLS:
        raise ConfigError(
            f"--cluster {given}: found {address!r}, expected {FORMS}. The scheduler prints its address, "
            "tcp://HOST:PORT; that of its page (http) is another one."
        )
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--cluster {given}: found no host and port in {address!r}, expected {FORMS}. Write for example "
            f"{protocol}://{host or place or 'HOST'}:8786."
        )
    return address


def _from_file(given: str) -> str:
    """Return the address in a scheduler file."""
    try:
        content = json.loads(Path(given).read_text(encoding="utf-8"))
        address = content["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--cluster {given}: found no address of a scheduler ({type(error).__name__}: {error}), expected the JSON "
            f"file of: dask scheduler --scheduler-file {given}"
        ) from error
    return str(address)
