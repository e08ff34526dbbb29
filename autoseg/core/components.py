"""Lookup of replaceable components by name: a built-in, an entry point, or ``package.module:attribute``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from autoseg.core.errors import ConfigError


def resolve(kind: str, name: str, built_in: Mapping[str, Any], *, needs: Sequence[str] = ()) -> Any:
    """Return the component ``name`` of ``kind``: loss, optimizer, augmentation, architecture, planner or task.

    Raises ``ConfigError`` if the name is unknown (the message lists the built-in components), if it cannot be imported
    (with the reason), or if a component that is not built in lacks an attribute of ``needs``.
    """
    if name in built_in:
        return built_in[name]
    component = _imported(kind, name, built_in)
    missing = [attribute for attribute in needs if not hasattr(component, attribute)]
    if missing:
        raise ConfigError(
            f"{kind} {name!r}: found {type(component).__name__} without {' and '.join(missing)}, expected an object "
            "that has them. See docs/extending.md for an example."
        )
    return component


def optional(module: str, extra: str) -> Any:
    """Import a module of an optional package; raise ``ConfigError`` with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module}: cannot be imported ({error}), expected a package. Type: pip install 'autoseg[{extra}]'"
        ) from error


def is_named(kind: str, name: str, built_in: Collection[str]) -> bool:
    """Whether ``name`` is a component of ``kind`` by its form: built in, an entry point, or a module and attribute."""
    module, _, attribute = name.partition(":")
    return name in built_in or bool(module and attribute) or bool(entry_points(group=f"autoseg.{kind}", name=name))


def _imported(kind: str, name: str, built_in: Mapping[str, Any]) -> Any:
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
    except Exception as error:  # a user's module may raise anything
        reason = str(error) if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{kind} {name!r}: {reason}, expected an importable 'package.module:attribute'. "
            "Check the spelling, and that the package is installed in this environment."
        ) from error
