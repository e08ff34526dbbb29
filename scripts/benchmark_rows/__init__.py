"""The rows of ``benchmark.py``: each is a topic, with one module per side so that neither imports the other's world."""

from __future__ import annotations

from benchmark_rows import resampling
from benchmark_rows.row import Row

ROWS: dict[str, Row] = {
    "resample_image": resampling.IMAGE,
    "resample_anisotropic": resampling.ANISOTROPIC,
    "resample_codes": resampling.CODES,
}
"""Name on the command line -> row."""
