"""The settings of a run as a table on a terminal, each with the level that it came from, or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Collection

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoseg.cli.common import print_json
from autoseg.core.config_levels import Config, Resolved, value_text


def print_settings(resolved: Resolved[Config], *, as_json: bool = False, unused: Collection[str] = ()) -> None:
    """Print key, value and level of every setting; as JSON: key -> {value, level}. The table leaves out ``unused``."""
    if as_json:
        values = resolved.config.model_dump(mode="json")
        print_json({key: {"value": _at(values, key), "level": level} for key, _, level in resolved.rows()})
        return
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for key, value, level in resolved.rows():
        if key not in unused:
            table.add_row(escape(key), escape(value_text(value)), escape(level))
    Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200).print(table)


def _at(values: object, key: str) -> object:
    """Return the value at a dotted key of nested dicts."""
    for name in key.split("."):
        values = values[name]  # type: ignore[index]  # dicts down to the value, as the schema has it
    return values
