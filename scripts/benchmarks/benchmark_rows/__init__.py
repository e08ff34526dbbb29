"""The rows of ``benchmark.py``: each is a topic, with one module per side so that neither imports the other's world."""

from __future__ import annotations

from benchmark_rows import (
    em,
    evaluation,
    export,
    fusion,
    measuring,
    patches,
    preprocessing,
    resampling,
    startup,
    step,
    window,
)
from benchmark_rows.row import Row

ROWS: dict[str, Row] = {
    "resample_image": resampling.IMAGE,
    "resample_anisotropic": resampling.ANISOTROPIC,
    "resample_codes": resampling.CODES,
    "resample_fragments": resampling.FRAGMENTS,
    "preprocess_case": preprocessing.CASE,
    "preprocess_dataset": preprocessing.COMMAND,
    "second_run": preprocessing.AGAIN,
    "fingerprint": measuring.FINGERPRINT,
    "memory_ct": measuring.MEMORY,
    "patches": patches.PATCHES,
    "em_operations": em.EM,
    "window": window.WINDOW,
    "export": export.EXPORT,
    "export_memory": export.MEMORY,
    "evaluation": evaluation.EVALUATION,
    "fusion": fusion.FUSION,
    "startup": startup.HELP,
    "startup_others": startup.OTHERS,
    "training_step": step.STEP,
    "training_curve": step.CURVE,
}
"""Name on the command line -> row."""
