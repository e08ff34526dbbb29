"""Surface distances equal those of an independent implementation, and see only decided voxels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from autoseg.evaluation import surface
from autoseg.evaluation.surface import surface_distances, surface_points

SHAPES = pytest.mark.parametrize(
    ("shape", "spacing"), [((1, 40, 50), (999.0, 0.7, 0.4)), ((14, 20, 24), (3.0, 0.7, 0.5))], ids=["2d", "3d"]
)


def blobs(shape, seed, threshold=0.0):
    noise = np.random.default_rng(seed).standard_normal(shape)
    sigma = (0, 3, 3) if shape[0] == 1 else (1.5, 2.5, 2.5)
    return ndimage.gaussian_filter(noise, sigma) > threshold


def itk_distances(one, other, spacing):
    """Distances from the contour of one mask to that of the other, by ITK's filters."""

    def image(mask):
        flat = mask.astype(np.uint8)
        made = SimpleITK.GetImageFromArray(flat[0] if len(flat) == 1 else flat)
        made.SetSpacing([float(edge) for edge in spacing[::-1]][: made.GetDimension()])
        return made

    def contour(mask):
        dimension = image(mask).GetDimension()
        padded = SimpleITK.ConstantPad(image(mask), [1] * dimension, [1] * dimension, 0)
        return SimpleITK.LabelContour(padded, fullyConnected=False)

    far = SimpleITK.SignedMaurerDistanceMap(contour(other), squaredDistance=False, useImageSpacing=True)
    far = np.abs(SimpleITK.GetArrayFromImage(far))
    return np.sort(far[SimpleITK.GetArrayFromImage(contour(one)) > 0])


@SHAPES
def test_distances_are_those_of_itk(shape, spacing):
    prediction, reference = blobs(shape, 0), blobs(shape, 1, 0.02)
    found = surface_distances(prediction, reference, None, spacing)
    theirs, back = itk_distances(prediction, reference, spacing), itk_distances(reference, prediction, spacing)
    np.testing.assert_allclose(np.sort(found.to_reference), theirs, atol=1e-4)
    np.testing.assert_allclose(np.sort(found.to_prediction), back, atol=1e-4)
    assert found.hd95 == pytest.approx(max(np.percentile(theirs, 95), np.percentile(back, 95)), abs=1e-4)
    assert found.assd == pytest.approx(np.concatenate([theirs, back]).mean(), abs=1e-4)
    close = (theirs <= 0.801).sum() + (back <= 0.801).sum()
    assert found.nsd(0.8) == pytest.approx(close / (theirs.size + back.size))


@SHAPES
def test_nothing_depends_on_undecided_voxels(shape, spacing):
    reference, decided = blobs(shape, 1), blobs(shape, 2, -0.05)
    generator = np.random.default_rng(3)
    prediction = blobs(shape, 0)
    other = np.where(decided, prediction, generator.random(shape) < 0.5)
    scrambled = np.where(decided, reference, generator.random(shape) < 0.5)
    first = surface_distances(prediction, reference, decided, spacing)
    second = surface_distances(other, scrambled, decided, spacing)
    np.testing.assert_array_equal(first.to_reference, second.to_reference)
    np.testing.assert_array_equal(first.to_prediction, second.to_prediction)
    assert first.to_reference.size


def test_slabs_give_what_the_whole_gives(monkeypatch):
    mask, decided = blobs((23, 9, 8), 0), blobs((23, 9, 8), 1, -0.1)
    whole = surface_points(mask, decided)
    for voxels in (1, 72, 200):
        monkeypatch.setattr(surface, "_PLANES", voxels)
        np.testing.assert_array_equal(surface_points(mask, decided), whole)


def test_known_distances():
    reference = np.zeros((9, 9, 9), dtype=bool)
    reference[2:5, 2:5, 2:5] = True
    shifted = np.roll(reference, 2, axis=0)
    scores = surface_distances(shifted, reference, None, (1.5, 1.0, 1.0))
    assert scores.to_prediction.max() == 3.0 and scores.hd95 == 3.0 and 0 < scores.assd < 3
    same = surface_distances(reference, reference, None, (1.5, 1.0, 1.0))
    assert (same.hd95, same.assd, same.nsd(0.0)) == (0, 0, 1)
    assert len(surface_points(reference)) == 26


def test_masks_without_surface():
    empty, full = np.zeros((3, 4, 5), dtype=bool), np.ones((3, 4, 5), dtype=bool)
    nothing = surface_distances(empty, empty, None, (1, 1, 1))
    assert (nothing.hd95, nothing.assd, nothing.nsd(1)) == (None, None, None)
    missed = surface_distances(empty, full, None, (1, 1, 1))
    assert (missed.hd95, missed.assd, missed.nsd(1)) == (None, None, 0)
    undecided = surface_distances(full, full, empty, (1, 1, 1))
    assert undecided.nsd(1) is None
