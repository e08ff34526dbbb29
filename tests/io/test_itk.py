import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.core.errors import FileFormatError
from autoseg.io.images import read_header, read_image, read_labels, write_labels

ARRAY = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)


def write(path, array=ARRAY, *, compress=False, is_vector=False):
    image = sitk.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing((1.0, 2.0, 3.0, 1.0)[: image.GetDimension()])
    sitk.WriteImage(image, str(path), compress)
    return path


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".gipl"])
def test_values_nan_and_spacing_are_kept(tmp_path, ending, compress):
    array = ARRAY.copy()
    array[0, 0, 0], array[1, 1, 1] = np.nan, -np.inf
    path = write(tmp_path / f"a{ending}", array, compress=compress)
    image, geometry = read_image([path])
    np.testing.assert_array_equal(image[0], array)
    assert geometry.spacing == (3.0, 2.0, 1.0)
    assert read_header(path) == (image.shape, geometry)


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_vectors_and_a_fourth_axis_are_channels_and_flat_images_have_one_slice(tmp_path, ending, compress):
    channels = np.stack([ARRAY, ARRAY + 1])
    vector = write(tmp_path / f"v{ending}", np.moveaxis(channels, 0, -1), compress=compress, is_vector=True)
    fourth = write(tmp_path / f"f{ending}", channels, compress=compress)
    for path in (vector, fourth):
        np.testing.assert_array_equal(read_image([path])[0], channels)
        assert read_header(path)[0] == (2, 6, 5, 4)
    image, geometry = read_image([write(tmp_path / f"flat{ending}", ARRAY[0], compress=compress)])
    assert image.shape == (1, 1, 5, 4)
    assert geometry.spacing == (1998.0, 2.0, 1.0)
    assert geometry.ndim == 2


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compress", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("cut", [3, 150], ids=["few bytes", "many bytes"])
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".gipl"])
def test_a_truncated_file_is_refused(tmp_path, ending, cut, compress):
    path = write(tmp_path / f"a{ending}", compress=compress)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FileFormatError, match=r"truncated") as caught:
        read_image([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_changed_byte_in_a_compressed_file_is_refused(tmp_path, ending):
    path = write(tmp_path / f"a{ending}", compress=True)
    content = bytearray(path.read_bytes())
    content[-100] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"data read error|damaged compressed stream"):
        read_image([path])


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".gipl"])
def test_labels_are_written_with_their_geometry(tmp_path, ending):
    _, geometry = read_image([write(tmp_path / f"a{ending}")])
    labels = np.arange(120, dtype=np.uint16).reshape(6, 5, 4) * 3
    write_labels(tmp_path / f"p{ending}", labels, geometry)
    again, written = read_labels(tmp_path / f"p{ending}")
    np.testing.assert_array_equal(again, labels)
    assert again.dtype == np.uint16
    assert written == geometry


def test_forms_that_are_not_supported_say_so(tmp_path):
    _, geometry = read_image([write(tmp_path / "a.nrrd")])
    with pytest.raises(FileFormatError, match="one file per case"):
        write_labels(tmp_path / "p.mhd", np.zeros((6, 5, 4), np.uint8), geometry)
    with pytest.raises(FileFormatError, match="complex values"):
        read_image([write(tmp_path / "c.nrrd", ARRAY.astype(np.complex64))])
    (tmp_path / "x.nrrd").write_text("no nrrd")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_image([tmp_path / "x.nrrd"])


def test_files_that_do_not_say_how_their_axes_lie_are_told_from_those_that_do(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5), np.uint8))
    for ending in (".nrrd", ".mha", ".nii.gz", ".gipl"):
        sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
        assert read_header(tmp_path / f"a{ending}")[1].is_directed == (ending != ".gipl")
        assert read_image([tmp_path / f"a{ending}"])[1].is_directed == (ending != ".gipl")
    header = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 5 4 3\nspacings: 1 1 2\nencoding: raw\n\n"
    (tmp_path / "b.nrrd").write_bytes(header.encode() + bytes(60))
    header = "NDims = 3\nDimSize = 5 4 3\nElementSpacing = 1 1 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "b.mha").write_bytes(header.encode() + bytes(60))
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), np.uint8), None), tmp_path / "b.nii.gz")  # codes 0: unknown
    assert not any(read_header(tmp_path / name)[1].is_directed for name in ("b.nrrd", "b.mha", "b.nii.gz"))
