import gzip
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from autoseg.core.errors import FileFormatError
from autoseg.io.images import read_header, read_image, read_labels, read_remarks, write_labels

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


def test_unsupported_variants_are_refused_with_the_reason(tmp_path):
    _, geometry = read_image([write(tmp_path / "a.nrrd")])
    with pytest.raises(FileFormatError, match="one file per case"):
        write_labels(tmp_path / "p.mhd", np.zeros((6, 5, 4), np.uint8), geometry)
    with pytest.raises(FileFormatError, match="complex values"):
        read_image([write(tmp_path / "c.nrrd", ARRAY.astype(np.complex64))])
    (tmp_path / "x.nrrd").write_text("no nrrd")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_image([tmp_path / "x.nrrd"])


def test_files_with_and_without_stated_axis_directions_are_distinguished(tmp_path):
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


SMALL = np.arange(120, dtype=np.int16).reshape(4, 5, 6)


def meta(path, *lines, data, separator=" = "):
    """Write a MetaImage by hand: (key, value) lines before ElementDataFile, the last of them; data follow if local."""
    head = ["ObjectType = Image", "NDims = 3", "DimSize = 6 5 4", "ElementType = MET_SHORT", "BinaryData = True"]
    text = "\n".join([*head, *lines]).replace(" = ", separator) + "\n"
    path.write_bytes(text.encode() + data)
    return path


def nrrd(path, *lines, data, sizes="6 5 4"):
    head = ["NRRD0005", "type: short", f"dimension: {len(sizes.split())}", f"sizes: {sizes}", "endian: little"]
    path.write_bytes("\n".join([*head, *lines, "", ""]).encode() + data)
    return path


def assert_lies_where_itk_says(path):
    image, geometry = read_image([path])
    theirs = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(image[0], sitk.GetArrayFromImage(theirs))
    assert geometry.spacing[::-1] == theirs.GetSpacing()
    assert geometry.origin == theirs.GetOrigin()
    assert geometry.direction == theirs.GetDirection()
    assert read_header(path)[1] == geometry
    sitk.WriteImage(theirs, str(path.with_name(f"saved{path.suffix}")))
    assert read_header(path.with_name(f"saved{path.suffix}"))[1].differs_from(geometry) == ()


@pytest.mark.parametrize("edges", ["1 1 2", "1 -1 2", "-1 1 -2", "-1 -1 -1"])
def test_a_negative_spacing_turns_the_axis_as_in_itk(tmp_path, edges):
    lines = [f"ElementSpacing = {edges}", "Offset = 10 20 30", "TransformMatrix = 0 1 0 1 0 0 0 0 1"]
    raw = SMALL.tobytes()
    assert_lies_where_itk_says(meta(tmp_path / "a.mha", *lines, "ElementDataFile = LOCAL", data=raw))
    assert_lies_where_itk_says(nrrd(tmp_path / "b.nrrd", f"spacings: {edges}", "encoding: raw", data=raw))
    rows = np.diag([float(edge) for edge in edges.split()]).tolist()
    directions = " ".join(f"({','.join(map(str, row))})" for row in rows)
    lines = ["space: left-posterior-superior", f"space directions: {directions}", "space origin: (1,2,3)"]
    assert_lies_where_itk_says(nrrd(tmp_path / "c.nrrd", *lines, "encoding: raw", data=raw))


@pytest.mark.parametrize("is_compressed", [False, True], ids=["raw", "compressed"])
@pytest.mark.parametrize("key", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])
@pytest.mark.parametrize(
    ("value", "order"), [("True", ">"), ("true", ">"), ("T", ">"), ("1", ">"), ("False", "<"), ("false", "<")]
)
def test_byte_orders_of_metaimages_are_read_in_every_spelling(tmp_path, key, value, order, is_compressed):
    data = SMALL.astype(f"{order}i2").tobytes()
    data = zlib.compress(data) if is_compressed else data
    lines = [f"CompressedData = {is_compressed}", f"CompressedDataSize = {len(data)}"] if is_compressed else []
    path = meta(tmp_path / "a.mha", *lines, f"{key} = {value}", "ElementDataFile = LOCAL", data=data)
    np.testing.assert_array_equal(read_image([path])[0][0], SMALL)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), SMALL)


@pytest.mark.parametrize("value", ["True", "true", "T", "1"])
@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("separator", [" = ", ": ", "="])
def test_compressed_metaimages_without_stated_length_are_no_noise(tmp_path, value, pack, separator):
    lines = [f"CompressedData = {value}", "ElementDataFile = LOCAL"]
    path = meta(tmp_path / "a.mha", *lines, data=pack(SMALL.tobytes()), separator=separator)
    np.testing.assert_array_equal(read_image([path])[0][0], SMALL)


@pytest.mark.parametrize("is_compressed", [False, True], ids=["raw", "compressed"])
def test_the_data_of_an_mhd_file_may_begin_later_and_must_be_whole(tmp_path, is_compressed):
    data = zlib.compress(SMALL.tobytes()) if is_compressed else SMALL.tobytes()
    lines = [f"CompressedData = {is_compressed}", "HeaderSize = 64", "ElementDataFile = a.data"]
    path = meta(tmp_path / "a.mhd", *lines, data=b"")
    with pytest.raises(FileFormatError, match=r"'a\.data', .*not there.*beside a\.mhd"):
        read_image([path])
    (tmp_path / "a.data").write_bytes(b"#" * 64 + data)
    np.testing.assert_array_equal(read_image([path])[0][0], SMALL)
    (tmp_path / "a.data").write_bytes(b"#" * 64 + data[:-5])
    with pytest.raises(FileFormatError, match=r"a\.data: found .*truncated"):
        read_image([path])


@pytest.mark.parametrize(
    "lines",
    [["encoding: gzip"], ["encoding: gz", "byte skip: 0", "line skip: 1"], ["encoding: hex"], ["encoding: raw"]],
    ids=str,
)
def test_encodings_of_nrrd_give_the_same_values(tmp_path, lines):
    raw = SMALL.tobytes()
    data = raw.hex().encode() if "hex" in lines[0] else gzip.compress(raw) if "gz" in lines[0] else raw
    data = b"a line of no meaning\n" + data if "line skip: 1" in lines else data
    path = nrrd(tmp_path / "a.nrrd", "spacings: 1 1 2", *lines, data=data)
    np.testing.assert_array_equal(read_image([path])[0][0], SMALL)
    (tmp_path / "b.data").write_bytes(data)
    detached = nrrd(tmp_path / "b.nrrd", "spacings: 1 1 2", *lines, "data file: b.data", data=b"")
    np.testing.assert_array_equal(read_image([detached])[0][0], SMALL)


def test_an_axis_without_direction_holds_channels(tmp_path):
    channels = np.stack([SMALL, SMALL + 1000])
    ways = {
        "1 0 0,0 1 0,0 0 2,none": ("6 5 4 2", channels),
        "none,1 0 0,0 1 0,0 0 2": ("2 6 5 4", np.moveaxis(channels, 0, -1)),
    }
    for number, (vectors, (sizes, stored)) in enumerate(ways.items()):
        directions = [part if part == "none" else f"({part.replace(' ', ',')})" for part in vectors.split(",")]
        kinds = ["list" if part == "none" else "domain" for part in directions]
        lines = [
            "space: LPS",
            f"space directions: {' '.join(directions)}",
            f"kinds: {' '.join(kinds)}",
            "encoding: raw",
        ]
        path = nrrd(tmp_path / f"{number}.nrrd", *lines, data=stored.tobytes(), sizes=sizes)
        np.testing.assert_array_equal(read_image([path])[0], channels)
        assert read_header(path)[1].spacing == (2.0, 1.0, 1.0)


@pytest.mark.parametrize("edges", ["1 0 2", "nan 1 2", "0 0 0"])
def test_a_spacing_of_nothing_is_refused(tmp_path, edges):
    lines = [f"ElementSpacing = {edges}", "ElementDataFile = LOCAL"]
    for read in (read_header, read_labels, read_remarks):
        with pytest.raises(FileFormatError, match=r"a\.mha: found voxel edges"):
            read(meta(tmp_path / "a.mha", *lines, data=SMALL.tobytes()))


def test_units_and_missing_sizes_in_headers_are_remarked(tmp_path):
    raw = SMALL.tobytes()
    microns = nrrd(
        tmp_path / "a.nrrd", "space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,2)", 'space units: "um" "um" "um"',
        "encoding: raw", data=raw,
    )  # fmt: skip
    assert "lengths in um" in " ".join(read_remarks(microns))
    assert "no voxel size" in " ".join(read_remarks(nrrd(tmp_path / "b.nrrd", "encoding: raw", data=raw)))
    assert read_remarks(nrrd(tmp_path / "c.nrrd", "spacings: 1 1 2", "encoding: raw", data=raw)) == ()
    local = "ElementDataFile = LOCAL"
    assert "no voxel size" in " ".join(read_remarks(meta(tmp_path / "d.mha", local, data=raw)))
    lines = ["DistanceUnits = um", "ElementSpacing = 1 1 2", local]
    assert "lengths in um" in " ".join(read_remarks(meta(tmp_path / "e.mha", *lines, data=raw)))
    assert read_remarks(write(tmp_path / "f.mha")) == read_remarks(write(tmp_path / "g.nrrd")) == ()
