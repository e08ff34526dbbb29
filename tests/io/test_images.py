import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.io.images import (
    SUPPORTED_ENDINGS,
    ending_of,
    read_image,
    read_intensities,
    read_labels,
    write_labels,
    write_probabilities,
    written_ending,
)

GEOMETRY = Geometry(spacing=(3.0, 2.0, 1.0), origin=(4.0, 5.0, 6.0))


def save(path, array, **geometry):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.get("spacing", (1.0, 2.0, 3.0)))
    image.SetOrigin(geometry.get("origin", (0.0, 0.0, 0.0)))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("name", "ending"),
    [("a.nii.gz", ".nii.gz"), ("a.b.nii", ".nii"), ("A.NII.GZ", ".NII.GZ"), ("d.png/a.mha", ".mha"), ("a.TIF", ".TIF")],
)
def test_the_ending_is_what_must_be_cut_off(name, ending):
    assert ending_of(name) == ending


def test_endings_that_are_not_supported_are_named_with_those_that_are():
    with pytest.raises(FileFormatError, match=r"case\.dcm: .*'\.dcm', expected one of \.nii\.gz"):
        ending_of("case.dcm")
    assert ".gz" not in SUPPORTED_ENDINGS


def test_missing_files_folders_and_empty_files_are_reported(tmp_path):
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "empty.nii.gz").touch()
    for name, message in {"folder": "found a folder", "empty": "an empty file", "absent": "no such file"}.items():
        for ending in (".nii.gz",):
            with pytest.raises(FileFormatError, match=message):
                read_image([tmp_path / f"{name}{ending}"])
    for ending in (".nrrd", ".mha", ".png", ".tif"):
        (tmp_path / f"empty{ending}").touch()
        with pytest.raises(FileFormatError, match="an empty file"):
            read_image([tmp_path / f"empty{ending}"])
    with pytest.raises(ValueError, match="at least one"):
        read_image([])


def test_channels_of_several_files_are_stacked_in_order_whatever_their_type(tmp_path):
    first = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    second = first.astype(np.float64) / 2
    image, geometry = read_image([save(tmp_path / "a_0000.nii.gz", first), save(tmp_path / "a_0001.nrrd", second)])
    np.testing.assert_array_equal(image, np.stack([first, second]))
    assert image.dtype == np.float32
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert geometry.spacing == (3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (["i2"], "i2"), (["u1"], "u1"), (["u2"], "u2"), (["u1", "i2"], "i2"), (["u2", "i2"], "f4"), (["i4"], "f4"),
        (["f8"], "f4"), (["i2", "f4"], "f4"),
    ],
    ids=str,
)  # fmt: skip
def test_small_integers_can_be_kept_as_they_are(tmp_path, stored, expected):
    arrays = [np.arange(24).reshape(2, 3, 4).astype(dtype) for dtype in stored]
    paths = [save(tmp_path / f"a_{number:04d}.nii.gz", array) for number, array in enumerate(arrays)]
    image, geometry = read_intensities(paths)
    assert image.dtype == np.dtype(expected)
    assert image.dtype.isnative
    as_floats, same_geometry = read_image(paths)
    np.testing.assert_array_equal(image, as_floats)
    assert geometry == same_geometry


def test_a_single_file_gives_a_writeable_array(tmp_path):
    image, _ = read_image([save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.float32))])
    image += 1
    assert image.min() == 1


@pytest.mark.parametrize(
    ("array", "geometry", "message"),
    [
        (np.zeros((2, 3, 5)), {}, r"b\.nii: found shape \(2, 3, 5\), expected \(2, 3, 4\) as in a\.nii"),
        (np.zeros((2, 3, 4)), {"spacing": (1, 2, 4)}, r"found spacing \(4\.0, 2\.0, 1\.0\), expected \(3\.0,"),
        (np.zeros((2, 3, 4)), {"origin": (0, 0, 9)}, r"found origin .*9\.0.*expected .*as in a\.nii"),
    ],
    ids=["shape", "spacing", "origin"],
)  # fmt: skip
def test_files_of_a_case_that_disagree_are_refused(tmp_path, array, geometry, message):
    first = save(tmp_path / "a.nii", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(FileFormatError, match=message):
        read_image([first, save(tmp_path / "b.nii", array, **geometry)])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 2], "u1"), ([0, 255], "u1"), ([0, 300], "u2"), ([0, 70000], "u4"), ([-1, 2], "i1"), ([-1, 200], "i2")],
)
@pytest.mark.parametrize("stored", [np.int32, np.float32, np.float64])
def test_labels_get_the_smallest_type_that_holds_them(tmp_path, values, dtype, stored):
    array = np.array(values, stored).reshape(1, 1, 2)
    labels, _ = read_labels(save(tmp_path / "a.nii.gz", array))
    assert labels.dtype == np.dtype(dtype)
    assert labels.ravel().tolist() == values


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_labels_that_are_not_whole_numbers_are_refused(tmp_path, value):
    array = np.array([0, 1, value], np.float32).reshape(1, 1, 3)
    with pytest.raises(FileFormatError, match=f"1 voxels .*whole numbers \\({value:g}\\)"):
        read_labels(save(tmp_path / "a.nii.gz", array))


@pytest.mark.parametrize("n_channels", [2, 3, 4])
def test_labels_with_several_channels_are_refused(tmp_path, n_channels):
    array = np.arange(n_channels * 24, dtype=np.float32).reshape(n_channels, 2, 3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "a.nii.gz"))
    with pytest.raises(FileFormatError, match=f"found {n_channels} channels that differ"):
        read_labels(tmp_path / "a.nii.gz")


def test_values_beyond_float32_become_inf(tmp_path):
    image, _ = read_image([save(tmp_path / "a.nii", np.full((2, 3, 4), 1e300))])
    assert np.isinf(image).all()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".gipl"])
@pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_labels_are_written_in_8_bits_if_they_fit(tmp_path, ending, largest, dtype):
    labels = np.zeros((2, 3, 4), np.uint32)
    labels[1, 2, 3] = largest
    write_labels(tmp_path / f"a{ending}", labels, GEOMETRY)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"a{ending}")))
    assert stored.dtype == dtype
    np.testing.assert_array_equal(stored, labels)
    assert read_labels(tmp_path / f"a{ending}")[1].spacing == GEOMETRY.spacing
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]


def test_arrays_that_are_not_label_maps_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"expected \(z, y, x\)"):
        write_labels(tmp_path / "a.nii.gz", np.zeros((1, 2, 3, 4), np.uint8), GEOMETRY)
    with pytest.raises(ValueError, match="expected unsigned integers"):
        write_labels(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.float32), GEOMETRY)
    with pytest.raises(ValueError, match="largest label 8589934592"):
        write_labels(tmp_path / "a.nii.gz", np.full((2, 3, 4), 2**33, np.uint64), GEOMETRY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".tif"])
def test_numbers_of_objects_above_16_bits_come_back(ending, tmp_path):
    objects = np.arange(70_000, 70_024, dtype=np.uint32).reshape(2, 3, 4)
    objects[0, 0, 0] = 2**31 - 1
    write_labels(tmp_path / f"a{ending}", objects, GEOMETRY)
    stored, _ = read_labels(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(stored, objects)
    assert stored.dtype == np.uint32


def test_png_names_the_format_that_holds_more_than_16_bits(tmp_path):
    flat = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
    with pytest.raises(FileFormatError, match=r"uint32 labels to write.*Use \.tif"):
        write_labels(tmp_path / "a.png", np.full((1, 3, 4), 70_000, np.uint32), flat)
    assert written_ending(".png", 2**31 - 1) == ".tif" and written_ending(".png", 65535) == ".png"


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 1, 4, 5), (1, 1, 1, 1)])
def test_probabilities_written_head_by_head_come_back_under_nnunets_key(tmp_path, shape):
    probabilities = np.random.default_rng(0).random(shape).astype(np.float32)
    heads = (np.asfortranarray(head) for head in probabilities)
    path = write_probabilities(tmp_path / "case.v1", heads, len(probabilities))
    assert path == tmp_path / "case.v1.npz"
    with np.load(path) as archive:
        assert archive.files == ["probabilities"]
        assert archive["probabilities"].dtype == np.float32
        np.testing.assert_array_equal(archive["probabilities"], probabilities)


def test_probabilities_that_fail_on_the_way_leave_what_was_there(tmp_path):
    def heads():
        yield np.zeros((3, 4, 5), np.float32)
        raise OSError(28, "No space left on device")

    write_probabilities(tmp_path / "case", np.ones((2, 3, 4, 5), np.float32), 2)
    with pytest.raises(OSError, match="No space left"):
        write_probabilities(tmp_path / "case", heads(), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["case.npz"]
    with np.load(tmp_path / "case.npz") as archive:
        assert archive["probabilities"].all()
