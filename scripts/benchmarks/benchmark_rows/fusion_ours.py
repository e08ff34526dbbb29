"""Our side of the fusion of experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.annotation import fuse
from benchmark_rows.fusion import VOTES


def fused(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Fuse the votes; the codes of all voxels and the probability of foreground."""
    votes = np.load(folder / VOTES)
    return lambda: fuse(votes, 2).class_probabilities()[1]
