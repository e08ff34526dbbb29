"""The content of a dataset.json as plain values, and its keys without rules between keys: channels, number of cases."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import Findings, listed, shown
from autoseg.dataset.schema import NNUNET_KEYS, OWN_KEYS, DatasetFile


def read_dataset_json(path: Path, findings: Findings) -> dict[str, Any]:
    """Return the content of a dataset.json as plain values; add a fault to ``findings`` for every repeated key.

    Raises
    ------
    DatasetError
        If the file cannot be read, is empty, is not valid JSON or not an object.
    """
    repeated: list[tuple[dict[str, Any], list[str]]] = []

    def note_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            repeated.append((content, sorted(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)))
        return content

    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text, object_pairs_hook=note_repeated) if text.strip() else None
    except OSError as error:
        fix = "Check the path and permissions."
        raise _unreadable(path, error.strerror or "no access", fix, "a readable file") from error
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at position {error.start}"
        raise _unreadable(path, found, "Save the file as UTF-8.", "UTF-8 text") from error
    except json.JSONDecodeError as error:
        found = f"no valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        fix = "Look there for a missing or surplus comma, quote or brace; JSON has no comments."
        raise _unreadable(path, found, fix) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise _unreadable(path, str(error), "Remove that value.") from error
    if not isinstance(content, dict):
        found = shown(content) if text.strip() else "an empty file"
        raise _unreadable(path, found, "Copy one of dataset_templates/.")
    for key in _repeated_keys(content, "", repeated) if repeated else ():
        if key.split(".")[0] in NNUNET_KEYS | OWN_KEYS:
            findings.fault(
                key, found="a key that occurs more than once", expected="each key once",
                fix="Remove or rename all but one; JSON keeps only the last.",
            )  # fmt: skip
    return content


def read_channels(file: DatasetFile, findings: Findings) -> tuple[str, ...]:
    """Return the names of the channels in the order of their numbers; empty after a fault in the numbers.

    Source: nnU-Net v2, which takes the order of the file instead.
    """
    names, key = file.schema.channel_names, "channel_names" if "channel_names" in file.content else "modality"
    wrong = [number for number in names if not re.fullmatch("[0-9]{1,4}", number)]
    for number in wrong:
        findings.fault(
            f"{key}.{number}", found=f"the key {number!r}", expected='a channel number: "0", "1", ...',
            fix=f'Write "{key}": {{"0": "CT"}}, one entry per channel.',
        )  # fmt: skip
    if wrong:
        return ()
    by_number = sorted((int(number), name or "") for number, name in names.items())
    numbers = [number for number, _ in by_number]
    if numbers != list(range(len(numbers))):
        findings.fault(
            key, found=f"the channel numbers {listed(numbers, 10)}", expected=listed(range(len(numbers)), 10),
            fix="Number the channels from 0 without gaps, and the image files alike.",
        )  # fmt: skip
        return ()
    return tuple(name for _, name in by_number)


def check_number_of_cases(content: Mapping[str, Any], n_cases: int, findings: Findings) -> None:
    """Warn if ``numTraining`` is present and differs from the number of cases."""
    declared = content.get("numTraining", n_cases)
    if isinstance(declared, bool) or declared != n_cases:
        findings.warn(
            "numTraining", f"{shown(declared)} differs from the number of cases found, {n_cases}, which is used"
        )


def _unreadable(path: Path, found: str, fix: str, expected: str = "a JSON object in braces") -> DatasetError:
    return DatasetError([Fault(str(path), found, expected, fix)])


def _repeated_keys(value: Any, prefix: str, repeated: Sequence[tuple[dict[str, Any], list[str]]]) -> Iterator[str]:
    """Yield the dotted name of every key that an object holds more than once."""
    if isinstance(value, list):
        for item in value:
            yield from _repeated_keys(item, prefix, repeated)
    if isinstance(value, dict):
        yield from (prefix + name for content, names in repeated if content is value for name in names)
        for name, item in value.items():
            yield from _repeated_keys(item, f"{prefix}{name}.", repeated)
