import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import ASSUMED, Geometry
from autoseg.io.images import read_header, read_image, read_labels, write_labels

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
    with pytest.raises(FileFormatError, match=r"a\.json: found no spacing of 3 edges above 0"):
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


def test_axes_without_a_place_are_refused(tmp_path):
    write(tmp_path / "t.tif", STACK.reshape(2, 2, 30, 20), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(FileFormatError, match=r"found axes TZYX \(2, 2, 30, 20\).*one time point per file"):
        read_image([tmp_path / "t.tif"])
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
