"""SimpleITK's side of the fusion of experts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from benchmark_rows.fusion import VOTES


def fused(folder: Path, settings: dict[str, Any]) -> Callable[[], Any]:
    """Run ITK's filter for two classes until it settles."""
    masks = [SimpleITK.GetImageFromArray(vote) for vote in np.load(folder / VOTES)]
    return lambda: SimpleITK.GetArrayFromImage(SimpleITK.STAPLE(masks, 1.0))
