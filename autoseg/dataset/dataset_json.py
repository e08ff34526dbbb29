"""Read a dataset.json: valid JSON, the keys of nnU-Net v2, and ours; every fault is found in one go.

Source: nnU-Net v2 ``documentation/dataset_format.md``. We differ in that ``channel_names`` is ordered by its numbers,
not by its place in the file, and in that ``numTraining`` is counted from the files (a wrong one is a warning).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.core.errors import DatasetError, Fault
from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.label_json import parse_labels
from autoseg.dataset.labels import Labels

NNUNET_KEYS = frozenset(
    {
        "channel_names",
        "modality",
        "labels",
        "numTraining",
        "file_ending",
        "regions_class_order",
        "overwrite_image_reader_writer",
        "dataset",
    }
)
OWN_KEYS = frozenset(
    {"label_sets", "unlabelled", "cases", "lazy_semantics", "annotation_protocol", "valid_mask_folder", "task"}
)
MISSPELLING_CUTOFF = 0.85


@dataclass(frozen=True)
class Description:
    """What a dataset.json says without looking at any other file. Parts with a fault hold a stand-in."""

    channels: tuple[str, ...]
    """Names in channel order; empty after a fault."""
    file_ending: str
    """With its dot; empty after a fault."""
    labels: Labels | None
    """None after a fault. Without ``label_sets`` and ``cases``."""


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys that it was given more than once."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = sorted({name for name in names if names.count(name) > 1}) if len(names) > len(self) else []


def read_dataset_json(path: Path, findings: Findings) -> dict[str, Any]:
    """Return the content of a dataset.json as plain values; repeated keys are added to ``findings``.

    Raises
    ------
    DatasetError
        If the file cannot be read, is empty, is not valid JSON or not an object.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DatasetError(
            [Fault(str(path), error.strerror or "no access", "a readable file", "Check the path and permissions.")]
        ) from error
    except UnicodeDecodeError as error:
        found = f"a byte that is not UTF-8 at position {error.start}"
        raise DatasetError([Fault(str(path), found, "UTF-8 text", "Save the file as UTF-8.")]) from error
    if not text.strip():
        raise DatasetError([Fault(str(path), "an empty file", "a JSON object", "Copy one of dataset_templates/.")])
    try:
        content = json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        found = f"no valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        fix = "Look there for a missing or surplus comma, quote or brace; JSON has no comments."
        raise DatasetError([Fault(str(path), found, "a JSON object", fix)]) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise DatasetError([Fault(str(path), f"{error}", "a JSON object", "Remove that value.")]) from error
    if not isinstance(content, _Object):
        raise DatasetError(
            [Fault(str(path), shown(content), "a JSON object in braces", "Copy one of dataset_templates/.")]
        )
    for key in _repeated_keys(content, ""):
        if key.split(".")[0] in NNUNET_KEYS | OWN_KEYS:
            findings.fault(
                key, found="a key that occurs more than once", expected="each key once",
                fix="Remove or rename all but one; JSON keeps only the last.",
            )  # fmt: skip
    plain: dict[str, Any] = _plain(content)
    return plain


def parse_description(content: Mapping[str, Any], findings: Findings) -> Description:
    """Return channels, file ending and labels; what is wrong with any key is added to ``findings``."""
    description = Description(
        channels=_parse_channels(content, findings),
        file_ending=_parse_ending(content, findings),
        labels=parse_labels(content, findings),
    )
    optional = OWN_KEYS | {"regions_class_order"}
    for key in content:
        hint = did_you_mean(key, optional, MISSPELLING_CUTOFF) if key not in NNUNET_KEYS | OWN_KEYS else ""
        if hint:
            findings.fault(key, found="an unknown key", expected="a key of dataset.json", fix="Rename it." + hint)
    return description


def check_number_of_cases(content: Mapping[str, Any], n_cases: int, findings: Findings) -> None:
    """Warn if ``numTraining`` is there and is not the number of cases found."""
    declared = content.get("numTraining", n_cases)
    if isinstance(declared, bool) or declared != n_cases:
        findings.warn(
            "numTraining", f"{shown(declared)} differs from the number of cases found, {n_cases}, which is used"
        )


def _repeated_keys(value: Any, prefix: str) -> Iterator[str]:
    """Yield the dotted name of every key that an object holds more than once."""
    if isinstance(value, list):
        for item in value:
            yield from _repeated_keys(item, prefix)
    if isinstance(value, _Object):
        yield from (prefix + name for name in value.repeated)
        for name, item in value.items():
            yield from _repeated_keys(item, f"{prefix}{name}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _parse_channels(content: Mapping[str, Any], findings: Findings) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in content or "modality" not in content else "modality"
    example = f'Write "{key}": {{"0": "CT"}}, one entry per channel.'
    if key not in content:
        hint = did_you_mean("channel_names", content)
        findings.fault(key, found="no such key", expected="an object from channel number to name", fix=example + hint)
        return ()
    section = content[key]
    if not isinstance(section, Mapping) or not section:
        if isinstance(section, list) and section and all(isinstance(name, str) for name in section):
            example = f'Write "{key}": {json.dumps({str(number): name for number, name in enumerate(section)})}.'
        findings.fault(
            key, found=shown(section), expected="an object from channel number to name, with at least one", fix=example
        )
        return ()
    wrong = [number for number in section if not re.fullmatch("[0-9]{1,4}", str(number))]
    for number in wrong:
        findings.fault(
            f"{key}.{number}", found=f"the key {number!r}", expected='a channel number: "0", "1", ...', fix=example
        )
    for number, name in section.items():
        if not isinstance(name, str) or not name.strip():
            findings.fault(f"{key}.{number}", found=shown(name), expected="a name as text", fix=example)
    if wrong:
        return ()
    numbers = sorted(int(number) for number in section)
    if numbers != list(range(len(numbers))):
        findings.fault(
            key, found=f"the channel numbers {listed(numbers, 10)}", expected=f"{listed(range(len(numbers)), 10)}",
            fix="Number the channels from 0 without gaps, and the image files alike.",
        )  # fmt: skip
        return ()
    return tuple(str(name) for _, name in sorted(section.items(), key=lambda entry: int(entry[0])))


def _parse_ending(content: Mapping[str, Any], findings: Findings) -> str:
    key = "file_ending"
    example = 'Write "file_ending": ".nii.gz", the ending of the image and label files.'
    if key not in content:
        hint = did_you_mean(key, content)
        findings.fault(key, found="no such key", expected="the ending of the files", fix=example + hint)
        return ""
    ending = content[key]
    if not isinstance(ending, str) or len(ending) < 2 or not ending.startswith("."):
        findings.fault(key, found=shown(ending), expected="text that starts with a dot", fix=example)
        return ""
    return ending
