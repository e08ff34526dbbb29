"""Cases are recognised by what they are, not only by what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from autoseg.core import trained_on
from autoseg.core.trained_on import TrainedCase, image_contents, joined, recognise


@pytest.mark.parametrize("shape", [(1, 24, 30), (6, 24, 30)], ids=["2d", "3d"])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_copy_has_the_same_content_whatever_its_file_type_and_the_order_of_its_voxels(shape, dtype, monkeypatch):
    image = np.random.default_rng(0).normal(0, 100, (2, *shape)).astype(dtype)
    contents = image_contents(image)
    assert len(set(contents)) == 2 and all(len(content) == 32 for content in contents)
    assert image_contents(image.astype(np.float64)) == contents
    assert image_contents(image[:, ::-1, :, ::-1]) == contents
    assert image_contents(image.transpose(0, 3, 1, 2)) == contents
    assert image_contents(image[::-1]) == contents[::-1]
    monkeypatch.setattr(trained_on, "CACHED_VOXELS", 7)
    assert image_contents(image) == contents


@pytest.mark.parametrize("shape", [(1, 24, 30), (6, 24, 30)], ids=["2d", "3d"])
def test_other_images_have_another_content(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(-50, 50, (1, *shape)).astype(np.int16)
    swapped = image.copy()
    swapped.reshape(-1)[:2] += np.array([1, -1], dtype=np.int16)  # the same sum
    others = [image + 1, image * 2, image[..., 1:], -image, swapped, rng.integers(-50, 50, (1, *shape))]
    contents = {image_contents(other) for other in [image, *others]}
    assert len(contents) == 1 + len(others)


def test_a_constant_channel_and_an_empty_one_are_like_no_other():
    assert image_contents(np.zeros((2, 1, 3, 3), np.float32)) == ("", "")
    assert image_contents(np.zeros((1, 0, 3, 3), np.float32)) == ("",)
    assert recognise({"a": ("",)}, "x", [TrainedCase(dataset="y", case="a", images=("",))]) == {}


def test_a_case_is_recognised_by_both_names_or_by_any_of_its_images():
    trained = [
        TrainedCase(dataset="old", case="a", images=("1", "2")),
        TrainedCase(dataset="old", case="b"),
        TrainedCase(dataset="new", case="c"),
    ]
    contents = {"copy": ("9", "2"), "a": ("7",), "b": (), "c": (), "d": ("",)}
    assert recognise(contents, "new", trained) == {"copy": trained[0], "c": trained[2]}
    assert recognise(contents, "old", trained) == {"copy": trained[0], "a": trained[0], "b": trained[1]}
    assert joined(trained, trained[:1]) == (trained[2], trained[0], trained[1])
