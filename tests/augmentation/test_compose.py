"""Augmentation of NumPy arrays: the documented sizes, targets that move together, seeds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from autoseg.augmentation.compose import Compose
from autoseg.augmentation.copy_paste import CopyPaste
from autoseg.augmentation.cut_blur import CutBlur
from autoseg.augmentation.cut_noise import CutNoise
from autoseg.augmentation.elastic import Elastic
from autoseg.augmentation.em import DEFAULT_EM
from autoseg.augmentation.flip import Flip
from autoseg.augmentation.grayscale import Grayscale
from autoseg.augmentation.misalignment import MisAlignment
from autoseg.augmentation.missing_section import MissingSection
from autoseg.augmentation.mixup import Mixup
from autoseg.augmentation.rescale import Rescale
from autoseg.augmentation.turn import Turn
from autoseg.core.errors import ConfigError

MOVING = [Turn(), Rescale(probability=1), Flip(), Elastic(), MissingSection(), MisAlignment(displacement=4)]
SIZE = (5, 16, 16)


def stack(shape=(10, 40, 40)) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 9, shape).astype(np.uint16)


def test_the_default_list_needs_the_documented_sample():
    augment = Compose(DEFAULT_EM.enabled_operations(3), input_size=(17, 257, 257))
    assert augment.sample_size == (19, 372, 372)


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        (Rescale(), (8, 320, 320)),
        (MisAlignment(displacement=16, rotate_ratio=0.5), (8, 272, 272)),
        (CutBlur(length_ratio=0.6, down_ratio_min=4, down_ratio_max=8, probability=0.7), (8, 256, 256)),
        (Turn(rot90=False), (8, 364, 364)),
        (Elastic(), (8, 290, 290)),
        (MissingSection(num_sections=3), (12, 256, 256)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_sample_that_an_operation_needs(operation, size):
    assert Compose([operation], input_size=(8, 256, 256)).sample_size == size


def test_a_mask_that_equals_the_image_still_does_after_any_move():
    augment = Compose(MOVING, additional_targets={"label": "mask", "valid": "mask", "raw": "img"}, input_size=SIZE)
    assert augment.sample_size is not None
    label = np.zeros(augment.sample_size, np.uint16)
    label[:, : len(label[0]) // 2] = 5
    for seed in range(10):
        sample = augment({"image": label / 5, "label": label, "valid": label > 0, "raw": label / 5, "id": 3}, seed)
        assert sample["image"].shape == SIZE and sample["image"].dtype == np.float32
        assert sample["label"].dtype == np.uint16 and sample["valid"].dtype == bool and sample["id"] == 3
        assert np.array_equal(sample["label"] > 0, sample["valid"])
        assert np.array_equal(sample["image"], sample["raw"])
        clear = np.abs(sample["image"] - 0.5) > 1e-3
        assert np.array_equal((sample["image"] > 0.5)[clear], sample["valid"][clear])


def test_nothing_enters_from_outside_a_sample_of_the_documented_size():
    augment = Compose(
        [Rescale(), Flip(), Elastic(), MissingSection(), MisAlignment(rotate_ratio=0)],
        input_size=SIZE, outside={"label": 99},
    )  # fmt: skip
    label = stack(augment.sample_size)
    for seed in range(60):
        sample = augment({"image": label, "label": label}, seed)
        assert sample["image"].min() >= 1 and sample["label"].max() < 99


def test_what_lies_outside_of_a_sample_gets_the_given_value():
    augment = Compose([Rescale(probability=1, low=0.5, high=0.5)], outside={"label": 255, "image": -1})
    sample = augment({"image": stack((3, 20, 20)), "label": np.ones((3, 20, 20), np.uint8)}, 0)
    assert sample["label"].shape == (3, 20, 20)
    assert (sample["label"] == 255).sum() == 3 * (400 - 100)
    assert (sample["image"][sample["label"] == 255] < 0.5).all()


def test_seeds_decide_everything_and_no_seed_means_another_draw():
    augment = Compose(DEFAULT_EM.enabled_operations(3), input_size=SIZE)
    sample = {"image": stack(), "label": stack()}
    first, again, other = augment(sample, 1), augment(sample, 1), augment(sample, 2)
    for name in sample:
        assert np.array_equal(first[name], again[name])
    assert not np.array_equal(first["image"], other["image"])
    assert not np.array_equal(augment(sample)["image"], augment(sample)["image"])


def test_a_skipped_target_does_not_change_what_the_others_get():
    operations = [Elastic(probability=1), CutNoise(probability=1), MisAlignment(probability=1, displacement=4)]
    targets = {"label": "mask", "raw": "img"}
    sample = {"image": stack(), "label": stack(), "raw": stack()}
    everywhere = Compose(operations, additional_targets=targets, input_size=SIZE)(sample, 3)
    skipping = Compose(
        operations, additional_targets=targets, input_size=SIZE,
        skip_targets={"CutNoise": ["raw"], "Elastic": ["label"], "MisAlignment": ["label"]},
    )(sample, 3)  # fmt: skip
    assert np.array_equal(everywhere["image"], skipping["image"])
    assert not np.array_equal(everywhere["raw"], skipping["raw"])
    assert not np.array_equal(everywhere["label"], skipping["label"])
    windows = np.lib.stride_tricks.sliding_window_view(sample["label"], SIZE)
    assert (windows == skipping["label"]).all((3, 4, 5)).any()  # only cut out


def test_without_operations_the_centre_is_cut_out():
    image = stack((7, 20, 21))
    sample = Compose([], input_size=SIZE)({"image": image})
    assert np.array_equal(sample["image"], image[1:6, 2:18, 2:18])


@pytest.mark.parametrize("channels", [(), (2,)], ids=["one channel", "two channels"])
def test_2d_images_and_channels(channels):
    augment = Compose(DEFAULT_EM.enabled_operations(2), input_size=(16, 16))
    image = np.random.default_rng(0).random((*channels, 50, 50))
    sample = augment({"image": image, "label": stack((50, 50))}, 1)
    assert sample["image"].shape == (*channels, 16, 16) and sample["label"].shape == (16, 16)


def test_copy_and_paste_changes_image_and_label_together():
    label = np.zeros((4, 32, 32), np.uint8)
    label[:, 4:9, 4:14] = 3
    sample = Compose([CopyPaste(probability=1)], additional_targets={"label": "mask"})(
        {"image": label, "label": label}, 0
    )
    pasted = (sample["label"] == 3) & (label == 0)
    assert pasted.sum() > 100
    assert np.median(sample["image"][pasted]) == 3
    assert not (sample["image"][~pasted & (label == 0)]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": [Mixup()]}, "Mixup mixes the patches of a batch"),
        ({"transforms": [], "additional_targets": {"label": "labels"}}, "expected 'img' or 'mask'"),
        ({"transforms": [Grayscale()], "skip_targets": {"grey": ["a"]}}, "expected one of Grayscale"),
        ({"transforms": [CopyPaste()], "additional_targets": {}}, "CopyPaste needs a target 'label'"),
        ({"transforms": [Grayscale]}, "found a class, expected an object"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Compose(**options)


def test_missing_and_misshapen_targets_are_named():
    augment = Compose([], additional_targets={"label": "mask"})
    with pytest.raises(ConfigError, match="the sample has no 'label', only image"):
        augment({"image": stack()})
    with pytest.raises(ConfigError, match="target 'label' has the shape"):
        augment({"image": stack(), "label": stack((3, 4, 5))})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outside": {"lable": 255}}, "outside names 'lable', expected one of image, label"),
        ({"outside": {"label": -1}}, "outside gives 'label' the value -1, expected one of the type uint16"),
        ({"skip_targets": {"Turn": ["mask"]}}, "skip_targets Turn names 'mask'"),
        ({"skip_targets": {"Turn": "mask"}}, "skip_targets Turn names 'mask'"),
        ({"input_size": (3, 8, 8, 8)}, "expected 2 or 3 edges"),
        ({"input_size": 16}, "expected 2 or 3 edges"),
        ({"input_size": (4, 0, 8)}, "expected 2 or 3 edges"),
    ],
)
def test_settings_without_effect_and_impossible_ones_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Compose([Turn()], **options)({"image": stack(), "label": stack()})


def test_one_skipped_target_may_be_a_text():
    flip = Flip(axes=(0, 1, 2), transpose=False)
    augment = Compose([flip], additional_targets={"raw": "img", "r": "img"}, skip_targets={"Flip": "raw"})
    patch = augment({name: stack() for name in ("image", "raw", "r")}, seed=0)
    assert np.array_equal(patch["raw"], stack()) and np.array_equal(patch["r"], patch["image"])
    assert not np.array_equal(patch["r"], stack())


def test_an_image_with_fewer_axes_than_the_patch_is_named():
    with pytest.raises(ConfigError, match=re.escape("target 'image' has the shape (40, 40), expected 3 axes, or 4")):
        Compose([Turn()], input_size=SIZE)({"image": stack()[0]})


def test_the_example_of_the_documentation_runs():
    page = (Path(__file__).parents[2] / "docs" / "em.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    volume = {name: np.ones((8, 340, 350), np.uint8) for name in ("image", "label", "valid_mask")}
    names = {"volume": volume}
    exec(code, names)  # noqa: S102 (our own example)
    assert names["augment"].sample_size == (8, 336, 336)
    assert {array.shape for array in names["patch"].values()} == {(8, 256, 256)}
    assert (names["patch"]["label"] == names["patch"]["valid_mask"]).all()
