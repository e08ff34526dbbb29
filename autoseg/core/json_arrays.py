"""Arrays in models that are otherwise JSON: their bytes go into one buffer beside it.

Annotate the field of a dataclass with :data:`KeptArray`, then give pydantic a buffer as the context of
``dump_json`` (a ``bytearray``, which grows) and of ``validate_json`` (the bytes that were written).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, SerializationInfo, ValidationInfo


def _put(array: NDArray[Any], info: SerializationInfo) -> tuple[str, tuple[int, ...], int]:
    """Append the bytes of an array to the context; return its type, its shape and where it begins."""
    buffer = cast(bytearray, info.context)
    start = len(buffer)
    buffer.extend(np.ascontiguousarray(array).tobytes())
    return array.dtype.str, array.shape, start


def _take(place: Any, info: ValidationInfo) -> NDArray[Any]:
    """Return the array that lies at a place of the context, read-only; an array as it is. Raises ``ValueError``."""
    if isinstance(place, np.ndarray):
        return place
    dtype, shape, start = place
    buffer = cast(memoryview, info.context)
    values: NDArray[Any] = np.frombuffer(buffer, dtype=dtype, count=math.prod(shape), offset=start)
    return values.reshape(shape)


KeptFloat32 = Annotated[NDArray[np.float32], PlainValidator(_take), PlainSerializer(_put)]
KeptFloat64 = Annotated[NDArray[np.float64], PlainValidator(_take), PlainSerializer(_put)]
KeptBool = Annotated[NDArray[np.bool_], PlainValidator(_take), PlainSerializer(_put)]
