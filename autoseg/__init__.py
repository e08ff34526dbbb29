"""Self-configuring biomedical image segmentation from whatever annotation people could afford."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.dataset.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["Dataset"]


def __getattr__(name: str) -> Any:
    """Import ``Dataset`` when it is first asked for: numpy and pydantic would be half of the time of every --help."""
    if name != "Dataset":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from autoseg.dataset.dataset import Dataset

    return Dataset
