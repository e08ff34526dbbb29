import gzip
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.io import nifti
from autoseg.io.images import read_header, read_image, read_labels, read_remarks, write_labels

SPACING = np.array([1.0, 2.0, 3.0])


def rotation(about_x, about_z):
    cx, sx, cz, sz = np.cos(about_x), np.sin(about_x), np.cos(about_z), np.sin(about_z)
    return np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])


def affine(matrix, origin=(11.0, -7.0, 3.5)):
    result = np.eye(4)
    result[:3, :3] = matrix * SPACING
    result[:3, 3] = origin
    return result


OBLIQUE = affine(rotation(0.2, 0.3))
OTHER = affine(rotation(0.0, -0.5), origin=(7.0, 8.0, 9.0))
FLIPPED = affine(np.diag([-1.0, 1.0, -1.0]))
SHEAR = np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1.0]])


def write(path, array, sform=None, sform_code=0, qform=None, qform_code=0):
    image = nib.Nifti1Image(array, None)
    image.header.set_zooms((*SPACING, *[1.0] * array.ndim)[: array.ndim])
    image.set_sform(sform, sform_code)
    image.set_qform(qform, qform_code, strip_shears=True)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"scanner 7"
    nib.save(image, path)
    return path


FORMS = {
    "sform only": (OBLIQUE, 1, None, 0),
    "qform only": (None, 0, OBLIQUE, 1),
    "flipped sform": (FLIPPED, 1, None, 0),
    "flipped qform": (None, 0, FLIPPED, 1),
    "sform is scanner": (OBLIQUE, 1, OTHER, 1),
    "qform wins over aligned sform": (OBLIQUE, 2, OTHER, 1),
    "sheared sform loses": (affine(rotation(0.2, 0.3) @ SHEAR), 1, OTHER, 1),
    "neither": (None, 0, None, 0),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("form", FORMS)
def test_geometry_is_itks_and_a_prediction_lies_where_its_image_lies(tmp_path, form, ending):
    source = write(tmp_path / f"a{ending}", np.arange(24, dtype=np.int16).reshape(2, 3, 4), *FORMS[form])
    image, geometry = read_image([source])
    ours = sitk.ReadImage(str(source))
    np.testing.assert_array_equal(image[0], sitk.GetArrayFromImage(ours))
    assert geometry.spacing == ours.GetSpacing()[::-1]
    assert geometry.origin == ours.GetOrigin()
    assert geometry.direction == ours.GetDirection()

    labels = (image[0].astype(np.uint8)) % 3
    write_labels(tmp_path / f"p{ending}", labels, geometry)
    written = sitk.ReadImage(str(tmp_path / f"p{ending}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), labels)
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(written, name)(), getattr(ours, name)(), atol=1e-6)
    np.testing.assert_array_equal(nib.load(tmp_path / f"p{ending}").affine, nib.load(source).affine)
    header = nib.load(tmp_path / f"p{ending}").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == FORMS[form][3:0:-2]
    assert header.get_xyzt_units()[0] == "mm"
    assert bytes(header["descrip"]).startswith(b"scanner 7")


@pytest.mark.parametrize("target", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("source", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_geometry_survives_a_change_of_format(tmp_path, source, target, ndim):
    original = sitk.GetImageFromArray(np.zeros((4, 3, 2)[:ndim], np.float32))
    original.SetSpacing((0.5, 0.75, 3.0)[:ndim])
    original.SetOrigin((10.0, -20.0, 30.0)[:ndim])
    direction = rotation(0.0, 0.4) if ndim == 2 else rotation(0.7, 0.4)
    original.SetDirection(direction[:ndim, :ndim].ravel().tolist())
    sitk.WriteImage(original, str(tmp_path / f"a{source}"))
    image, geometry = read_image([tmp_path / f"a{source}"])
    assert geometry.ndim == ndim
    assert image.shape == ((1, 4, 3, 2) if ndim == 3 else (1, 1, 4, 3))
    write_labels(tmp_path / f"p{target}", np.ones(image.shape[1:], np.uint8), geometry)
    written = sitk.ReadImage(str(tmp_path / f"p{target}"))
    for name in ("GetSpacing", "GetOrigin", "GetDirection", "GetSize"):
        np.testing.assert_allclose(getattr(written, name)(), getattr(original, name)(), atol=1e-5)


def test_a_flat_image_has_one_slice_thicker_than_any(tmp_path):
    write(tmp_path / "flat.nii.gz", np.zeros((4, 3), np.float32), OBLIQUE, 1)
    shape, geometry = read_header(tmp_path / "flat.nii.gz")
    assert shape == (1, 1, 3, 4)
    assert geometry.ndim == 2
    np.testing.assert_allclose(geometry.spacing, (1998.0, 2.0, 1.0))
    write(tmp_path / "slice.nii.gz", np.zeros((4, 3, 1), np.float32), OBLIQUE, 1)
    assert read_header(tmp_path / "slice.nii.gz")[1].ndim == 3


def test_the_fourth_axis_holds_channels_and_colours_are_channels(tmp_path):
    array = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    image, geometry = read_image([write(tmp_path / "a.nii.gz", array, OBLIQUE, 1)])
    np.testing.assert_array_equal(image, array.transpose(3, 2, 1, 0))
    assert image.flags.c_contiguous
    assert read_header(tmp_path / "a.nii.gz") == (image.shape, geometry)
    write_labels(tmp_path / "p.nii.gz", np.zeros((4, 3, 2), np.uint8), geometry)
    assert nib.load(tmp_path / "p.nii.gz").shape == (2, 3, 4)

    rgb = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"][1, 2, 3] = 200
    image, _ = read_image([write(tmp_path / "rgb.nii", rgb, OBLIQUE, 1)])
    assert image.shape == (3, 4, 3, 2)
    assert image[1, 3, 2, 1] == 200
    assert image.sum() == 200


@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<f8", "<i4", "u1"])
def test_values_are_scaled_and_byte_orders_are_read(tmp_path, dtype):
    values = np.arange(24).reshape(2, 3, 4)
    header = nib.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(np.dtype(dtype))
    header.set_data_shape(values.shape)
    header.set_sform(OBLIQUE, 1)
    header["scl_slope"], header["scl_inter"] = 2.0, -1.0
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + bytes(4) + values.astype(dtype).tobytes(order="F"))
    image, geometry = read_image([path])
    np.testing.assert_array_equal(image[0], values.T * 2 - 1)
    assert image.dtype == np.float32
    assert image.dtype.isnative
    write_labels(tmp_path / "p.nii", np.ones((4, 3, 2), np.uint8), geometry)
    assert nib.load(tmp_path / "p.nii").get_fdata().max() == 1


def test_nan_and_inf_stay(tmp_path):
    array = np.zeros((2, 3, 4), np.float32)
    array[0, 0, 0], array[1, 2, 3] = np.nan, np.inf
    image, _ = read_image([write(tmp_path / "a.nii.gz", array, OBLIQUE, 1)])
    assert np.isnan(image[0, 0, 0, 0])
    assert np.isinf(image[0, 3, 2, 1])


def damaged(path, how):
    content = path.read_bytes()
    if how == "half":
        path.write_bytes(content[: len(content) // 2])
    elif how == "end":
        path.write_bytes(content[:-4])
    elif how == "flip":
        path.write_bytes(content[:-6] + bytes([content[-6] ^ 0xFF]) + content[-5:])
    elif how == "header":
        path.write_bytes(content[:40])
    return path


@pytest.mark.parametrize(
    ("ending", "how", "message"),
    [
        (".nii.gz", "half", "truncated gzip stream of [0-9]+ bytes, expected 832 bytes"),
        (".nii.gz", "end", "truncated gzip stream"),
        (".nii.gz", "flip", "damaged gzip stream"),
        (".nii", "half", "found 4[0-9]+ bytes, expected [0-9]+ bytes as its header says"),
        (".nii", "end", "bytes as its header says"),
        (".nii", "header", "found 40 header bytes"),
    ],
)
def test_damage_is_noticed(tmp_path, ending, how, message):
    array = np.random.default_rng(0).normal(size=(5, 6, 4)).astype(np.float32)
    path = damaged(write(tmp_path / f"a{ending}", array, OBLIQUE, 1), how)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_image([path])
    assert str(path) in str(caught.value)


def test_a_gzip_stream_that_is_whole_but_too_short_is_noticed(tmp_path):
    write(tmp_path / "a.nii", np.ones((5, 6, 7), np.float32), OBLIQUE, 1)
    with gzip.open(tmp_path / "b.nii.gz", "wb") as file:
        file.write((tmp_path / "a.nii").read_bytes()[:-40])
    with pytest.raises(FileFormatError, match="found 1152 bytes, expected 1192 bytes"):
        read_image([tmp_path / "b.nii.gz"])


def test_several_gzip_streams_in_one_file_are_read_and_checked(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    content = write(tmp_path / "a.nii", array, OBLIQUE, 1).read_bytes()
    parts = [gzip.compress(content[:400]), gzip.compress(content[400:])]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts))
    np.testing.assert_array_equal(read_image([tmp_path / "b.nii.gz"])[0][0], array.T)
    (tmp_path / "c.nii.gz").write_bytes(b"".join(parts)[:-6])
    with pytest.raises(FileFormatError, match="truncated gzip stream"):
        read_image([tmp_path / "c.nii.gz"])


def test_the_second_version_of_nifti_is_read_and_written(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    nib.save(nib.Nifti2Image(array, OBLIQUE), tmp_path / "a.nii.gz")
    image, geometry = read_image([tmp_path / "a.nii.gz"])
    _, first = read_image([write(tmp_path / "b.nii", array, OBLIQUE, 1)])
    np.testing.assert_array_equal(image[0], array.T)
    assert geometry.differs_from(first) == ()
    write_labels(tmp_path / "p.nii.gz", np.ones((4, 3, 2), np.uint8), geometry)
    written = nib.load(tmp_path / "p.nii.gz")
    assert isinstance(written, nib.Nifti2Image)
    np.testing.assert_allclose(written.affine, OBLIQUE)


def test_two_statements_of_the_spacing_are_remarked(tmp_path):
    path = write(tmp_path / "a.nii", np.zeros((2, 3, 4), np.float32), OBLIQUE @ np.diag([2, 1, 1, 1]), 1)
    assert read_header(path)[1].spacing == (3.0, 2.0, 1.0)
    (remark,) = read_remarks(path)
    assert "1 x 2 x 3 mm in pixdim" in remark and "2 x 2 x 3 mm in sform" in remark
    assert "1 x 2 x 3 mm is used" in remark


def test_forms_that_place_voxels_differently_are_remarked(tmp_path):
    array = np.zeros((2, 3, 4), np.float32)
    (remark,) = read_remarks(write(tmp_path / "a.nii", array, OBLIQUE, 2, OTHER, 1))
    assert "qform and sform place the voxels differently" in remark
    assert read_remarks(write(tmp_path / "b.nii", array, OBLIQUE, 2, OBLIQUE, 1)) == ()


def with_floats(path, **values):
    """Overwrite single numbers of a NIfTI-1 header, as no library would write them."""
    content = bytearray(path.read_bytes())
    for name, value in values.items():
        at = {"slope": 112, "inter": 116, "offset": 108, "qfac": 76}[name]
        content[at : at + 4] = np.float32(value).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "values",
    [
        {"slope": 1.0, "inter": np.nan},
        {"slope": 1.0, "inter": np.inf},
        {"slope": 2.0, "inter": -np.inf},
        {"slope": np.nan, "inter": np.nan},
        {"slope": 0.0, "inter": 0.0},
        {"slope": 2.0, "inter": 3.0},
    ],
    ids=str,
)
def test_a_slope_or_intercept_that_is_no_number_is_read_as_itk_does(tmp_path, values):
    path = with_floats(write(tmp_path / "a.nii", np.arange(24, dtype=np.int16).reshape(2, 3, 4), OBLIQUE, 1), **values)
    np.testing.assert_array_equal(read_image([path])[0][0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    assert bool(read_remarks(path)) == (np.isfinite([*values.values()]).sum() == 1)


def test_a_missing_offset_and_handedness_are_taken_for_the_usual(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = with_floats(write(tmp_path / "a.nii", array, OBLIQUE, 1, OBLIQUE, 1), offset=0.0, qfac=0.0)
    np.testing.assert_array_equal(read_image([path])[0][0], array.T)


@pytest.mark.parametrize("decimals", [12, 3], ids=["exact", "rounded"])
@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image], ids=["nifti1", "nifti2"])
@pytest.mark.parametrize(("unit", "in_mm"), [("micron", 1e-3), ("mm", 1.0), ("meter", 1e3), ("unknown", 1.0)])
def test_units_of_length_are_read_in_both_versions(tmp_path, unit, in_mm, cls, decimals):
    matrix = np.round(OBLIQUE, decimals)
    source = cls(np.arange(24, dtype=np.int16).reshape(2, 3, 4), matrix)
    source.set_qform(None, 0)
    source.header.set_xyzt_units(unit)
    nib.save(source, tmp_path / "a.nii")
    _, geometry = read_image([tmp_path / "a.nii"])
    np.testing.assert_allclose(geometry.spacing[::-1], SPACING * in_mm, rtol=1e-3)
    np.testing.assert_allclose(geometry.origin, np.array([-1, -1, 1]) * matrix[:3, 3] * in_mm, rtol=1e-5)
    np.testing.assert_allclose(
        np.reshape(geometry.direction, (3, 3)), np.diag([-1, -1, 1]) @ OBLIQUE[:3, :3] / SPACING, atol=1e-3
    )
    assert read_remarks(tmp_path / "a.nii") == ()
    write_labels(tmp_path / "p.nii", np.ones((4, 3, 2), np.uint8), geometry)
    written = nib.load(tmp_path / "p.nii")
    assert written.header.get_xyzt_units()[0] == unit
    np.testing.assert_allclose(written.affine, matrix, atol=1e-5)
    assert read_header(tmp_path / "p.nii")[1].differs_from(geometry) == ()


@pytest.mark.parametrize("cls", [nib.Nifti1Image, nib.Nifti2Image], ids=["nifti1", "nifti2"])
def test_compression_is_seen_in_the_content_not_in_the_name(tmp_path, cls):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    nib.save(cls(array, OBLIQUE), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()
    _, expected = read_image([tmp_path / "a.nii"])
    (tmp_path / "packed.nii").write_bytes(gzip.compress(content))
    (tmp_path / "plain.nii.gz").write_bytes(content)
    for name in ("packed.nii", "plain.nii.gz"):
        image, geometry = read_image([tmp_path / name])
        np.testing.assert_array_equal(image[0], array.T)
        assert geometry == expected
        assert read_header(tmp_path / name) == (image.shape, geometry)
        assert "gzip-compressed" in " ".join(read_remarks(tmp_path / name))
        np.testing.assert_array_equal(read_labels(tmp_path / name)[0], array.T)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.float64, np.float32, np.int8])
def test_labels_of_any_type_are_whole_numbers(tmp_path, dtype):
    labels = np.arange(24).reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(labels.astype(dtype), OBLIQUE, dtype=dtype), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii.gz")[0], labels.T)


def test_colours_are_no_labels(tmp_path):
    rgb = np.zeros((2, 3, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"][1, 2, 3] = 200
    with pytest.raises(FileFormatError, match="3 channels that differ"):
        read_labels(write(tmp_path / "rgb.nii", rgb, OBLIQUE, 1))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (40, b"\xff\x7f", "a header that is not valid"),
        (42, b"\x00\x00", r"found axes \(0, 3, 4\), expected 2 or 3 spatial axes"),
        (70, b"\x99\x09", "a header that is not valid"),
        (108, b"\x00\x00\x00\xff", "a header that is not valid"),
    ],
    ids=["dim", "empty axis", "type", "offset"],
)
def test_a_damaged_header_is_refused(tmp_path, at, value, message):
    path = write(tmp_path / "a.nii", np.zeros((2, 3, 4), np.float32), OBLIQUE, 1)
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=message):
        read_header(path)


def test_sheared_axes_are_refused_and_rounding_is_not(tmp_path):
    array = np.zeros((2, 3, 4), np.float32)
    sheared = write(tmp_path / "a.nii", array, affine(rotation(0.2, 0.3) @ SHEAR), 1)
    with pytest.raises(FileFormatError, match=r"sheared axes.*expected axes at right angles"):
        read_image([sheared])
    slightly = SHEAR * [1, 0.004, 1] + np.diag([0, 0.996, 0])
    _, geometry = read_image([write(tmp_path / "b.nii", array, affine(rotation(0.2, 0.3) @ slightly), 1)])
    _, exact = read_image([write(tmp_path / "c.nii", array, affine(rotation(0.2, 0.3)), 1)])
    direction = np.reshape(geometry.direction, (3, 3))
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    assert geometry.differs_from(exact) == ()


@pytest.mark.parametrize("cut", [1, 5])
def test_a_header_that_cannot_be_inflated_is_refused(tmp_path, cut):
    path = write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.float32), OBLIQUE, 1)
    path.write_bytes(path.read_bytes()[: 10 * cut])
    with pytest.raises(FileFormatError, match="truncated gzip stream"):
        read_header(path)


def test_unsupported_variants_are_refused_with_the_reason(tmp_path):
    with pytest.raises(FileFormatError, match="complex values"):
        read_image([write(tmp_path / "c.nii", np.zeros((2, 3, 4), np.complex64), OBLIQUE, 1)])
    with pytest.raises(FileFormatError, match="at most one axis of channels"):
        read_image([write(tmp_path / "t.nii", np.zeros((2, 3, 4, 2, 2), np.float32), OBLIQUE, 1)])
    (tmp_path / "x.nii").write_bytes(b"not a nifti file at all" * 40)
    with pytest.raises(FileFormatError, match="single-file NIfTI"):
        read_image([tmp_path / "x.nii"])


def test_a_header_of_another_grid_is_not_written_again(tmp_path):
    _, geometry = read_image([write(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.float32), OBLIQUE, 1)])
    coarse = Geometry(**geometry.model_dump() | {"spacing": (6.0, 4.0, 2.0)})
    write_labels(tmp_path / "p.nii.gz", np.zeros((2, 2, 1), np.uint8), coarse)
    _, written = read_labels(tmp_path / "p.nii.gz")
    assert written.differs_from(coarse) == ()


def test_real_images_are_read_as_itk_reads_them(real_data):
    path = sorted((real_data / "Dataset004_Hippocampus" / "imagesTr").glob("*.nii.gz"))[0]
    image, geometry = read_image([path])
    reference = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(image[0], sitk.GetArrayFromImage(reference))
    assert geometry.origin == reference.GetOrigin()


@pytest.mark.parametrize("matrix", [OBLIQUE, OTHER, FLIPPED], ids=["oblique", "other", "flipped"])
@pytest.mark.parametrize("code", ["sform", "qform"])
def test_without_simpleitk_the_geometry_is_the_same(tmp_path, monkeypatch, matrix, code):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), matrix if code == "sform" else None)
    if code == "qform":
        image.set_qform(matrix, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = read_header(tmp_path / "a.nii.gz")[1]
    monkeypatch.setattr(nifti, "is_installed", lambda: False)
    found = read_header(tmp_path / "a.nii.gz")[1]
    assert np.allclose(found.spacing, expected.spacing, rtol=1e-5)
    assert np.allclose(found.origin, expected.origin, atol=1e-4)
    assert np.allclose(found.direction, expected.direction, atol=1e-5)


WITHOUT_ITK = """
import sys
sys.modules["SimpleITK"] = None  # an import of it fails
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "SimpleITK" else found(name, *more)
import numpy as np, autoseg.training.fold, autoseg.inference.predictor, autoseg.planning
from autoseg.core.errors import ConfigError
from autoseg.core.geometry import Geometry
from autoseg.io.images import read_labels, write_labels
from pathlib import Path
labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
write_labels(Path("a.nii.gz"), labels, Geometry(spacing=(3, 2, 1)))
again, geometry = read_labels(Path("a.nii.gz"))
assert (again == labels).all() and np.allclose(geometry.spacing, (3, 2, 1)), geometry
try:
    write_labels(Path("a.nrrd"), labels, Geometry(spacing=(3, 2, 1)))
except ConfigError as error:
    assert "pip install SimpleITK" in str(error)
else:
    raise SystemExit("written")
"""


@pytest.mark.slow
def test_nifti_training_and_prediction_need_no_simpleitk_and_other_formats_say_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ITK], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
