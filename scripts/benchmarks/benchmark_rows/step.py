"""A training step on the CPU, network and loss alone: the same network, batch and optimiser on both sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmark_rows.row import Finding, Row, Settings, Variant

LOSS_TOLERANCE = {"few": 0.4, "many": 0.1}
"""Of Dice plus cross entropy, between the means over the last quarter of a curve: two random starts differ as much."""


def make_batch(folder: Path, settings: Settings) -> None:
    """Write ``images.npy`` (B, 1, *P) and ``classes.npy`` (B, *P): blobs, brighter than what is around them."""
    rng = np.random.default_rng(0)
    shape = (settings["batch"], *settings["patch"])
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), [0, *[4] * len(settings["patch"])])
    edges = np.quantile(smooth, np.linspace(0, 1, settings["classes"] + 1)[1:-1])
    classes = np.digitize(smooth, edges).astype(np.uint8)
    images = classes + rng.normal(scale=0.5, size=shape)
    np.save(folder / "images.npy", images[:, None].astype(np.float32))
    np.save(folder / "classes.npy", classes)


def topology(settings: Settings) -> dict[str, list[list[int]] | list[int]]:
    """Return a U-Net of nnU-Net's kind: features doubled, resolution halved from stage to stage."""
    n_axes, n_stages = len(settings["patch"]), settings["stages"]
    return {
        "features": [min(settings["width"] * 2**stage, 320) for stage in range(n_stages)],
        "strides": [[1 if stage == 0 else 2] * n_axes for stage in range(n_stages)],
        "kernels": [[3] * n_axes] * n_stages,
        "encoder_blocks": [2] * n_stages,
        "decoder_blocks": [2] * (n_stages - 1),
    }


def check_curves(folder: Path, settings: Settings) -> Finding:
    """Compare how far both sides came on the same batch with the same optimiser, each from weights of its own."""
    curves = [json.loads((folder / f"{side}.json").read_text()) for side in ("ours", "theirs")]
    ends = [float(np.mean(curve[-max(1, len(curve) // 4) :])) for curve in curves]
    starts = [float(curve[0]) for curve in curves]
    falls = all(end < start for start, end in zip(starts, ends, strict=True))
    difference = abs(ends[0] - ends[1])
    tolerance = LOSS_TOLERANCE["many" if len(curves[0]) >= 100 else "few"]
    return Finding(f"loss at the end {ends[0]:.3f} and {ends[1]:.3f}", falls and difference < tolerance)


STEP = Row(
    title="training step on the CPU (network, loss, optimiser), beside nnU-Net's in float32",
    variants=(
        Variant("2x40x40x40, 32 features, 4 stages",
                {"patch": [40] * 3, "batch": 2, "classes": 4, "width": 32, "stages": 4, "steps": 2}, floor=2.3),
        Variant("4x128x128, 32 features, 5 stages",
                {"patch": [128] * 2, "batch": 4, "classes": 4, "width": 32, "stages": 5, "steps": 3}, floor=2.3),
    ),
    make=make_batch,
    ours="step_ours:steps",
    theirs="step_theirs:steps",
    check=check_curves,
    limit="the convolutions: 3 times the multiplications of a forward pass, in bfloat16 where the processor has it",
)  # fmt: skip
CURVE = Row(
    title="the same over 200 steps of a small network: the curve is that of float32",
    variants=(
        Variant("2x16x16x16, 8 features, 3 stages, 200 steps",
                {"patch": [16] * 3, "batch": 2, "classes": 3, "width": 8, "stages": 3, "steps": 200}),
    ),
    make=make_batch,
    ours="step_ours:steps",
    theirs="step_theirs:steps",
    check=check_curves,
    limit="as above; at this size the overhead of many small operations",
    rounds=1,
)  # fmt: skip
