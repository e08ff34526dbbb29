"""The numbers that a voxel of a label file may hold, NaN among them, and how they are written in dataset.json."""

from __future__ import annotations

import re

MAX_VALUE = 65535
"""Largest label value: label maps are written as uint8 or uint16."""
NAN_VALUE = -32768
"""Stands for NaN in label maps, which hold integers in memory; no file may hold this number itself."""
LEAST_VALUE = NAN_VALUE + 1
"""Smallest value that can be declared; only values of which not a single class is known may be negative."""
NAN_TEXT = "nan"
"""How NaN is written in dataset.json."""
DECLARE_VALUES = (
    'Declare them in dataset.json: in "labels", or as "unlabelled" if nobody looked at them; or correct the file.'
)
"""What to do about values that are not declared."""


def parse_value(item: object) -> int | None:
    """Return the file value that ``item`` of a dataset.json means, an integer or the text "nan"; None if it is none.

    Keys of JSON objects are text, so ``"-1"`` means -1. True, false and floats mean nothing, but JSON's NaN does.
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
    """Return how a file value reads in a message."""
    return "NaN" if value == NAN_VALUE else str(value)


def json_value(value: int) -> int | str:
    """Return how a file value is written in dataset.json."""
    return NAN_TEXT if value == NAN_VALUE else value
