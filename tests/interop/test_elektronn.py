from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from autoseg.core.errors import ConfigError, DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.interop.elektronn import convert, lazy_info, to_czyx
from autoseg.interop.elektronn_cubes import ConversionSettings, Cube, case_names
from autoseg.io.images import read_image, read_labels

NAMES = ("background", "mitochondria", "vesicles")


def write_cube(folder, name="a", *, image=None, labels=None, info=None, image_key="raw", label_key="labels"):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (6, 5, 4), dtype=np.uint8) if image is None else image
    labels = np.zeros((6, 5, 4), dtype=np.int16) if labels is None else labels
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file[image_key] = image
    with h5py.File(folder / f"{name}_labels.h5", "w") as file:
        file.create_dataset(label_key, data=labels, compression="gzip" if labels.size else None)
        if info is not None:
            file["info"] = np.asarray(info)
    return Cube(name, f"{folder / name}.h5:{image_key}", f"{folder / name}_labels.h5:{label_key}")


def converted(folder, *cubes, **settings):
    convert(cubes, folder / "new", ConversionSettings(**{"class_names": NAMES, **settings}))
    return Dataset.load(folder / "new")


def label_sets(dataset, name):
    """(z, y, x, K): the classes that each voxel may be."""
    drawn, _ = read_labels(dataset.case(name).label)
    codes, sets = dataset.labels.encode(drawn, name)
    return sets[codes]


def test_axes_and_values_are_those_of_the_file(tmp_path):
    image = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)
    labels = (image % 3).astype(np.int16)
    labels[0, 1, 2] = -1
    dataset = converted(tmp_path, write_cube(tmp_path, image=image, labels=labels), spacing=(3.0, 2.0, 1.0))
    found, geometry = read_image(dataset.case("a").images)
    assert geometry.spacing == (3, 2, 1)
    assert found.shape == (1, 4, 5, 6)
    assert found[0, 3, 2, 5] == image[5, 2, 3]
    drawn, _ = read_labels(dataset.case("a").label)
    assert drawn[2, 1, 0] == dataset.labels.ignore == 3
    expected = labels.T.copy()
    expected[expected < 0] = 3
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize(
    ("axes", "shape"), [("xyz", (6, 5, 4)), ("xyz", (2, 6, 5, 4)), ("zxy", (4, 6, 5)), ("zxy", (4, 2, 6, 5)),
                        ("zcxy", (4, 2, 6, 5)), ("cxyz", (6, 5, 4))],
)  # fmt: skip
def test_every_order_of_axes_becomes_zyx(axes, shape):
    array = np.random.default_rng(0).random(shape)
    found = to_czyx(array, axes)
    assert found.shape[1:] == (4, 5, 6)
    channel_axis = {"xyz": 0, "zxy": 1, "zcxy": 1}.get(axes)
    if array.ndim == 4:
        array = array.take(1, channel_axis)
        found = found[1:]
    expected = array.transpose(2, 1, 0) if axes in ("xyz", "cxyz") else array.transpose(0, 2, 1)
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float16, np.float64, np.int64, bool])
def test_images_keep_their_values(tmp_path, dtype):
    image = np.linspace(0, 1, 120).reshape(6, 5, 4) if np.dtype(dtype).kind == "f" else np.arange(120).reshape(6, 5, 4)
    cube = write_cube(tmp_path, image=image.astype(dtype))
    found, _ = read_image(converted(tmp_path, cube).case("a").images)
    np.testing.assert_allclose(found[0], image.astype(dtype).T.astype(np.float32))


def test_labels_smaller_than_the_image_lie_in_its_centre(tmp_path):
    labels = np.ones((2, 3, 4), dtype=np.int16)
    drawn, _ = read_labels(converted(tmp_path, write_cube(tmp_path, labels=labels)).case("a").label)
    assert (drawn == 1).sum() == 24
    assert (drawn[:, 1:4, 2:4] == 1).all()
    assert (drawn != 1).sum() == 96
    assert set(np.unique(drawn)) == {1, 3}


def test_masks_become_what_is_known_of_the_case(tmp_path):
    labels = np.full((6, 5, 4), -1, dtype=np.int16)
    labels[:3] = 0
    labels[3, 0] = 1  # drawn, but not said to be complete: ELEKTRONN passes it over
    cube = write_cube(tmp_path, labels=labels, info=[[1, 0, 0], [0, 0, 1]])
    dense = write_cube(tmp_path, "b", labels=np.ones((6, 5, 4), dtype=np.int16), info=[[1, 1, 1], [0, 0, 0]])
    dataset = converted(tmp_path, Cube(cube.name, cube.image, cube.label, 0.25), dense)
    assert dataset.json["cases"] == {"a": {"annotated": ["background"], "absent": ["vesicles"], "priority": 0.25}}
    assert dataset.json["lazy_semantics"] == "seed"
    assert [case.priority for case in dataset.cases] == [0.25, 1]
    sets = label_sets(dataset, "a").transpose(2, 1, 0, 3)
    assert (sets[:3] == [True, False, False]).all()
    assert (sets[3:] == [True, True, False]).all()
    assert (label_sets(dataset, "b") == [False, True, False]).all()


def test_the_cheapest_cube_has_nothing_but_masks(tmp_path):
    cube = write_cube(tmp_path, labels=np.zeros((0,), dtype=np.int16), info=[[0, 0, 0], [0, 0, 1]])
    dataset = converted(tmp_path, cube)
    assert (label_sets(dataset, "a") == [True, True, False]).all()


def test_voxels_of_a_class_that_is_neither_labelled_nor_present_say_nothing(tmp_path):
    labels = np.zeros((6, 5, 4), dtype=np.int16)
    labels[0] = 2
    dataset = converted(tmp_path, write_cube(tmp_path, labels=labels, info=[[1, 1, 0], [0, 0, 1]]))
    sets = label_sets(dataset, "a").transpose(2, 1, 0, 3)
    assert (sets[0] == [True, True, False]).all()
    assert (sets[1:] == [True, False, False]).all()


def test_dense_cubes_make_a_dense_data_set(tmp_path):
    dataset = converted(tmp_path, write_cube(tmp_path), class_names=None)
    assert dataset.labels.is_dense
    assert dataset.labels.class_names == ("background", "class_1")
    assert "lazy_semantics" not in dataset.json
    assert dataset.channels == ("EM",)


def test_the_number_of_classes_is_that_of_the_masks(tmp_path):
    lazy = write_cube(tmp_path, info=[[1, 1, 1, 1], [0, 0, 0, 0]])
    assert converted(tmp_path, lazy, class_names=None).labels.class_names[-1] == "class_3"


def test_channels_become_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (2, 6, 5, 4), dtype=np.uint8)
    cube = write_cube(tmp_path, image=image)
    dataset = converted(tmp_path, cube, channel_names=("EM", "stain"), ending=".nrrd")
    assert [path.name for path in dataset.case("a").images] == ["a_0000.nrrd", "a_0001.nrrd"]
    found, _ = read_image(dataset.case("a").images)
    np.testing.assert_array_equal(found, image.transpose(0, 3, 2, 1))


def test_every_fault_of_every_cube_is_named_and_nothing_is_written(tmp_path):
    labels = np.zeros((6, 5, 4), dtype=np.uint16)
    labels[0, 0, :2] = 65535
    cubes = (
        write_cube(tmp_path, "unsigned", labels=labels),
        write_cube(tmp_path, "odd", labels=np.zeros((5, 5, 4), dtype=np.int16)),
        write_cube(tmp_path, "larger", labels=np.zeros((8, 5, 4), dtype=np.int16)),
        write_cube(tmp_path, "scalar", labels=np.zeros(4, dtype=np.int16)),
        write_cube(tmp_path, "real", labels=np.full((6, 5, 4), 0.5)),
        write_cube(tmp_path, "nothing", labels=np.zeros((0, 0, 0), dtype=np.int16)),
        write_cube(tmp_path, "channels", image=np.zeros((2, 6, 5, 4))),
        write_cube(tmp_path, "mask", info=[[1, 1, 2], [0, 0, 0]]),
        write_cube(tmp_path, "short", info=[[1, 1], [0, 0]]),
        write_cube(tmp_path, "both", info=[[1, 1, 1], [1, 0, 0]]),
        *[write_cube(tmp_path, "none", labels=np.full((6, 5, 4), -1), info=[[1, 1, 1], [1, 1, 1]])] * 2,
    )
    with pytest.raises(DatasetError) as caught:
        converted(tmp_path, *cubes)
    message = str(caught.value)
    for text in (
        "unsigned_labels.h5:labels: found the labels 65535 \\(2 voxels\\), expected 0 to 2, or -1",
        "odd: found an image of 6 x 5 x 4 and labels of 5 x 5 x 4 voxels",
        "larger: found an image of 6 x 5 x 4 and labels of 8 x 5 x 4 voxels",
        "scalar: found 1 axes \\(4,\\), expected xyz",
        "real: found labels that are no whole numbers",
        "nothing: found no labels and no info",
        "channels: found .*2 in channels",
        "mask: info: found shape \\(2, 3\\) with the values 0, 1, 2",
        "short: info: found 2 classes, expected 3",
        "both_labels.h5:labels: found voxels of background, which info says are labelled but not present",
        "none: info: found all classes not present",
        "names: found several cases named none",
    ):
        assert re.search(text, message), text
    assert not (tmp_path / "new").exists()


def test_files_that_cannot_be_used_are_named_with_what_they_hold(tmp_path):
    good = write_cube(tmp_path)
    (tmp_path / "text.h5").write_text("no cube")
    cubes = (
        Cube("a", f"{tmp_path}/a.h5:rav", good.label),
        Cube("b", f"{tmp_path}/text.h5:raw", good.label),
        Cube("c", f"{tmp_path}/gone.h5:raw", good.label),
    )
    with pytest.raises(DatasetError) as caught:
        converted(tmp_path, *cubes)
    missing, broken, gone = str(caught.value).splitlines()
    assert "a.h5: found the data sets raw, expected a data set 'rav'" in missing
    assert "Did you mean 'raw'?" in missing
    assert "text.h5: found" in broken and "HDF5" in broken
    assert "gone.h5: found no such file" in gone


def test_a_key_may_be_left_out_where_there_is_one_only(tmp_path):
    write_cube(tmp_path, image_key="volumes/raw", info=[[1, 1, 1], [0, 0, 0]])
    dataset = converted(tmp_path, Cube("a", str(tmp_path / "a.h5"), str(tmp_path / "a_labels.h5")))
    assert dataset.case_names == ("a",)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["second"] = np.zeros((2, 2, 2))
    with pytest.raises(DatasetError, match=r"second, volumes/raw.*a.h5:KEY"):
        convert(
            [Cube("a", str(tmp_path / "a.h5"), str(tmp_path / "a_labels.h5"))], tmp_path / "other", ConversionSettings()
        )


def test_cases_are_named_after_their_files(tmp_path):
    assert case_names(["x/one.h5:raw", "two.h5", "more.h5:a", "more.h5:g/b"]) == ("one", "two", "more_a", "more_g_b")


def test_without_h5py_the_message_says_what_to_install(tmp_path, monkeypatch):
    cube = write_cube(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"h5py.*pip install 'autoseg\[elektronn\]'"):
        converted(tmp_path, cube)


def test_a_data_set_is_not_overwritten(tmp_path):
    cube = write_cube(tmp_path)
    converted(tmp_path, cube)
    before = json.loads((tmp_path / "new" / "dataset.json").read_text())
    with pytest.raises(ConfigError, match="a data set, expected a new folder"):
        converted(tmp_path, cube)
    assert json.loads((tmp_path / "new" / "dataset.json").read_text()) == before
    with pytest.raises(ConfigError, match="cubes: none"):
        convert([], tmp_path / "empty", ConversionSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"axes": "xy"}, "axes: 'xy', expected x, y"),
        ({"ending": ".png"}, "ending: '.png', expected one of .nii.gz"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing: .* expected positive numbers"),
        ({"class_names": ("membrane", "background")}, "class names: membrane, background, expected two or more"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ConversionSettings(**settings)


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((3, 2)), np.full((2, 2), 2)])
def test_masks_are_two_rows_of_zeros_and_ones(array):
    with pytest.raises(ValueError, match="shape"):
        lazy_info(array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_minus_one_as_an_unsigned_number_is_not_a_class(tmp_path, dtype):
    labels = np.ones((6, 5, 4), dtype=dtype)
    labels[0] = np.iinfo(dtype).max
    cube = write_cube(tmp_path, labels=labels)
    with pytest.raises(DatasetError, match=f"label {np.iinfo(dtype).max}, and neither --names"):
        convert([cube], tmp_path / "new", ConversionSettings())
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../escaped", "a/b", "..", ".hidden", " "])
def test_a_case_name_must_be_one_that_files_can_have(tmp_path, name):
    cube = replace(write_cube(tmp_path), name=name)
    with pytest.raises(DatasetError, match=r"found the case name"):
        convert([cube], tmp_path / "new", ConversionSettings(class_names=NAMES))
    assert not (tmp_path / "new").exists()
