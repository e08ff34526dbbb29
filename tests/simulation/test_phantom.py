"""The artificial data set is reproducible, truthful, sparse, and not solved by a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.simulation.phantom import CLASSES, IGNORE, Phantom, phantom_case

SEEDS = range(4)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [phantom_case(seed) for seed in SEEDS]


def test_the_seed_decides_everything(phantoms: list[Phantom]) -> None:
    again = phantom_case(0)
    for name in ("image", "truth", "scribbles"):
        assert np.array_equal(getattr(again, name), getattr(phantoms[0], name))
    assert again.spacing == phantoms[0].spacing
    assert len({phantom.truth.tobytes() for phantom in phantoms}) == len(phantoms)


def test_shapes_and_types(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert phantom.image.shape == (1, *phantom.truth.shape) == (1, *phantom.scribbles.shape)
        assert (phantom.image.dtype, phantom.truth.dtype) == (np.float32, np.uint8)
        z, y, x = phantom.truth.shape
        assert 24 <= z <= 32
        assert 64 <= min(y, x) <= max(y, x) <= 80
        assert phantom.spacing[0] > 1.9 * phantom.spacing[1]
        assert np.isfinite(phantom.image).all()
    assert len({phantom.spacing for phantom in phantoms}) > 1


def test_both_organs_are_there_and_keep_clear_of_the_border(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        for value in (CLASSES["liver"], CLASSES["kidney"]):
            assert 0.004 < np.mean(phantom.truth == value) < 0.2
        assert not phantom.truth[:, [0, -1]].any()
        assert not phantom.truth[:, :, [0, -1]].any()


def test_scribbles_tell_the_truth_about_a_few_percent_of_the_voxels(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        drawn = phantom.scribbles != IGNORE
        assert np.array_equal(phantom.scribbles[drawn], phantom.truth[drawn])
        assert 0.01 < drawn.mean() < 0.07


def test_every_class_of_every_slice_is_scribbled(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        for truth, drawn in zip(phantom.truth, phantom.scribbles, strict=True):
            assert set(np.unique(drawn)) - {IGNORE} == set(np.unique(truth))


def best_threshold_dice(phantom: Phantom, value: int) -> float:
    """Dice of the best window of intensities, chosen with the truth at hand."""
    organ, image = phantom.truth == value, phantom.image[0]
    levels = np.percentile(image, np.arange(80, 100.1, 1))
    best = 0.0
    for low in levels:
        for high in levels[levels > low]:
            inside = (image >= low) & (image < high)
            best = max(best, 2 * float((inside & organ).sum()) / float(inside.sum() + organ.sum()))
    return best


def test_no_threshold_finds_the_organs(phantoms: list[Phantom]) -> None:
    for value in (CLASSES["liver"], CLASSES["kidney"]):
        assert np.mean([best_threshold_dice(phantom, value) for phantom in phantoms[:3]]) < 0.8
