"""Preprocessing of cases into the cache: crop, normalise, resample, sample locations."""

from autoseg.preprocessing.crop import content_box, nonzero_mask
from autoseg.preprocessing.pipeline import Preprocessed, anisotropic_axis, preprocess, restore
from autoseg.preprocessing.resample_codes import resample_codes
from autoseg.preprocessing.resample_image import resample_image

__all__ = [
    "Preprocessed",
    "anisotropic_axis",
    "content_box",
    "nonzero_mask",
    "preprocess",
    "resample_codes",
    "resample_image",
    "restore",
]
