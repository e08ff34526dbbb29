"""Self-configuring biomedical image segmentation from whatever annotation people could afford."""

from autoseg.core.dataset import Dataset

__version__ = "0.1.0"
__all__ = ["Dataset"]
