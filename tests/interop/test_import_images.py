"""A folder of images and a folder of masks become a data set, whatever their names, channels and values."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from autoseg.cases.label_codes import read_annotation
from autoseg.core.errors import ConfigError, DatasetError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.interop.import_images import prepare_import, write_import
from autoseg.io.images import read_image, read_labels, write_labels

FLAT = Geometry(spacing=(1.0, 1.0, 1.0), ndim=2)
DEEP = Geometry(spacing=(3.0, 1.0, 0.5), ndim=3)


def write_images(folder, images, masks, *, suffix="_mask", geometry=FLAT, ending=".png", mask_ending=None):
    """Write arrays (z, y, x), or images (y, x, C), by their names."""
    for name, image in images.items():
        if image.shape[-1] in (3, 4):
            (folder / "images").mkdir(exist_ok=True, parents=True)
            Image.fromarray(image).save(folder / "images" / f"{name}{ending}")
        else:
            write_labels(folder / "images" / f"{name}{ending}", image, geometry)
    for name, mask in masks.items():
        write_labels(folder / "masks" / f"{name}{suffix}{mask_ending or ending}", mask, geometry)


def imported(folder, **options):
    written = {key: options.pop(key) for key in ("channel_names", "copy") if key in options}
    return write_import(prepared_from(folder, **options), folder / "new", **written)


def prepared_from(folder, **options):
    (folder / "scratch").mkdir(exist_ok=True)
    return prepare_import(folder / "images", folder / "masks", folder / "scratch", **options)


def arrays(generator, shapes, high):
    return {f"{n}": generator.integers(0, high, shape).astype(np.uint8) for n, shape in enumerate(shapes, 1)}


def test_colour_images_of_any_size_with_binary_masks(tmp_path):
    generator = np.random.default_rng(0)
    images = {name: array for name, array in arrays(generator, [(9, 8, 3), (30, 7, 3)], 255).items()}
    masks = {
        name: 255 * generator.integers(0, 2, (1, *image.shape[:2])).astype(np.uint8) for name, image in images.items()
    }
    write_images(tmp_path, images, masks)
    dataset = imported(tmp_path, names=("background", "cell"))
    assert dataset.channels == ("red", "green", "blue") and dataset.labels.class_names == ("background", "cell")
    for case in dataset.cases:
        np.testing.assert_array_equal(read_labels(case.label)[0] * 255, masks[case.name])
        np.testing.assert_array_equal(read_image(case.images)[0][:, 0], np.moveaxis(images[case.name], -1, 0))


@pytest.mark.parametrize(("shape", "geometry", "ending"), [((1, 9, 8), FLAT, ".tif"), ((4, 9, 8), DEEP, ".nii.gz")])
def test_masks_that_are_label_files_are_linked(tmp_path, shape, geometry, ending):
    generator = np.random.default_rng(0)
    masks = {name: mask % 3 for name, mask in arrays(generator, [shape, shape], 255).items()}
    write_images(tmp_path, arrays(generator, [shape, shape], 255), masks, geometry=geometry, ending=ending)
    dataset = imported(tmp_path)
    assert all(case.label.is_symlink() and case.images[0].is_symlink() for case in dataset.cases)
    assert dataset.labels.class_names == ("background", "class_1", "class_2")


def test_masks_of_another_format_are_rewritten(tmp_path):
    generator = np.random.default_rng(0)
    write_images(
        tmp_path, arrays(generator, [(1, 9, 8)], 255), {"1": np.eye(9, 8, dtype=np.uint8)[None]}, mask_ending=".tif"
    )
    dataset = imported(tmp_path, copy=True)
    assert dataset.case("1").label.suffix == ".png" and not dataset.case("1").label.is_symlink()
    np.testing.assert_array_equal(read_labels(dataset.case("1").label)[0][0], np.eye(9, 8))


@pytest.mark.parametrize("mask_ending", [".png", ".tif"])
def test_numbers_of_objects_stay_as_they_are(tmp_path, mask_ending):
    mask = np.zeros((1, 9, 9), dtype=np.uint16)
    mask[0, :4, :4], mask[0, 4:, 4:], mask[0, 8] = 5, 900, 77
    write_images(tmp_path, {"1": mask.astype(np.uint8)}, {"1": mask}, mask_ending=mask_ending)
    dataset = imported(tmp_path, are_instances=True, unlabelled=77)
    assert dataset.labels.instances is not None and dataset.labels.unlabelled == 77
    case = dataset.case("1")
    assert case.label.is_symlink() == (mask_ending == ".png")
    np.testing.assert_array_equal(read_labels(case.label)[0], mask)
    target = read_annotation(case, dataset.labels, (1, 9, 9))
    assert set(np.unique(target.objects)) == {0, 5, 900} and (target.codes[0, 8] == target.undrawn).all()


@pytest.mark.parametrize("number", [65_535, 65_536])
def test_numbers_that_files_beside_the_images_cannot_hold_are_refused_before_anything_is_written(tmp_path, number):
    mask = np.zeros((1, 9, 9), dtype=np.uint32)
    mask[0, :4, :4] = number
    write_images(tmp_path, {"1": (mask > 0).astype(np.uint8)}, {"1": mask}, mask_ending=".tif")
    if number == 65_535:
        np.testing.assert_array_equal(read_labels(imported(tmp_path, are_instances=True).case("1").label)[0], mask)
        return
    with pytest.raises(DatasetError, match=r"the number 65536 of an object.*Convert the images to \.tif"):
        imported(tmp_path, are_instances=True)
    assert not (tmp_path / "new").exists()


def test_objects_without_a_value_for_background_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no value for background"):
        prepare_import(tmp_path, tmp_path, tmp_path, are_instances=True, unlabelled=0)


def test_masks_of_unlabelled_voxels_are_classes(tmp_path):
    mask = np.zeros((1, 9, 9), dtype=np.uint8)
    mask[0, :4, :4], mask[0, 8] = 5, 77
    write_images(tmp_path, {"1": mask}, {"1": mask})
    dataset = imported(tmp_path, unlabelled=77)
    labels, _ = read_labels(dataset.case("1").label)
    assert dataset.labels.ignore == 2 and (labels[0, 8] == 2).all() and labels[0, 3, 3] == 1


def test_what_does_not_fit_is_said_before_anything_is_written(tmp_path):
    generator = np.random.default_rng(0)
    write_images(tmp_path, arrays(generator, [(1, 9, 8)] * 2, 255), {"1": np.eye(9, 8, dtype=np.uint8)[None]})
    prepared = prepared_from(tmp_path)
    assert prepared.remarks == ("images without mask are left out: 2.png",)
    with pytest.raises(ConfigError, match="--channel-names"):
        write_import(prepared, tmp_path / "new", channel_names=("a", "b"))
    write_labels(tmp_path / "masks" / "2_mask.png", np.zeros((1, 8, 9), np.uint8), FLAT)
    with pytest.raises(DatasetError, match="on the grid of the image"):
        imported(tmp_path)
    write_labels(tmp_path / "images" / "3.tif", np.zeros((1, 9, 8), np.uint8), FLAT)
    write_labels(tmp_path / "masks" / "3_mask.png", np.zeros((1, 9, 8), np.uint8), FLAT)
    with pytest.raises(DatasetError, match="several formats"):
        imported(tmp_path)
    with pytest.raises(DatasetError, match="no name that fits"):
        prepared_from(tmp_path, mask_suffix="_seg")
    assert not (tmp_path / "new").exists()


def test_images_of_different_channels_are_refused(tmp_path):
    images = {"1": np.zeros((9, 8, 3), np.uint8), "2": np.zeros((1, 9, 8), np.uint8)}
    write_images(tmp_path, images, {name: np.zeros((1, 9, 8), np.uint8) for name in images})
    with pytest.raises(DatasetError, match=r"1 channels in 2\.png; 3 channels in 1\.png"):
        imported(tmp_path)


@pytest.mark.slow
def test_both_commands_make_data_sets_that_can_be_planned(tmp_path):
    def run(module, *arguments):
        line = [sys.executable, "-m", f"autoseg.cli.{module}", *map(str, arguments)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(line, capture_output=True, encoding="utf-8", check=False, env=environment, timeout=120)

    generator = np.random.default_rng(0)
    images = arrays(generator, [(1, 40, 30)] * 2, 255)
    masks = {name: 255 * (image > 128).astype(np.uint8) for name, image in images.items()}
    write_images(tmp_path, images, masks)
    (tmp_path / "experts").mkdir()
    for expert in ("anna", "ben"):
        (tmp_path / "experts" / expert).symlink_to(tmp_path / "masks")
    result = run("import_images", tmp_path / "images", tmp_path / "masks", "-o", tmp_path / "one")
    assert result.returncode == 0 and "masks named <image>_mask" in result.stderr, result.stderr
    result = run(
        "fuse_experts", tmp_path / "experts", "-o", tmp_path / "two", "--images", tmp_path / "images", "--json"
    )
    assert result.returncode == 0 and '"anna"' in result.stdout, result.stderr
    for folder in (tmp_path / "one", tmp_path / "two"):
        checked = run("plan_and_preprocess", folder, "--check-only", "-j", 1)
        assert checked.returncode == 0, checked.stderr
        np.testing.assert_array_equal(
            read_labels(Dataset.load(folder).case("1").label)[0] * 255, masks["1"], err_msg=folder.name
        )
    again = run("import_images", tmp_path / "images", tmp_path / "masks", "-o", tmp_path / "one")
    assert again.returncode == 2 and "contains a data set" in again.stderr
