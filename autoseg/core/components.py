"""One lookup for everything that a user may replace: a built-in, an entry point, or ``package.module:attribute``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from autoseg.core.errors import ConfigError


def resolve(kind: str, name: str, built_in: Mapping[str, Any]) -> Any:
    """Return the component ``name`` of ``kind``: loss, optimizer, augmentation, architecture or planner.

    Raises ``ConfigError`` naming the built-in components if it is unknown or cannot be imported.
    """
    if name in built_in:
        return built_in[name]
    if ":" not in name:
        for point in entry_points(group=f"autoseg.{kind}", name=name):
            return point.load()
        raise ConfigError(
            f"{kind}: found {name!r}, expected one of {sorted(built_in)}. For your own, write "
            f"'package.module:attribute' or declare an 'autoseg.{kind}' entry point."
        )
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{kind} {name!r}: {error}, expected an importable 'package.module:attribute'. "
            "Check the spelling, and that the package is installed in this environment."
        ) from error
