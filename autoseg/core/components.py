"""Replaceable components by name, a built-in, an entry point, or ``package.module:attribute``; and calls of them."""

from __future__ import annotations

import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoseg.core.errors import AutosegError, ConfigError
from autoseg.core.findings import counted

EXAMPLES = "docs/extending.md has an example."
PACKAGE = str(Path(__file__).parents[1])
FOREIGN = (PACKAGE, "<", *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")))
"""Beginnings of the paths of files that no user wrote, unless the user's component itself is installed there."""


def resolve(kind: str, name: str, built_in: Mapping[str, Any], *, needs: Sequence[str] = ()) -> Any:
    """Return the component ``name`` of ``kind``: loss, optimizer, augmentation, architecture, planner or task.

    Raises ``ConfigError`` if the name is unknown (the message lists the built-in components), if it cannot be imported
    (with the reason, and the user's file and line), or if a component that is not built in lacks an attribute of
    ``needs``. One that needs ``__call__`` is a function or a class, one that needs anything else is an object.
    """
    if name in built_in:
        return built_in[name]
    component = _imported(kind, name, built_in)
    if "__call__" in needs and not callable(component):
        raise ConfigError(
            f"{kind} {name!r}: found an object of {type(component).__name__}, expected a function or a class, which "
            f"autoseg calls. Name that instead; {EXAMPLES}"
        )
    if needs and "__call__" not in needs and isinstance(component, type):
        attribute = name.rpartition(":")[2]
        raise ConfigError(
            f"{kind} {name!r}: {attribute} is a class, expected an object. Write NAME = {attribute}() in its module, "
            f"and name NAME; {EXAMPLES}"
        )
    missing = [attribute for attribute in needs if not hasattr(component, attribute)]
    if missing:
        raise ConfigError(
            f"{kind} {name!r}: found {type(component).__name__} without {' and '.join(missing)}, expected an object "
            f"that has them. {EXAMPLES}"
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


def call_component(kind: str, name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Return ``function(*args)``, where ``function`` is (part of) the component ``name`` of ``kind``.

    Raises ``ConfigError``, naming the component and the user's file and line, for any exception of a user's function,
    such as that of a wrong signature. What functions of autoseg raise stays as it is, and so do a lack of memory and
    errors of autoseg, but for a ``ConfigError``, which gets the name of the component.
    """
    try:
        return function(*args)
    except (AutosegError, MemoryError) as error:
        if not isinstance(error, ConfigError) or is_own(function) or name in str(error):
            raise
        raise ConfigError(f"{kind} {name!r}: {error}") from error
    except Exception as error:  # a user's function may raise anything
        if is_own(function) or type(error).__name__ == "OutOfMemoryError":
            raise
        raise ConfigError(
            f"{kind} {name!r}: found {_reason(error)}{_place(error, name) or _definition(function)}, expected it to "
            f"return when it is called with {counted(len(args), 'argument')}. Correct it there; {EXAMPLES}"
        ) from error


def is_own(component: Any) -> bool:
    """Whether a function, class or object is defined in autoseg."""
    defined_in = component if hasattr(component, "__qualname__") else type(component)
    return (getattr(defined_in, "__module__", None) or "").partition(".")[0] == "autoseg"


def _imported(kind: str, name: str, built_in: Mapping[str, Any]) -> Any:
    points = entry_points(group=f"autoseg.{kind}", name=name)
    if ":" not in name and not points:
        raise ConfigError(
            f"{kind}: found {name!r}, expected one of {sorted(built_in)}. For your own, write "
            f"'package.module:attribute' or declare an 'autoseg.{kind}' entry point."
        )
    module, _, attribute = name.partition(":")
    if not points and not (attribute and _is_dotted(module)):
        raise ConfigError(
            f"{kind}: found {name!r}, expected package.module:attribute, not a path. For an attribute PART of the file "
            "parts.py, write parts:PART, and put the folder of the file on PYTHONPATH."
        )
    try:
        return next(iter(points)).load() if points else getattr(import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        place = _place(error, name)
        advice = (
            "Correct it there."
            if place or isinstance(error, SyntaxError)
            else "Check the spelling, and that the package is installed in this environment, or that its folder is on "
            "PYTHONPATH."
        )
        raise ConfigError(
            f"{kind} {name!r}: found {_reason(error)}{place}, expected an importable 'package.module:attribute'. "
            f"{advice}"
        ) from error


def _is_dotted(module: str) -> bool:
    """Whether ``module`` is a dotted name, and not that of a file."""
    return all(part.isidentifier() for part in module.split(".")) and not module.endswith(".py")


def _reason(error: Exception) -> str:
    """Return what an exception says, in one line."""
    if isinstance(error, ValidationError):
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return f"wrong fields of {error.title}: {faults}"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _place(error: Exception, name: str) -> str:
    """Return " (FILE, line N)" of the user's line in which ``error`` was raised, "" if there is none."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line
    frames = traceback.extract_tb(error.__traceback__)
    module = sys.modules.get(name.partition(":")[0].partition(".")[0])
    own = [*getattr(module, "__path__", []), *([module.__file__] if module and module.__file__ else [])]
    users = [
        frame for frame in frames if frame.filename.startswith(tuple(own)) or not frame.filename.startswith(FOREIGN)
    ]
    return f" ({users[-1].filename}, line {users[-1].lineno})" if users else ""


def _definition(function: Callable[..., Any]) -> str:
    """Return " (FILE, line N)" of the definition of ``function``, "" if it is not known."""
    defined = function if hasattr(function, "__qualname__") else type(function)
    try:
        return f" ({inspect.getsourcefile(defined)}, line {inspect.getsourcelines(defined)[1]})"
    except (OSError, TypeError):
        return ""
