"""The numbers that a voxel of a label file may hold, including NaN, and their notation in dataset.json."""

from __future__ import annotations

import re

MAX_VALUE = 65535
"""Largest label value: label maps are written as uint8 or uint16."""
NAN_VALUE = -32768
"""Integer that stands for NaN in label maps in memory; no file may hold this number itself."""
LEAST_VALUE = NAN_VALUE + 1
"""Smallest value that can be declared; only values of unannotated voxels and of label sets may be negative."""
NAN_TEXT = "nan"
"""Notation of NaN in dataset.json."""
DECLARE_VALUES = (
    'Declare them in dataset.json: in "labels", or as "unlabelled" if these voxels are unannotated; or correct the '
    "file."
)
"""Remedy for values that are not declared."""


def parse_value(item: object) -> int | None:
    """Return the file value for ``item`` of a dataset.json, an integer or the text "nan"; None if it is neither.

    Keys of JSON objects are text, so ``"-1"`` is -1. True, false and floats are no file values, except JSON's NaN.
    """
    if isinstance(item, str):
        text = item.strip().lower()
        if text == NAN_TEXT:
            return NAN_VALUE
        item = int(text) if re.fullmatch(r"-?[0-9]{1,5}", text) else None
    if isinstance(item, float) and item != item:
        return NAN_VALUE
    is_value = isinstance(item, int) and not isinstance(item, bool) and LEAST_VALUE <= item <= MAX_VALUE
    return int(item) if isinstance(item, int) and is_value else None


def is_number(text: str) -> bool:
    """Whether a text is a whole number of no more digits than a file value has."""
    return text.strip().isdecimal() and len(text) <= len(str(MAX_VALUE))


def value_name(value: float) -> str:
    """Return the text for a file value in a message."""
    return "NaN" if value == NAN_VALUE else str(value)


def json_value(value: int) -> int | str:
    """Return the notation of a file value in dataset.json."""
    return NAN_TEXT if value == NAN_VALUE else value
