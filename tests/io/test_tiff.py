import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.io.images import read_header, read_image, read_labels, read_remarks, write_labels

STACK = np.random.default_rng(0).integers(0, 65536, (4, 30, 20), dtype=np.uint16)


def write(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack"} | options)
    return path


def ome_pixels(**millimetres):
    sizes = {f"PhysicalSize{axis}": size for axis, size in millimetres.items()}
    return {"axes": "ZYX"} | sizes | {f"{name}Unit": "mm" for name in sizes}


def test_a_page_is_2d_a_stack_is_3d_and_colours_are_channels(tmp_path):
    write(tmp_path / "page.tif", STACK[0])
    write(tmp_path / "stack.tif", STACK)
    write(tmp_path / "rgb.tif", np.stack([STACK[0]] * 3, axis=-1), photometric="rgb")
    write(tmp_path / "rgbs.tif", np.stack([STACK, STACK + 1, STACK], axis=-1), photometric="rgb")
    write(tmp_path / "c.tif", STACK.reshape(2, 2, 30, 20), imagej=True, metadata={"axes": "ZCYX"})
    expected = {
        "page": (1, 1, 30, 20),
        "stack": (1, 4, 30, 20),
        "rgb": (3, 1, 30, 20),
        "rgbs": (3, 4, 30, 20),
        "c": (2, 2, 30, 20),
    }
    for name, shape in expected.items():
        image, geometry = read_image([tmp_path / f"{name}.tif"])
        assert image.shape == shape
        assert geometry.ndim == (2 if shape[1] == 1 else 3)
        assert geometry.metadata["spacing"] == ASSUMED
        assert read_header(tmp_path / f"{name}.tif") == (shape, geometry)
    np.testing.assert_array_equal(read_image([tmp_path / "c.tif"])[0][1, 0], STACK[1])
    np.testing.assert_array_equal(read_image([tmp_path / "rgbs.tif"])[0][1], STACK + 1)


def test_spacing_comes_from_the_sidecar_then_imagej_then_ome(tmp_path):
    write(tmp_path / "a_0000.tif", STACK)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [3, 2, 0.5]}))
    assert read_header(tmp_path / "a_0000.tif")[1].spacing == (3.0, 2.0, 0.5)
    imagej = {"spacing": 3, "unit": "um", "axes": "ZYX"}
    write(tmp_path / "j.tif", STACK, imagej=True, resolution=(2, 4), metadata=imagej)
    np.testing.assert_allclose(read_header(tmp_path / "j.tif")[1].spacing, (0.003, 0.00025, 0.0005))
    write(tmp_path / "o.ome.tif", STACK, metadata=ome_pixels(X=0.5, Y=0.25, Z=3.0))
    np.testing.assert_allclose(read_header(tmp_path / "o.ome.tif")[1].spacing, (3.0, 0.25, 0.5))
    (tmp_path / "a.json").write_text('{"spacing": [3, 2]}')
    assert read_header(tmp_path / "a_0000.tif")[1].spacing == (1.0, 3.0, 2.0)
    (tmp_path / "a.json").write_text('{"spacing": [3, 0, 2]}')
    with pytest.raises(FileFormatError, match=r"a\.json: found no spacing"):
        read_image([tmp_path / "a_0000.tif"])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_compressed_stacks_are_read(tmp_path, compression):
    pages = [Image.fromarray(page) for page in STACK]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
    np.testing.assert_array_equal(read_image([tmp_path / "a.tif"])[0][0], STACK)
    pages[0].save(tmp_path / "b.tif", compression=compression)
    np.testing.assert_array_equal(read_image([tmp_path / "b.tif"])[0][0, 0], STACK[0])


def test_compressed_colour_is_read(tmp_path):
    colour = np.stack([STACK[0], STACK[1], STACK[2]], axis=-1).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.tif", compression="tiff_lzw")
    np.testing.assert_array_equal(read_image([tmp_path / "a.tif"])[0][:, 0], colour.transpose(2, 0, 1))


@pytest.mark.parametrize("cut", [40, 100, 0.5])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"imagej": True}], ids=["raw", "zlib", "imagej"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_truncated_file_is_refused(tmp_path, ndim, options, cut):
    path = tmp_path / "a.tif"
    write(path, STACK if ndim == 3 else STACK[0], **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * cut)] if cut < 1 else content[:-cut])
    with pytest.raises(FileFormatError, match="truncated"):
        read_image([path])


def hyperstack(path, volume, compression):
    """Save (z, c, y, x) as ImageJ orders pages, by a library that knows nothing of axes."""
    z, c = volume.shape[:2]
    pages = [Image.fromarray(page) for page in volume.reshape(-1, *volume.shape[2:])]
    text = f"ImageJ=1.53t\nimages={z * c}\nchannels={c}\nslices={z}\nhyperstack=true\nunit=micron\nspacing=2.0\n"
    pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression, description=text)
    return path


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_pages_of_slices_and_channels_are_sorted_whatever_their_compression(tmp_path, compression):
    volume = STACK.reshape(2, 2, 30, 20)
    image, geometry = read_image([hyperstack(tmp_path / "a.tif", volume, compression)])
    np.testing.assert_array_equal(image, volume.transpose(1, 0, 2, 3))
    np.testing.assert_allclose(geometry.spacing, (2e-3, 1e-3, 1e-3))


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {}], ids=["imagej", "ome", "own"])
@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "CYXZ", "ZYXC", "YXZ"])
def test_axes_come_in_any_order(tmp_path, axes, options):
    if options and (axes[-2:] != "YX" or (options == {"imagej": True} and axes == "CZYX")):
        pytest.skip("not an order that this kind of file has")
    lengths = {"Z": 5, "C": 3 if "C" in axes else 1, "Y": 30, "X": 20}
    array = np.arange(lengths["C"] * 3000, dtype=np.uint16).reshape(list(lengths[axis] for axis in axes))
    write(tmp_path / "a.tif", array, metadata={"axes": axes}, **options)
    image, _ = read_image([tmp_path / "a.tif"])
    assert image.shape == (lengths["C"], 5, 30, 20) == read_header(tmp_path / "a.tif")[0]
    order = [axes.index(axis) for axis in "CZYX" if axis in axes]
    np.testing.assert_array_equal(image, array.transpose(order).reshape(image.shape))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw", "predictor": True},
        {"compression": "zstd"},
        {"compression": "lzma"},
        {"byteorder": ">", "compression": "zlib", "predictor": True},
        {"bigtiff": True, "tile": (16, 16), "compression": "packbits"},
        {"compression": "jpeg2000", "compressionargs": {"reversible": True}},
    ],
    ids=str,
)
def test_every_way_to_store_gives_the_same_values(tmp_path, options):
    np.testing.assert_array_equal(read_image([write(tmp_path / "a.tif", STACK, **options)])[0][0], STACK)


def test_colours_in_planes_and_twelve_bits_are_read(tmp_path):
    write(tmp_path / "p.tif", STACK[:3], photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(read_image([tmp_path / "p.tif"])[0][:, 0], STACK[:3])
    write(tmp_path / "b.tif", STACK[0] >> 4, bitspersample=12)
    np.testing.assert_array_equal(read_image([tmp_path / "b.tif"])[0][0, 0], STACK[0] >> 4)


def test_a_pyramid_is_its_full_resolution(tmp_path):
    large, small = STACK[:, :, :16], STACK[:, ::2, :16:2]
    with tifffile.TiffWriter(tmp_path / "levels.tif") as writer:
        writer.write(large, subifds=1, photometric="minisblack", metadata={"axes": "ZYX"})
        writer.write(small, subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(read_image([tmp_path / "levels.tif"])[0][0], large)
    for name, options in {"marked": {"subfiletype": 1}, "unmarked": {}}.items():
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            writer.write(large[0], photometric="minisblack", metadata=None)
            writer.write(small[0], photometric="minisblack", metadata=None, **options)
        np.testing.assert_array_equal(read_image([tmp_path / f"{name}.tif"])[0][0, 0], large[0])


def test_pages_written_one_by_one_are_a_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in STACK:
            writer.write(page, photometric="minisblack")
    np.testing.assert_array_equal(read_image([tmp_path / "a.tif"])[0][0], STACK)


MASK = (STACK[0] > 30000).astype(np.uint8)


@pytest.mark.parametrize("compression", [None, "group3", "group4", "tiff_lzw"])
def test_one_bit_labels_are_0_and_1(tmp_path, compression):
    Image.fromarray(MASK.astype(bool)).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif")[0][0], MASK)
    write(tmp_path / "w.tif", ~MASK.astype(bool), photometric="miniswhite", metadata=None, software=False)
    np.testing.assert_array_equal(read_labels(tmp_path / "w.tif")[0][0], np.asarray(Image.open(tmp_path / "w.tif")))


def test_booleans_written_by_tifffile_are_read_as_tifffile_reads_them(tmp_path):
    """tifffile marks all booleans as "0 is white", so that Pillow and ITK show such a mask inverted."""
    stack = STACK > 60000
    tifffile.imwrite(tmp_path / "mask.tif", stack)
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.tif")[0], stack)
    tifffile.imwrite(tmp_path / "page.tif", stack[0], ome=True)
    np.testing.assert_array_equal(read_labels(tmp_path / "page.tif")[0][0], stack[0])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_palette_shows_indices_which_are_the_labels(tmp_path, compression):
    picture = Image.fromarray(MASK * 3).convert("P")
    picture.putpalette([0, 0, 0, 9, 9, 9, 5, 5, 5, 255, 0, 0])
    picture.save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.tif")[0][0], MASK * 3)


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "jpegxl", "lerc"])
def test_labels_in_a_lossy_compression_are_refused_by_name(tmp_path, compression):
    write(tmp_path / "a.tif", MASK, compression=compression)
    with pytest.raises(FileFormatError, match=rf"compressed as {compression.upper()}.*LZW, deflate or no compression"):
        read_labels(tmp_path / "a.tif")
    assert read_image([tmp_path / "a.tif"])[0].shape == (1, 1, 30, 20)


@pytest.mark.parametrize("n_channels", [2, 3, 4])
@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {"planarconfig": "separate"}], ids=str)
def test_labels_with_channels_are_refused_by_name(tmp_path, n_channels, options):
    array = np.zeros((n_channels, 30, 20), np.uint8)
    array[0, :9], array[-1, 9:] = 1, 2
    axes = {} if "planarconfig" in options else {"metadata": {"axes": "CYX"}}
    write(tmp_path / "a.tif", array, **axes, **options)
    with pytest.raises(FileFormatError, match=f"{n_channels} channels that differ"):
        read_labels(tmp_path / "a.tif")


def test_labels_hidden_in_an_alpha_channel_are_refused(tmp_path):
    Image.fromarray(np.stack([MASK, 255 - 9 * STACK[1].astype(np.uint8)], -1), "LA").save(tmp_path / "a.tif")
    with pytest.raises(FileFormatError, match="alpha channel that differs"):
        read_labels(tmp_path / "a.tif")
    Image.fromarray(np.stack([MASK, np.full_like(MASK, 255)], -1), "LA").save(tmp_path / "b.tif")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif")[0][0], MASK)


UM = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
VOXEL_SIZES = {
    "ome": ({"ome": True}, UM | {"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "µm"}, (2e-3, 5e-4, 5e-4)),
    "ome in angstrom": ({"ome": True}, UM | {"PhysicalSizeZ": 2e4, "PhysicalSizeZUnit": "Å"}, (2e-3, 5e-4, 5e-4)),
    "ome in two units": ({"ome": True}, UM | {"PhysicalSizeZ": 2e-4, "PhysicalSizeZUnit": "cm"}, (2e-3, 5e-4, 5e-4)),
    "ome without z": ({"ome": True}, UM, None),
    "ome z in pixels": ({"ome": True}, UM | {"PhysicalSizeZ": 2.0, "PhysicalSizeZUnit": "pixel"}, None),
    "imagej": ({"imagej": True}, {"unit": "um", "spacing": 2.0}, (2e-3, 5e-4, 5e-4)),
    "imagej in words": ({"imagej": True}, {"unit": "micrometers", "spacing": 8.0}, (8e-3, 5e-4, 5e-4)),
    "imagej escape": ({"imagej": True}, {"unit": "\\u00B5m", "spacing": 2.0}, (2e-3, 5e-4, 5e-4)),
    "imagej z in nm": ({"imagej": True}, {"unit": "um", "spacing": 2000.0, "zunit": "nm"}, (2e-3, 5e-4, 5e-4)),
    "imagej y in nm": ({"imagej": True}, {"unit": "um", "spacing": 2.0, "yunit": "nm"}, (2e-3, 5e-7, 5e-4)),
    "imagej from below": ({"imagej": True}, {"unit": "um", "spacing": -2.0}, (2e-3, 5e-4, 5e-4)),
    "imagej without z": ({"imagej": True}, {"unit": "um", "spacing": 0.0}, None),
    "imagej z in pixels": ({"imagej": True}, {"unit": "um", "spacing": 2.0, "zunit": "pixel"}, None),
    "imagej in pixels": ({"imagej": True}, {"unit": "pixel", "spacing": 2.0}, None),
    "nothing": ({}, {}, None),
}


@pytest.mark.parametrize("name", VOXEL_SIZES)
def test_all_edges_of_a_voxel_are_known_or_all_are_assumed(tmp_path, name):
    options, metadata, expected = VOXEL_SIZES[name]
    path = write(tmp_path / "a_0000.tif", STACK, resolution=(2, 2), metadata={"axes": "ZYX"} | metadata, **options)
    geometry = read_header(path)[1]
    if expected is not None:
        np.testing.assert_allclose(geometry.spacing, expected)
        assert "factor of 4e+03" in " ".join(read_remarks(path)) if name == "imagej y in nm" else not read_remarks(path)
        return
    assert geometry.spacing == (1.0, 1.0, 1.0)
    assert geometry.metadata["spacing"] == ASSUMED
    (remark,) = read_remarks(path)
    assert "1 x 1 x 1 mm is assumed" in remark
    assert ("only" in remark) == (name not in ("nothing", "imagej in pixels"))
    (tmp_path / "a.json").write_text('{"spacing": [0.002, 0.0005, 0.0005]}')
    assert read_header(path)[1].spacing == (0.002, 0.0005, 0.0005)
    assert read_remarks(path) == ()


def test_complex_values_are_refused_and_a_turned_view_is_remarked(tmp_path):
    write(tmp_path / "c.tif", STACK.astype(np.complex64))
    with pytest.raises(FileFormatError, match="complex values"):
        read_image([tmp_path / "c.tif"])
    write(tmp_path / "o.tif", STACK[0], extratags=[(274, 3, 1, 3, True)])
    (remark,) = read_remarks(tmp_path / "o.tif", as_labels=True)
    assert "orientation 3" in remark
    np.testing.assert_array_equal(read_image([tmp_path / "o.tif"])[0][0, 0], STACK[0])


def test_planes_in_other_files_are_refused_not_read_as_zeros(tmp_path):
    path = write(tmp_path / "a.ome.tif", STACK, ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    tifffile.tiffcomment(path, text.replace('SizeZ="4"', 'SizeZ="6"').encode())
    with pytest.raises(FileFormatError, match="without all of its planes"):
        read_image([path])


def test_unsupported_axes_are_refused(tmp_path):
    write(tmp_path / "t.tif", STACK.reshape(2, 2, 30, 20), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(FileFormatError, match=r"TZYX .*one time point per file"):
        read_image([tmp_path / "t.tif"])
    write(tmp_path / "only.tif", STACK, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(FileFormatError, match=r"TYX .*T is time.*Properties"):
        read_image([tmp_path / "only.tif"])
    write(tmp_path / "q.tif", STACK.reshape(2, 2, 30, 20))
    with pytest.raises(FileFormatError, match=r"found axes QQYX .*Name the axes"):
        read_image([tmp_path / "q.tif"])
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        writer.write(STACK[0])
        writer.write(STACK[0, :10])
    with pytest.raises(FileFormatError, match="found 2 images of different shape"):
        read_image([tmp_path / "m.tif"])
    (tmp_path / "x.tif").write_text("no tiff at all")
    with pytest.raises(FileFormatError, match="damaged file"):
        read_image([tmp_path / "x.tif"])


@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_come_back_with_their_spacing(tmp_path, ndim):
    spacing = (3.0, 2.0, 0.5) if ndim == 3 else (1998.0, 2.0, 0.5)
    labels = STACK if ndim == 3 else STACK[:1]
    write_labels(tmp_path / "p.tif", labels, Geometry(spacing=spacing, ndim=ndim))
    again, geometry = read_labels(tmp_path / "p.tif")
    np.testing.assert_array_equal(again, labels)
    assert geometry.ndim == ndim
    assert (tmp_path / "p.json").exists() == (ndim == 3)
    assert ndim == 2 or geometry.spacing == spacing
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "p.tif"))).size == labels.size
