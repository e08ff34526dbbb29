"""The review shows slips of the annotator before places of which the model itself is unsure."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from autoseg.assist.complete_case import complete_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.label_codes import encode_target
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels
from autoseg.evaluation.disagreement import group_disputed, set_names, surest_first
from autoseg.inference.quality_output import case_dice

NAMES = ("background", "organ", "vessel")
LABELS = Labels((0, 1, 2), NAMES, tuple(Head(name, (k,), (k,), k == 0) for k, name in enumerate(NAMES)), ignore=3)
N_SLIPS = 5


def place_of(shape):
    edges = (1.0, 1.0, 1.0)
    return CaseRecord(
        case="x", geometry=Geometry(spacing=edges), transpose=(0, 1, 2), shape_before_crop=shape, crop_low=(0, 0, 0),
        crop_high=shape, spacing_before=edges, spacing=edges, shape=shape,
    )  # fmt: skip


def simulated(shape, rng):
    """Return the truth (organs on a grid of cells of 8 voxels), and a model's probabilities (K, *shape) of it.

    The model knows what it sees, but for soft borders, and large cells in which it leans towards the wrong class.
    """
    z, y, x = (np.arange(edge) % 8 - 3.5 for edge in shape)
    ball = (z[:, None, None] ** 2 * (shape[0] > 1) + y[:, None] ** 2 + x**2) < 9
    cell = np.arange(shape[1])[:, None] // 8 + np.arange(shape[2]) // 8
    truth = np.where(ball, 1 + cell % 2, 0)
    shares = np.stack([ndimage.gaussian_filter((truth == k).astype(np.float64), 0.4) for k in range(3)])
    shares = 0.98 * shares / shares.sum(axis=0) + 0.02 / 3
    unsure = np.zeros(shape, dtype=bool)
    for start in range(0, 32, 16):  # 4 blobs, many times as large as a slip
        for other in (0, 32):
            unsure[:, start + 1 : start + 7, other + 1 : other + 15] = True
    wrong = (truth + 1) % 3
    for k in range(3):
        leaning = 0.55 * (wrong == k) + 0.4 * (truth == k) + 0.05 * ((truth != k) & (wrong != k))
        shares[k][unsure] = (leaning + rng.uniform(-0.02, 0.02, shape))[unsure]
    return truth, shares / shares.sum(axis=0), unsure


@pytest.mark.parametrize("shape", [(1, 48, 48), (8, 48, 48)], ids=["2d", "3d"])
@pytest.mark.parametrize("seed", range(3))
def test_planted_slips_come_before_large_regions_of_which_the_model_is_unsure(shape, seed):
    rng = np.random.default_rng(seed)
    truth, shares, unsure = simulated(shape, rng)
    drawn = truth.astype(np.uint8)
    slips = np.zeros(shape, dtype=bool)
    cells = [(y, x) for y in range(0, 48, 8) for x in range(0, 48, 8) if not unsure[0, y + 2, x + 2]]
    for index in rng.choice(len(cells), N_SLIPS, replace=False):  # a dab of another class in the middle of an object
        y, x = cells[index]
        dab = (
            slice(shape[0] // 2 - 1 if shape[0] > 1 else 0, shape[0] // 2 + 1),
            slice(y + 3, y + 5),
            slice(x + 3, x + 5),
        )
        slips[dab] = True
        drawn[dab] = (drawn[dab] + 1 + rng.integers(2)) % 3
    drawn[~slips & (rng.random(shape) < 0.2)] = 3  # not everything is annotated

    target = encode_target(drawn, LABELS)
    made = complete_case(np.log(shares).astype(np.float32), place_of(shape), LABELS, target, review=True)
    groups = group_disputed("x", made.disputed, set_names(target.label_sets, NAMES), NAMES)
    is_slip = [bool(slips[group.z, group.y, group.x]) for group in groups]
    assert is_slip == [True] * N_SLIPS + [False] * (len(groups) - N_SLIPS)
    assert max(group.n_voxels for group in groups[N_SLIPS:]) > 5 * max(group.n_voxels for group in groups[:N_SLIPS])


def poor(truth, rng):
    """Return probabilities (K, *shape) of a model that sees little of a case: soft everywhere, sure of some faults."""
    shares = (
        np.stack([ndimage.gaussian_filter((truth == k).astype(np.float64), (0, 2.5, 2.5)) for k in range(3)]) + 0.02
    )
    shares /= shares.sum(axis=0)
    for y, x in rng.integers(0, 40, (12, 2)):
        place = (slice(None), slice(y, y + 5), slice(x, x + 5))
        shares[(slice(None), *place)] = np.array([0.005, 0.005, 0.005])[:, None, None, None]
        shares[(int(rng.integers(1, 3)), *place)] = 0.99
    return shares


@pytest.mark.parametrize("shape", [(1, 48, 48), (8, 48, 48)], ids=["2d", "3d"])
@pytest.mark.parametrize("seed", range(3))
def test_slips_in_a_good_case_come_before_the_faults_of_the_model_in_a_poor_one(shape, seed):
    rng = np.random.default_rng(seed)
    truth, shares, unsure = simulated(shape, rng)
    drawn = truth.astype(np.uint8)
    slips = np.zeros(shape, dtype=bool)
    for y, x in [(y, x) for y in (16, 24) for x in (0, 8, 32)]:
        if not unsure[0, y + 2, x + 2]:
            slips[:, y + 3 : y + 5, x + 3 : x + 5] = True
    drawn[slips] = (drawn[slips] + 1) % 3

    groups = []
    for name, annotated, logits in (("good", drawn, np.log(shares)), ("poor", truth, np.log(poor(truth, rng)))):
        logits, target = logits.astype(np.float32), encode_target(annotated.astype(np.uint8), LABELS)
        made = complete_case(logits, place_of(shape), LABELS, target, review=True)
        names, dice = set_names(target.label_sets, NAMES), case_dice(logits, place_of(shape), LABELS, None)
        groups += group_disputed(name, made.disputed, names, NAMES, dice_of=dice)

    n_slips = ndimage.label(slips)[1]

    def precision(ranked):
        is_slip = [group.case == "good" and bool(slips[group.z, group.y, group.x]) for group in ranked[:n_slips]]
        return sum(is_slip) / n_slips

    by_probability = sorted(groups, key=lambda group: (-round(group.mean_probability, 3), -group.n_voxels))
    assert precision(surest_first(groups)) == 1.0
    assert precision(by_probability) < 0.5
