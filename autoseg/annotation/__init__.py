"""What annotation says beyond the voxels that are drawn: fusion of experts, promises, counts."""

from autoseg.annotation.fusion import Fusion, fuse

__all__ = ["Fusion", "fuse"]
