"""Arrays of dataclasses that are written as JSON and one buffer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from autoseg.core.json_arrays import JsonBool, JsonFloat32, JsonFloat64


@dataclass(frozen=True)
class Holder:
    mask: JsonBool
    values: JsonFloat32
    weights: JsonFloat64 | None = None


HOLDERS = TypeAdapter(list[Holder])


def test_arrays_come_back_with_shape_type_and_values() -> None:
    mask = np.arange(12).reshape(3, 4) % 5 == 0
    first = Holder(mask.T, np.float32([1.5, -2, np.inf]), np.zeros((0, 2)))
    second = Holder(mask[:0], np.float32([np.nan]))
    buffer = bytearray()
    content = HOLDERS.dump_json([first, second], context=buffer)
    for actual, expected in zip(
        HOLDERS.validate_json(content, context=memoryview(buffer)), (first, second), strict=True
    ):
        np.testing.assert_array_equal(actual.mask, expected.mask)
        np.testing.assert_array_equal(actual.values, expected.values)
        assert (actual.mask.dtype, actual.values.dtype) == (np.bool_, np.float32)
        assert actual.weights is None if expected.weights is None else actual.weights.shape == (0, 2)


def test_a_buffer_that_is_too_short_is_refused() -> None:
    buffer = bytearray()
    content = HOLDERS.dump_json([Holder(np.ones(8, dtype=bool), np.ones(8, dtype=np.float32))], context=buffer)
    with pytest.raises(ValidationError):
        HOLDERS.validate_json(content, context=memoryview(buffer)[:-1])
