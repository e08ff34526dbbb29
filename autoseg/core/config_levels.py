"""Configuration in levels: packaged defaults, the user's file, the run's file, assignments; a later one wins.

Values are plain data; nothing is executed. Every value remembers the level that it came from.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from autoseg.core.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)

PACKAGED = "default"
"""Level of values that nobody set."""
DATA_TABLE = "data"
"""Table of a run's file that describes its data set; it holds no settings."""
GROUP_NAME = "name"
"""Assigning to a group, as in ``optimizer=sgd``, sets this field of it."""


@dataclass(frozen=True, slots=True)
class Level:
    """Values that one place sets."""

    name: str
    """For messages: ``--set``, a path, or what the data ask for."""
    values: Mapping[str, Any]
    """Dotted key -> value."""


@dataclass(frozen=True, slots=True)
class Resolved(Generic[Config]):
    """A configuration, and the level that each value came from."""

    config: Config
    origins: Mapping[str, str]
    """Dotted key of each value that a level set -> name of the level."""

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield (dotted key, value, level) of every setting, in the order of the schema."""
        values = flatten(self.config.model_dump(), leaf_keys(type(self.config)))
        for key in leaf_keys(type(self.config)):
            yield key, values[key], self.origins.get(key, PACKAGED)


def leaf_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the dotted keys of all settings of a schema, in its order; a nested model is a group of settings."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        group = _group(field.annotation)
        keys.extend([name] if group is None else [f"{name}.{key}" for key in leaf_keys(group)])
    return tuple(keys)


def resolve_levels(
    model: type[Config], levels: Sequence[Level], words: Mapping[str, str] = MappingProxyType({})
) -> Resolved[Config]:
    """Validate the values of all levels together; a later level wins over an earlier one, key by key.

    ``words`` are what other programs call a setting -> its name here, for messages about keys that are not known.

    Raises
    ------
    ConfigError
        Names every key that is not known, with the nearest known one, and every value that does not fit, with the level
        that set it.
    """
    keys = leaf_keys(model)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    faults = []
    for level in levels:
        for written, value in level.values.items():
            matches = matching_keys(written, keys)
            if len(matches) == 1:
                values[matches[0]] = value
                origins[matches[0]] = level.name
            else:
                word = words.get(written.rpartition(".")[2])
                candidates = [word] if word and not matches else matches or _nearest(written, keys)
                faults.append(_unknown_key(level.name, written, value, candidates))
    try:
        config = model.model_validate(nested(values))
    except ValidationError as error:
        faults += [_wrong_value(item["loc"], item["msg"], item["input"], origins, keys) for item in error.errors()]
    if faults:
        raise ConfigError("\n".join(faults))
    return Resolved(config, origins)


def matching_keys(written: str, keys: Sequence[str]) -> list[str]:
    """Return the keys that ``written`` may mean.

    The key itself; for a group its ``name``; otherwise the keys that end with it, so that ``learning_rate`` is short
    for ``optimizer.learning_rate``. Several mean that more of the key must be written; none that it is not known.
    """
    for exact in (written, f"{written}.{GROUP_NAME}"):
        if exact in keys:
            return [exact]
    return [key for key in keys if key.endswith(f".{written}")]


def assignment_level(assignments: Sequence[str], model: type[BaseModel], name: str = "--set") -> Level:
    """Turn ``key=value`` texts into a level; the last assignment to a key wins.

    ``none`` and ``null`` mean None where a setting may be None. Raises ``ConfigError`` for a text without ``=``.
    """
    optional = set(_optional_keys(model))
    keys = leaf_keys(model)
    values: dict[str, Any] = {}
    faults = []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            faults.append(f"{name} {assignment}: expected KEY=VALUE. Write for example {name} {keys[0]}=...")
            continue
        is_none = text.lower() in ("none", "null") and any(match in optional for match in matching_keys(key, keys))
        values[key] = None if is_none else text
    if faults:
        raise ConfigError("\n".join(faults))
    return Level(name, values)


def value_text(value: Any) -> str:
    """Return a value as ``--set`` reads it: ``none``, ``true``, ``1,2``, ``3:0.1,5:0.01``, ``a=2``; ``""`` for ()."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{name}={value_text(item)}" for name, item in value.items())
    if isinstance(value, tuple):
        return (
            ",".join(
                ":".join(value_text(part) for part in item) if isinstance(item, tuple) else value_text(item)
                for item in value
            )
            or '""'
        )
    return str(value)


def file_level(path: Path, *, without: Sequence[str] = (), leaves: Sequence[str] = ()) -> Level:
    """Read a TOML file as a level.

    Tables are groups. Those named in ``without`` are passed over, and those at a dotted key of ``leaves`` are values.

    Raises ``ConfigError`` if the file cannot be read or is not TOML.
    """
    content = read_toml(path)
    return Level(str(path), flatten({key: value for key, value in content.items() if key not in without}, leaves))


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file; raise ``ConfigError`` if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}). Check the path and its permissions.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: is not valid TOML ({error}). Write settings as key = value, text in quotes."
        ) from error


def user_file(environment: Mapping[str, str], variable: str = "AUTOSEG_CONFIG") -> Path | None:
    """Return the path of the user's file: ``$AUTOSEG_CONFIG``, otherwise ``~/.config/autoseg/config.toml``.

    None if there is no such file. A path in the variable is returned whether or not the file exists, so that a
    mistake is noticed.
    """
    if environment.get(variable):
        return Path(environment[variable]).expanduser()
    home = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", "~"), ".config")  # noqa: PTH118
    path = Path(home).expanduser() / "autoseg" / "config.toml"
    return path if path.is_file() else None


def flatten(values: Mapping[str, Any], leaves: Sequence[str] = (), prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys; a mapping at a key of ``leaves`` is a value and stays whole."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in leaves:
            flat |= flatten(value, leaves, f"{key}.")
        else:
            flat[key] = value
    return flat


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of :func:`flatten`."""
    groups: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        place = groups
        for group in path:
            place = place.setdefault(group, {})
        place[name] = value
    return groups


def _group(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _optional_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        group = _group(field.annotation)
        if group is not None:
            yield from _optional_keys(group, f"{prefix}{name}.")
        elif type(None) in get_args(field.annotation):
            yield f"{prefix}{name}"


def _nearest(written: str, keys: Sequence[str]) -> list[str]:
    """Return up to three known keys that look like ``written``, by the whole key, its last part, or initials.

    Of several keys with these initials, only those in the highest groups: ``lr`` is ``optimizer.learning_rate``.
    """
    last = written.rpartition(".")[2]
    by_last = {key.rpartition(".")[2]: key for key in keys}
    initials = [key for name, key in by_last.items() if "".join(word[:1] for word in name.split("_")) == last]
    highest = min((key.count(".") for key in initials), default=0)
    close = [
        *(key for key in initials if key.count(".") == highest),
        *difflib.get_close_matches(written, keys, 2),
        *(by_last[name] for name in difflib.get_close_matches(last, list(by_last), 2)),
    ]
    return list(dict.fromkeys(close))[:3]


def _unknown_key(level: str, written: str, value: Any, candidates: Sequence[str]) -> str:
    if not candidates:
        return f"{level}: {written} = {value!r}: no such setting. List all with --show-config."
    return f"{level}: {written} = {value!r}: no such setting, or not a whole name. Write {' or '.join(candidates)}."


def _wrong_value(
    location: Sequence[int | str], message: str, value: Any, origins: Mapping[str, str], keys: Sequence[str]
) -> str:
    """Return the fault of a value, with the level that set it; of settings that disagree, the levels of their group."""
    key = _reported_key(location, keys)
    text = message.removeprefix("Value error, ")
    text = f"{text[:1].lower()}{text[1:].rstrip('.')}."
    if key in keys:
        return f"{origins.get(key, PACKAGED)}: {key} = {value!r}: {text}"
    levels = dict.fromkeys(origins[each] for each in keys if each in origins and (not location or each.startswith(key)))
    return f"{' and '.join(levels) or PACKAGED}: {key}: {text}"


def _reported_key(location: Sequence[int | str], keys: Sequence[str]) -> str:
    """Return the longest known key that a location of pydantic's lies in; the location itself if there is none."""
    parts = [str(part) for part in location]
    for stop in range(len(parts), 0, -1):
        if ".".join(parts[:stop]) in keys:
            return ".".join(parts[:stop])
    return ".".join(parts) or "settings"
