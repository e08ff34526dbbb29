"""Meaning of annotation beyond the annotated voxels: fusion of experts, promises, counts."""

from autoseg.annotation.fusion import Fusion, fuse

__all__ = ["Fusion", "fuse"]
