"""SimpleITK, imported when the first file needs it: it is the largest of the libraries, and most runs do without."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from autoseg.core.errors import ConfigError


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """Whether SimpleITK can be imported here."""
    return find_spec("SimpleITK") is not None


@lru_cache(maxsize=1)
def simple_itk() -> ModuleType:
    """Return the module, its own warnings off: what matters of them is checked and reported by autoseg.

    Raises ``ConfigError`` if it is not installed.
    """
    if not is_installed():
        raise ConfigError("SimpleITK: not installed, expected it for this file format. Run pip install SimpleITK.")
    module = import_module("SimpleITK")
    module.ProcessObject.SetGlobalWarningDisplay(False)
    return module
