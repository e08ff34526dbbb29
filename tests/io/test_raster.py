import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from autoseg.core.errors import FileFormatError
from autoseg.io.file_contents import assumed_geometry
from autoseg.io.images import read_header, read_image, read_labels, write_labels
from autoseg.io.png import write_png

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)


def png(path, rows, bits, colour_type):
    """Write a PNG of any bit depth; ``rows`` are the packed bytes of each row."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width = 8 * len(rows[0]) // (bits * {0: 1, 2: 3, 6: 4}[colour_type])
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))
    return path


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize("array", [GREY, COLOUR[..., :3]], ids=["grey", "rgb"])
def test_grey_and_colour_become_channels_of_one_slice(tmp_path, ending, array):
    path = save(tmp_path / f"a{ending}", array)
    image, geometry = read_image([path])
    expected = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    np.testing.assert_array_equal(image[:, 0], expected)
    assert image.dtype == np.float32
    assert geometry.ndim == 2
    assert geometry.spacing == (999.0, 1.0, 1.0)
    assert read_header(path) == (image.shape, geometry)


def test_alpha_is_a_channel(tmp_path):
    assert read_image([save(tmp_path / "a.png", COLOUR)])[0].shape == (4, 1, 5, 7)
    assert read_image([save(tmp_path / "b.png", COLOUR[..., :2])])[0].shape == (2, 1, 5, 7)


def test_sixteen_bits_are_kept_in_grey_and_in_colour(tmp_path):
    grey = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    np.testing.assert_array_equal(read_image([save(tmp_path / "g.png", grey)])[0][0, 0], grey)
    colour = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    path = png(tmp_path / "c.png", [row.astype(">u2").tobytes() for row in colour], 16, 2)
    np.testing.assert_array_equal(read_image([path])[0][:, 0], colour.transpose(2, 0, 1))
    assert read_header(path)[0] == (3, 1, 5, 7)


@pytest.mark.parametrize(
    ("bits", "row", "values"),
    [
        (1, [0b10100000], [1, 0, 1, 0, 0, 0, 0, 0]),
        (2, [0b00011011], [0, 1, 2, 3]),
        (4, [0x0F, 0x21], [0, 15, 2, 1]),
    ],
)
def test_labels_of_few_bits_keep_their_values(tmp_path, bits, row, values):
    labels, _ = read_labels(png(tmp_path / "a.png", [row, row], bits, 0))
    assert labels[0].tolist() == [values, values]


def test_a_palette_gives_indices_as_labels_and_colours_as_image(tmp_path):
    picture = Image.fromarray(GREY % 3, mode=None).convert("L").convert("P")
    picture.putdata((GREY % 3).ravel().tolist())
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    labels, _ = read_labels(tmp_path / "a.png")
    np.testing.assert_array_equal(labels[0], GREY % 3)
    image, _ = read_image([tmp_path / "a.png"])
    assert image.shape == (3, 1, 5, 7)
    np.testing.assert_array_equal(image[0, 0] == 255, GREY % 3 == 1)
    assert read_header(tmp_path / "a.png")[0] == image.shape


def test_grey_saved_as_colour_is_one_label_map_and_colours_are_not(tmp_path):
    labels, _ = read_labels(save(tmp_path / "a.png", np.stack([GREY] * 3, axis=-1)))
    np.testing.assert_array_equal(labels[0], GREY)
    for name, opacity in {"opaque": np.full_like(GREY, 255), "clear where 0": (GREY > 0) * np.uint8(255)}.items():
        alpha = save(tmp_path / f"{name}.png", np.stack([GREY, GREY, GREY, opacity], axis=-1))
        np.testing.assert_array_equal(read_labels(alpha)[0][0], GREY)
    with pytest.raises(FileFormatError, match="alpha channel that differs"):
        read_labels(save(tmp_path / "d.png", np.stack([GREY // 255, COLOUR[..., 3]], axis=-1)))
    with pytest.raises(FileFormatError, match=r"3 channels that differ.*Save class numbers"):
        read_labels(save(tmp_path / "b.png", COLOUR[..., :3]))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".jpg"])
@pytest.mark.parametrize("cut", [3, 20, 200])
def test_a_truncated_picture_is_refused(tmp_path, ending, cut):
    path = save(tmp_path / f"a{ending}", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FileFormatError, match="truncated"):
        read_image([path])


def test_a_changed_byte_in_a_png_is_refused(tmp_path):
    path = save(tmp_path / "a.png", RNG.integers(0, 256, (40, 40), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="damaged file"):
        read_image([path])


def test_jpeg_is_an_image_and_never_a_label(tmp_path):
    path = save(tmp_path / "a.jpg", COLOUR[..., :3])
    assert read_image([path])[0].shape == (3, 1, 5, 7)
    with pytest.raises(FileFormatError, match="labels in a lossy format"):
        read_labels(path)
    with pytest.raises(FileFormatError, match="keeps every value"):
        write_labels(tmp_path / "p.jpg", GREY[None], assumed_geometry(2))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_labels_come_back(tmp_path, dtype):
    labels = GREY[None].astype(dtype) * (1 if dtype == np.uint8 else 200)
    write_labels(tmp_path / "p.png", labels, assumed_geometry(2))
    again, _ = read_labels(tmp_path / "p.png")
    np.testing.assert_array_equal(again, labels)
    assert again.dtype == dtype


def test_labels_that_a_picture_cannot_hold_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="found 2 slices to write"):
        write_labels(tmp_path / "p.png", np.zeros((2, 5, 7), np.uint8), assumed_geometry(3))
    with pytest.raises(FileFormatError, match="keeps every value"):
        write_labels(tmp_path / "p.bmp", np.full((1, 5, 7), 300, np.uint16), assumed_geometry(2))
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(FileFormatError, match="picture format"):
        read_image([tmp_path / "x.png"])


def test_pictures_for_people(tmp_path):
    write_png(tmp_path / "o.png", COLOUR[..., :3])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "o.png")), COLOUR[..., :3])
    with pytest.raises(ValueError, match=r"expected \(y, x, 3\) uint8"):
        write_png(tmp_path / "o.png", GREY)


def test_pictures_of_any_size_are_read_and_the_limit_of_pillow_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image([tmp_path / "a.png"])[0][0, 0], pixels)
    assert read_header(tmp_path / "a.png")[0] == (1, 1, 8, 8)
    assert Image.MAX_IMAGE_PIXELS == 10
