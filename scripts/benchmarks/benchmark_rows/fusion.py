"""Fusion of the masks of five experts by STAPLE, beside SimpleITK's filter."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmark_rows.row import Finding, Row, Settings, Variant

VOTES, OURS, THEIRS = "votes.npy", "ours.npy", "theirs.npy"


def make_votes(folder: Path, settings: Settings) -> None:
    """Write ``votes.npy``, (E, *S) uint8: discs, and experts who miss 5 % to 25 % of them and add a little."""
    rng = np.random.default_rng(0)
    shape = tuple(settings["shape"])
    grid = np.ogrid[tuple(slice(edge) for edge in shape)]
    truth = np.zeros(shape, dtype=bool)
    for _ in range(60):
        centre, radius = [rng.uniform(0, edge) for edge in shape], rng.uniform(8, 40)
        truth |= np.asarray(sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True))) < radius**2
    votes = []
    for expert in range(settings["experts"]):
        noise = rng.random(shape)
        votes.append(np.where(truth, noise > 0.05 * (expert + 1), noise < 0.01 * (expert + 1)))
    np.save(folder / VOTES, np.stack(votes).astype(np.uint8))


def check_probabilities(folder: Path, settings: Settings) -> Finding:
    """Whether every probability of foreground is the same to 1e-5."""
    ours, theirs = (np.load(folder / name) for name in (OURS, THEIRS))
    largest = float(np.abs(ours - theirs).max())
    return Finding(f"probabilities differ by at most {largest:.1e}", largest < 1e-5)


FUSION = Row(
    title="STAPLE of five masks, beside SimpleITK's filter",
    variants=(
        Variant("1024x1024", {"experts": 5, "shape": [1024, 1024]}, floor=20),
        Variant("64x256x256", {"experts": 5, "shape": [64, 256, 256]}, floor=20),
    ),
    make=make_votes,
    ours="fusion_ours:fused",
    theirs="fusion_theirs:fused",
    is_foreign=False,
    check=check_probabilities,
    limit="one pass over each mask, and one over the patterns of votes",
)
