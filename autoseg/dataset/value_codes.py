"""Codes of file values, by tables: fast, and without large arrays of indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.core.arrays import CodeArray
from autoseg.core.chunks import chunks
from autoseg.core.errors import DatasetError, Fault
from autoseg.dataset.file_values import DECLARE_VALUES, value_name


def look_up(
    file_labels: NDArray[Any], codes_by_value: Mapping[int, int], dtype: type[np.unsignedinteger[Any]], case: str
) -> CodeArray:
    """Return the codes (*S) of file values (*S), in ``dtype``; raise ``DatasetError`` with all undeclared values.

    Done chunk by chunk, since an index array for a whole volume takes 8 bytes per voxel. Values of 8 or 16 bits are
    indices themselves.
    """
    low, outside = min(0, *codes_by_value), max(codes_by_value) + 1
    table = np.zeros(outside - low + 1, dtype=dtype)
    declared = np.zeros(outside - low + 1, dtype=bool)  # the last entry stands for every value that is out of range
    places = np.array(list(codes_by_value)) - low
    table[places] = list(codes_by_value.values())
    declared[places] = True
    is_small = file_labels.dtype in (np.uint8, np.uint16)
    if is_small:
        every = _table_indices(np.arange(np.iinfo(file_labels.dtype).max + 1), low, outside)
        table, declared = table[every], declared[every]
    flat = file_labels.reshape(-1)
    codes = np.empty(flat.shape, dtype=dtype)
    undeclared: Counter[int | float] = Counter()
    for chunk in chunks(flat.size):
        piece = flat[chunk]
        indices = piece if is_small else _table_indices(piece, low, outside)
        codes[chunk] = table[indices]
        known = declared[indices]
        if not known.all():
            values, counts = np.unique(piece[~known], return_counts=True)
            undeclared.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    if undeclared:
        listed = ", ".join(f"{value_name(value)} ({undeclared[value]} voxels)" for value in sorted(undeclared))
        fault = Fault(
            where=f"label file of case {case!r}",
            found=f"undeclared values {listed}",
            expected=f"only [{', '.join(map(value_name, sorted(codes_by_value)))}]",
            fix=DECLARE_VALUES,
        )
        raise DatasetError([fault])
    return codes.reshape(file_labels.shape)


def _table_indices(values: NDArray[Any], low: int, outside: int) -> NDArray[np.intp]:
    """Return indices (n,) of values (n,): ``value - low`` for integers in [low, outside), otherwise outside - low."""
    usable = (values >= low) & (values < outside)
    if values.dtype.kind == "f":
        usable &= values == np.floor(values)
    return np.where(usable, np.where(usable, values, 0).astype(np.intp), outside) - low
