"""A region of an image that is read box by box has the logits that it has in the whole image."""

from __future__ import annotations

import numpy as np
import pytest
from test_window import DIMENSIONS, configuration, convolution, random_image

from autoseg.core.boxes import Box
from autoseg.inference.boxed_image import BoxedImage
from autoseg.inference.window import join_slabs, predict_logits, stream_logits


class Recorded:
    """An image in memory that remembers which boxes of it were read."""

    def __init__(self, image, region, layer):
        self.boxes = []
        self._image = image
        self.boxed = BoxedImage(image.shape, region, self._read, layer)

    def _read(self, box):
        self.boxes.append(box)
        return self._image[(slice(None), *box.slices)].copy()


def logits_of(network, image, region, patch, layer, **options):
    recorded = Recorded(image, region, layer)
    slabs = stream_logits(network, recorded.boxed, configuration(patch), **options)
    return join_slabs(slabs, region.shape[0]), recorded.boxes


@DIMENSIONS
@pytest.mark.parametrize("layer", [1, 3, 64])
@pytest.mark.parametrize("where", ["whole", "middle", "one voxel", "end"])
def test_a_region_has_the_logits_of_the_whole(shape, patch, layer, where):
    image, network = random_image(shape), convolution(len(patch), 3)
    regions = {
        "whole": Box.whole(shape),
        "middle": Box((1, 5, 3), (shape[0] - 1, shape[1] - 4, 7)),
        "one voxel": Box((2, 7, 4), (3, 8, 5)),
        "end": Box(tuple(edge - 2 for edge in shape), shape),
    }
    region = regions[where]
    options = {"mirror_axes": tuple(range(len(patch))), "batch_size": 2}
    expected = predict_logits(network, image, configuration(patch), **options)[(slice(None), *region.slices)]
    found, boxes = logits_of(network, image, region, patch, layer, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert all(box.is_within(shape) for box in boxes)


@pytest.mark.parametrize("patch", [(8, 8, 8), (8, 8)], ids=["3d", "2d"])
def test_an_image_smaller_than_the_patch_is_padded(patch):
    image, network = random_image((3, 5, 9)), convolution(len(patch), 3)
    region = Box((1, 1, 2), (3, 5, 8))
    expected = predict_logits(network, image, configuration(patch))[(slice(None), *region.slices)]
    found, _ = logits_of(network, image, region, patch, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_planes_are_read_once_in_layers_and_only_as_wide_as_windows_reach():
    image, network, region = random_image((20, 40, 24)), convolution(3, 3), Box((9, 16, 0), (20, 20, 24))
    _, boxes = logits_of(network, image, region, (4, 8, 8), 8)
    assert [(box.start[0], box.stop[0]) for box in boxes] == [(6, 8), (8, 16), (16, 20)]
    assert {(box.start[1], box.stop[1]) for box in boxes} == {(12, 24)}
