"""The other side of the row on electron microscopy: the patches are read from the cache, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoseg.augmentation.warp import identity
from benchmark_rows.em_ours import places, read
from benchmark_rows.patches_ours import write_cached


def reading(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Return what reads all patches, image and codes."""
    case = write_cached(folder, 0, is_sparse=False).open()

    def run() -> int:
        return sum(read(case, centre, identity(3), settings).image.numel() for centre in places(settings))

    return run
