"""Array fields for JSON models: the bytes of the arrays are stored in one buffer beside the JSON text.

Annotate the field of a dataclass with one of the types below. Then give pydantic the buffer as context: a
``bytearray``, which grows, for ``dump_json``, and the written bytes for ``validate_json``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator, SerializationInfo, ValidationInfo


def _put(array: NDArray[Any], info: SerializationInfo) -> tuple[str, tuple[int, ...], int]:
    """Append the bytes of an array (any shape) to the buffer; return its type, its shape and its offset in bytes."""
    buffer = cast(bytearray, info.context)
    start = len(buffer)
    buffer.extend(np.ascontiguousarray(array).tobytes())
    return array.dtype.str, array.shape, start


def _take(place: Any, info: ValidationInfo) -> NDArray[Any]:
    """Return the read-only array, of any shape, at a ``place`` (type, shape, offset) of the buffer.

    An array is returned as it is. Raises ``ValueError`` if the buffer is too short.
    """
    if isinstance(place, np.ndarray):
        return place
    dtype, shape, start = place
    buffer = cast(memoryview, info.context)
    values: NDArray[Any] = np.frombuffer(buffer, dtype=dtype, count=math.prod(shape), offset=start)
    return values.reshape(shape)


JsonFloat32 = Annotated[NDArray[np.float32], PlainValidator(_take), PlainSerializer(_put)]
JsonFloat64 = Annotated[NDArray[np.float64], PlainValidator(_take), PlainSerializer(_put)]
JsonBool = Annotated[NDArray[np.bool_], PlainValidator(_take), PlainSerializer(_put)]
