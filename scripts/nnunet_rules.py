"""Move a label map by nnU-Net's own code. It runs in nnU-Net's interpreter and knows nothing of autoseg.

python nnunet_rules.py resample|downsample JOB.npz RESULT.npz
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-any-unimported, misc, no-untyped-call"
from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape


def main() -> None:
    """Do what the command line names."""
    what, job, result = sys.argv[1:]
    with np.load(job) as arrays:
        moved = {"resample": resample, "downsample": downsample}[what](arrays)
    np.savez(result, **{str(index): codes for index, codes in enumerate(moved)})


def resample(job: Mapping[str, Any]) -> list[Any]:
    """Resample ``source`` (z, y, x) to ``shape`` with the settings of nnU-Net's plans for label maps."""
    resampled = resample_data_or_seg_to_shape(
        job["source"][None], job["shape"], job["before"], job["after"], is_seg=True, order=1, order_z=0,
        force_separate_z=None,
    )  # fmt: skip
    return [np.asarray(resampled)[0].astype(job["source"].dtype)]


def downsample(job: Mapping[str, Any]) -> list[Any]:
    """Bring ``patches`` (B, *P) to each of ``scales`` as targets of deep supervision."""
    apply = DownsampleSegForDSTransform([tuple(scale) for scale in job["scales"].tolist()])._apply_to_segmentation
    targets = [apply(torch.from_numpy(patch[None].astype(np.int16))) for patch in job["patches"]]
    return [np.stack([coarse[0].numpy() for coarse in scale]) for scale in zip(*targets, strict=True)]


if __name__ == "__main__":
    main()
