"""One law for every format: what a box gives is the slice of the whole array."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tensorstore
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autoseg.core.boxes import Box
from autoseg.core.errors import ConfigError, FileFormatError
from autoseg.core.location import is_location, parse_location
from autoseg.io.arrays import open_array
from autoseg.io.images import ending_of_maps, read_header, read_intensities, read_labels

SHAPE = (5, 37, 45)
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 250, SHAPE, dtype=np.uint8)
CHANNELS = RNG.integers(0, 60000, (2, *SHAPE), dtype=np.uint16)
WIDE = RNG.normal(size=SHAPE).astype(np.float32)


def write_chunked(path, array, driver, chunk, **metadata):
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{path}/"}, "create": True}
    if metadata:
        spec["metadata"] = metadata
    store = tensorstore.open(
        spec,
        dtype=tensorstore.dtype(array.dtype),
        shape=array.shape,
        chunk_layout=None if "chunk_grid" in metadata else tensorstore.ChunkLayout(chunk_shape=chunk),
    ).result()
    store.write(array).result()
    return path


def sharded(path, array):
    inner = {"chunk_shape": [2, 8, 8], "codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}]}
    grid = {"name": "regular", "configuration": {"chunk_shape": [4, 16, 16]}}
    return write_chunked(
        path, array, "zarr3", (), chunk_grid=grid, codecs=[{"name": "sharding_indexed", "configuration": inner}]
    )


def precomputed(path, array):
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "multiscale_metadata": {"data_type": "uint8", "num_channels": 1, "type": "image"},
        "scale_metadata": {
            "size": array.shape[::-1], "resolution": [4, 4, 40], "encoding": "raw", "chunk_size": [16, 16, 4],
            "voxel_offset": [3, 2, 1],
        },
    }  # fmt: skip
    tensorstore.open(spec, create=True).result().write(array.T[..., None]).result()
    return path


def hdf5(path, array, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("volumes/raw", data=array, **options)
    return f"{path}:volumes/raw"


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def pages(path, array):
    with tifffile.TiffWriter(path) as file:
        for plane in array:
            file.write(plane, compression="zlib", metadata=None)
    return path


def npy(path, array):
    np.save(path, array)
    return path


def sections(folder, array, ending=".png"):
    folder.mkdir()
    for z, plane in enumerate(array, start=8):
        Image.fromarray(plane).save(folder / f"section_{z}{ending}")
    return folder


def nifti(path, array, slope=None):
    image = nib.Nifti1Image(array.transpose(range(array.ndim)[::-1]), np.diag([1, 1, 3, 1.0]))
    if slope:
        image.header.set_slope_inter(slope, 1)
    nib.save(image, path)
    return path


def nrrd(path, array):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    return path


WRITERS = {
    "zarr2": lambda d: (write_chunked(d / "a.zarr", GREY, "zarr", (2, 16, 16)), GREY),
    "zarr2_channels": lambda d: (write_chunked(d / "a.zarr", CHANNELS, "zarr", (1, 2, 16, 16)), CHANNELS),
    "zarr2_big_endian": lambda d: (
        write_chunked(d / "a.zarr", CHANNELS[0], "zarr", (2, 16, 16), dtype=">u2"), CHANNELS[0],
    ),
    "zarr3": lambda d: (write_chunked(d / "a.zarr", WIDE, "zarr3", (2, 16, 16)), WIDE),
    "zarr3_sharded": lambda d: (sharded(d / "a.zarr", GREY), GREY),
    "zarr3_bool": lambda d: (write_chunked(d / "a.zarr", GREY > 99, "zarr3", (2, 16, 16)), (GREY > 99) * np.uint8(1)),
    "zarr3_named_axes": lambda d: (
        write_chunked(d / "a.zarr", GREY.T.copy(), "zarr3", (16, 16, 2), dimension_names=["x", "y", "z"]), GREY,
    ),
    "zarr3_plane": lambda d: (write_chunked(d / "a.zarr", GREY[0], "zarr3", (16, 16)), GREY[:1]),
    "n5": lambda d: (write_chunked(d / "a.n5", GREY.T.copy(), "n5", (16, 16, 2)), GREY),
    "precomputed": lambda d: (precomputed(d / "a", GREY), GREY),
    "hdf5": lambda d: (hdf5(d / "a.h5", GREY), GREY),
    "hdf5_chunked": lambda d: (hdf5(d / "a.h5", CHANNELS, chunks=(1, 2, 8, 8), compression="gzip"), CHANNELS),
    "hdf5_big_endian": lambda d: (hdf5(d / "a.h5", WIDE.astype(">f4")), WIDE),
    "npy": lambda d: (npy(d / "a.npy", CHANNELS), CHANNELS),
    "npy_fortran": lambda d: (npy(d / "a.npy", np.asfortranarray(GREY)), GREY),
    "npy_plane": lambda d: (npy(d / "a.npy", WIDE[0]), WIDE[:1]),
    "tiff_plain": lambda d: (tiff(d / "a.tif", GREY), GREY),
    "tiff_big_endian": lambda d: (tiff(d / "a.tif", CHANNELS[0], byteorder=">"), CHANNELS[0]),
    "tiff_strips": lambda d: (tiff(d / "a.tif", WIDE, compression="zlib", predictor=True, rowsperstrip=8), WIDE),
    "tiff_tiles": lambda d: (tiff(d / "a.tif", GREY, compression="lzw", tile=(16, 32)), GREY),
    "tiff_pages": lambda d: (pages(d / "a.tif", GREY), GREY),
    "tiff_imagej": lambda d: (
        tiff(d / "a.tif", CHANNELS.swapaxes(0, 1), imagej=True, compression="zlib", metadata={"axes": "ZCYX"}),
        CHANNELS,
    ),
    "tiff_ome": lambda d: (
        tiff(d / "a.ome.tif", CHANNELS, compression="zlib", tile=(16, 16), metadata={"axes": "CZYX"}), CHANNELS,
    ),
    "tiff_colours": lambda d: (
        tiff(d / "a.tif", np.stack([GREY, GREY // 2, GREY // 3], -1), photometric="rgb", compression="zlib"),
        np.stack([GREY, GREY // 2, GREY // 3]),
    ),
    "tiff_bits": lambda d: (tiff(d / "a.tif", GREY > 99, compression="zlib"), (GREY > 99) * np.uint8(1)),
    "tiff_volumetric": lambda d: (tiff(d / "a.tif", GREY, compression="zlib", tile=(4, 16, 16), volumetric=True), GREY),
    "tiff_jpeg": lambda d: (
        tiff(d / "a.tif", GREY[..., None] // np.uint8([1, 2, 3]), compression="jpeg", photometric="rgb", tile=(16, 16)),
        np.moveaxis(tifffile.imread(d / "a.tif"), -1, 0),
    ),
    "tiff_sparse": lambda d: (
        tiff(
            d / "a.tif", (np.full((16, 16), i, np.uint8) if i % 3 == 0 else None for i in range(12)),
            shape=(3, 20, 30), dtype="uint8", tile=(16, 16), compression="zlib", photometric="minisblack",
        ),
        tifffile.imread(d / "a.tif"),
    ),
    "sections_png": lambda d: (sections(d / "a", GREY), GREY),
    "sections_tif": lambda d: (sections(d / "a", WIDE, ".tif"), WIDE),
    "nii": lambda d: (nifti(d / "a.nii", CHANNELS), CHANNELS),
    "nii_scaled": lambda d: (nifti(d / "a.nii", GREY, slope=0.5), GREY * np.float32(0.5) + 1),
    "nii_gz": lambda d: (nifti(d / "a.nii.gz", GREY), GREY),
    "nrrd": lambda d: (nrrd(d / "a.nrrd", CHANNELS[0]), CHANNELS[0]),
}  # fmt: skip


@pytest.fixture(scope="module", params=WRITERS)
def stored(request, tmp_path_factory):
    location, array = WRITERS[request.param](tmp_path_factory.mktemp(request.param))
    return open_array(location), array.reshape((1,) * (4 - array.ndim) + array.shape)


def border_boxes(shape):
    """A box at each corner, edge and face, and in the middle."""
    spans = [[(0, 1), (edge // 3, max(edge // 3 + 1, edge - 1)), (edge - 1, edge)] for edge in shape]
    return [Box(tuple(a for a, _ in spans), tuple(b for _, b in spans)) for spans in product(*spans)]


def test_a_box_gives_the_slice_of_the_whole(stored):
    array, whole = stored
    assert array.shape == whole.shape
    assert array.dtype == whole.dtype
    for box in (Box.whole(array.spatial_shape), *border_boxes(array.spatial_shape)):
        values = array.read(box)
        assert values.dtype == array.dtype
        assert values.flags.c_contiguous
        assert values.flags.writeable
        assert np.array_equal(values, whole[(slice(None), *box.slices)]), box


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_boxes_give_the_slice_of_the_whole(stored, data):
    array, whole = stored
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in array.spatial_shape]
    box = Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    assert np.array_equal(array.read(box), whole[(slice(None), *box.slices)])


def test_a_box_that_overhangs_is_refused(stored):
    array, _ = stored
    _, y, x = array.spatial_shape
    for box in (Box((-1, 0, 0), (1, 1, 1)), Box((0, 0, 0), (1, 1, x + 1)), Box((0, y + 2, 0), (1, y + 3, 1))):
        with pytest.raises(ValueError, match="overhangs"):
            array.read(box)


def test_threads_read_the_same_array(stored):
    array, whole = stored
    boxes = border_boxes(array.spatial_shape) * 2
    with ThreadPoolExecutor(4) as pool:
        for box, values in zip(boxes, pool.map(array.read, boxes), strict=True):
            assert np.array_equal(values, whole[(slice(None), *box.slices)])


def test_only_tiles_can_be_missing(stored):
    array, _ = stored
    assert array.missing() == ()
    assert array.known(Box((0, 0, 0), (1, 2, 3))).all()


def test_chunks_are_those_of_the_format(tmp_path):
    assert open_array(WRITERS["zarr3_sharded"](tmp_path)[0]).chunk == (2, 8, 8)
    assert open_array(WRITERS["hdf5_chunked"](tmp_path)[0]).chunk == (2, 8, 8)
    assert open_array(WRITERS["tiff_tiles"](tmp_path)[0]).chunk == (1, 16, 32)
    assert open_array(WRITERS["n5"](tmp_path)[0]).chunk == (2, 16, 16)


def test_voxel_sizes_are_read_in_mm(tmp_path):
    assert open_array(precomputed(tmp_path / "p", GREY)).geometry.spacing == pytest.approx((4e-5, 4e-6, 4e-6))
    assert open_array(nifti(tmp_path / "a.nii", GREY)).geometry.spacing == (3, 1, 1)
    location = hdf5(tmp_path / "a.h5", GREY)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["volumes/raw"].attrs["element_size_um"] = [0.04, 0.004, 0.004]
    assert open_array(location).geometry.spacing == pytest.approx((4e-5, 4e-6, 4e-6))


@pytest.mark.parametrize("name", ["npy", "hdf5", "zarr3", "sections_png", "tiff_tiles"])
def test_a_json_file_beside_an_array_states_the_voxel_size_that_it_lacks(tmp_path, name):
    location = WRITERS[name](tmp_path)[0]
    assert open_array(location).geometry.metadata["spacing"] == "assumed"
    assert "no voxel size" in open_array(location).header.unknown_size  # the check says so: 1 mm would be planned with
    (tmp_path / "a.json").write_text('{"spacing": [50, 4, 4]}', encoding="utf-8")
    assert open_array(location).geometry.spacing == (50, 4, 4)
    assert not open_array(location).header.unknown_size
    if name != "tiff_tiles":  # whose JSON files have no other purpose
        (tmp_path / "a.json").write_text('{"note": 1}', encoding="utf-8")
        assert open_array(location).geometry.metadata["spacing"] == "assumed"


def test_another_process_reads_what_this_one_has_open(tmp_path):
    location, whole = WRITERS["zarr3_sharded"](tmp_path)
    array = open_array(location)
    code = (
        "import sys; from autoseg.io.arrays import open_array; from autoseg.core.boxes import Box; "
        "print(int(open_array(sys.argv[1]).read(Box((1, 2, 3), (5, 30, 40))).sum()))"
    )
    done = subprocess.run([sys.executable, "-c", code, array.location], capture_output=True, check=True)
    assert int(done.stdout) == whole[1:5, 2:30, 3:40].sum() == array.read(Box((1, 2, 3), (5, 30, 40))).sum()


@pytest.mark.parametrize("name", ["npy", "nii", "tiff_plain"])
def test_a_box_of_a_mapped_file_takes_little_memory(tmp_path, name):
    big = np.zeros((64, 512, 512), dtype=np.uint16)
    location = {"npy": npy, "nii": nifti, "tiff_plain": tiff}[name](tmp_path / f"a.{name.split('_')[0][:3]}", big)
    tracemalloc.start()
    open_array(location).read(Box((5, 100, 100), (6, 200, 200)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.h5:raw", ("a.h5", "raw")),
        ("a.zarr:labels/cells/0", ("a.zarr", "labels/cells/0")),
        ("a.zarr", ("a.zarr", "")),
        ("C:\\data\\a.zarr", ("C:\\data\\a.zarr", "")),
        ("C:\\data\\a.zarr:0", ("C:\\data\\a.zarr", "0")),
        ("a.h5:", ("a.h5", "")),
    ],
)
def test_a_location_is_a_path_and_a_name(text, expected):
    path, name = parse_location(text)
    assert (str(path), name) == expected


def test_a_path_with_a_colon_that_exists_is_not_split(tmp_path):
    location = npy(tmp_path / "a:b.npy", GREY)
    assert open_array(location).spatial_shape == SHAPE


MISTAKES = {
    "misspelt": (lambda d: npy(d / "cells.npy", GREY).with_name("cell.npy"), "no such file.*Did you mean 'cells.npy'"),
    "name_in_a_file": (lambda d: f"{npy(d / 'a.npy', GREY)}:raw", "Leave out the colon"),
    "wrong_key": (lambda d: hdf5(d / "a.h5", GREY).replace("raw", "row"), "Did you mean 'volumes/raw'"),
    "wrong_array": (lambda d: f"{write_chunked(d / 'a.zarr/raw', GREY, 'zarr3', SHAPE).parent}:row", "the arrays raw"),
    "five_axes": (lambda d: npy(d / "a.npy", np.zeros((2, 2, 2, 2, 2))), "2 to 4 axes"),
    "vector": (lambda d: npy(d / "a.npy", np.zeros(3)), "2 to 4 axes"),
    "complex": (lambda d: npy(d / "a.npy", np.zeros((2, 2), dtype=complex)), "integers or floating-point"),
    "text": (lambda d: npy(d / "a.npy", np.array([["a"]])), "integers or floating-point"),
    "objects": (lambda d: npy(d / "a.npy", np.array([[None]])), "no array"),
    "address": (lambda d: "s3://bucket/a.zarr", "a path on this machine"),
    "empty_axis": (lambda d: npy(d / "a.npy", np.zeros((0, 4))), "none of them empty"),
    "other_ending": (lambda d: npy(d / "a.npy", GREY).rename(d / "a.dat"), "one of .h5"),
    "empty_folder": (lambda d: d, "a folder without pictures"),
    "dicom": (lambda d: (d / "1.dcm").write_bytes(bytes(128) + b"DICM") and d, "DICOM files.*Convert each series"),
    "empty_zarr": (lambda d: (d / "a.zarr").mkdir() or d / "a.zarr", "without metadata"),
    "times": (lambda d: write_chunked(d / "a.zarr", np.zeros((3, 1, 2, 2, 2)), "zarr3", (1,) * 5), "3 time points"),
    "complex_zarr": (
        lambda d: write_chunked(d / "a.zarr", np.zeros((2, 2), dtype=np.complex64), "zarr3", (2, 2)), "of type complex",
    ),
    "scale": (lambda d: f"{precomputed(d / 'a', GREY)}:7", "the scales 4_4_40"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(tmp_path, mistake):
    make, message = MISTAKES[mistake]
    with pytest.raises(FileFormatError, match=message):
        open_array(make(tmp_path))


def test_truncated_nifti_is_refused_at_once(tmp_path):
    path = nifti(tmp_path / "a.nii", GREY)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="truncated"):
        open_array(path)


@pytest.mark.parametrize("name", ["zarr3_sharded", "tiff_tiles", "hdf5_chunked", "sections_png"])
def test_damage_is_an_error_and_never_a_value(tmp_path, name):
    location, _ = WRITERS[name](tmp_path)
    array = open_array(location)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.suffix != ".json"]
    for path in files:
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle - 60 : middle + 60] = bytes(120)
        path.write_bytes(content)
    with pytest.raises(FileFormatError):
        array.read(Box.whole(array.spatial_shape))


def test_sections_that_differ_are_refused(tmp_path):
    folder = sections(tmp_path / "a", GREY)
    Image.fromarray(GREY[0, :20]).save(folder / "section_10.png")
    array = open_array(folder)
    assert array.read(Box((0, 0, 0), (2, 37, 45))).any()
    with pytest.raises(FileFormatError, match=r"section_10.png: found \(1, 20, 45\)"):
        array.read(Box((2, 0, 0), (3, 1, 1)))


def test_a_gap_in_the_numbers_of_sections_is_a_remark(tmp_path):
    folder = sections(tmp_path / "a", GREY)
    assert open_array(folder).header.remarks == ()
    (folder / "section_10.png").unlink()
    assert open_array(folder).header.remarks[0].startswith("no section has the number 10")


def test_sections_of_two_formats_are_refused(tmp_path):
    folder = sections(tmp_path / "a", GREY)
    Image.fromarray(GREY[0]).save(folder / "notes.bmp")
    with pytest.raises(FileFormatError, match="several formats"):
        open_array(folder)


def test_labels_in_a_lossy_format_are_refused(tmp_path):
    folder = sections(tmp_path / "a", GREY, ".jpg")
    assert open_array(folder).spatial_shape == SHAPE
    with pytest.raises(FileFormatError, match="lossy"):
        open_array(folder, as_labels=True)


@pytest.mark.parametrize("module", ["tensorstore", "yaozarrs"])
def test_a_package_that_is_not_installed_is_named_with_the_command(tmp_path, monkeypatch, module):
    location = write_chunked(tmp_path / "a.zarr/0", GREY, "zarr3", SHAPE).parent
    ome = '{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {}}}'
    (location / "zarr.json").write_text(ome, encoding="utf-8")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"{module}.*pip install 'autoseg\[zarr\]'"):
        open_array(location)


def written_volumes(folder):
    """Location of one volume in every kind of store that can hold it."""
    np.save(folder / "grey.npy", GREY)
    with h5py.File(folder / "grey.h5", "w") as file:
        file["raw"] = GREY
    write_chunked(folder / "grey.zarr", GREY, "zarr3", (2, 16, 16))
    nib.save(nib.Nifti1Image(GREY.transpose(2, 1, 0), np.diag([-2.0, -2.0, 3.0, 1.0])), folder / "grey.nii.gz")
    return [folder / "grey.npy", f"{folder / 'grey.h5'}:raw", folder / "grey.zarr", folder / "grey.nii.gz"]


@pytest.mark.parametrize("kind", range(4))
def test_a_location_with_a_box_is_an_array_of_its_own(tmp_path, kind):
    location = f"{written_volumes(tmp_path)[kind]}[1:4, 5:30, 7:9]"
    array = open_array(location)
    assert array.spatial_shape == (3, 25, 2)
    assert array.location == location
    assert np.array_equal(array.read(Box.whole(array.spatial_shape))[0], GREY[1:4, 5:30, 7:9])
    assert np.array_equal(array.read(Box((1, 2, 0), (2, 5, 1)))[0], GREY[2:3, 7:10, 7:8])
    image, _ = read_intensities([location, location])
    assert np.array_equal(image, GREY[None, 1:4, 5:30, 7:9].repeat(2, axis=0))
    assert read_header(location)[0] == (1, 3, 25, 2)
    assert np.array_equal(read_labels(location)[0], GREY[1:4, 5:30, 7:9])
    assert is_location(location)
    assert ending_of_maps(Path(location)) == ".nii.gz"


def test_a_box_lies_in_the_world_where_its_voxels_lie(tmp_path):
    *_, nifti = written_volumes(tmp_path)
    whole, part = open_array(nifti).geometry, open_array(f"{nifti}[1:4, 5:30, 7:9]").geometry
    assert part.spacing == whole.spacing == (3, 2, 2)
    assert part.origin == pytest.approx(np.add(whole.origin, (14, 10, 3)))
    assert part.direction == whole.direction


def test_a_box_that_is_empty_or_leaves_the_volume_is_refused(tmp_path):
    np.save(tmp_path / "grey.npy", GREY)
    for box in ("[0:6, 0:2, 0:2]", "[0:0, 0:2, 0:2]"):
        with pytest.raises(FileFormatError, match=r"the box .* of an array of \(5, 37, 45\) voxels"):
            open_array(f"{tmp_path / 'grey.npy'}{box}")


def test_labels_of_the_shape_of_the_box_are_those_of_the_box(tmp_path):
    box = "[2:4, 5:30, 7:40]"
    np.save(tmp_path / "whole.npy", GREY)
    np.save(tmp_path / "cube.npy", GREY[2:4, 5:30, 7:40])
    for name in ("whole", "cube"):
        location = f"{tmp_path / name}.npy{box}"
        assert np.array_equal(read_labels(location)[0], GREY[2:4, 5:30, 7:40])
        assert read_header(location, as_labels=True)[0] == (1, 2, 25, 33)
    with pytest.raises(FileFormatError, match="or an array of the shape of the box"):
        read_labels(f"{tmp_path / 'cube.npy'}[2:4, 5:30, 7:41]")
    with pytest.raises(FileFormatError, match="of an array of"):
        read_header(f"{tmp_path / 'cube.npy'}{box}")
