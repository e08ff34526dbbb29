"""Tile JSON files: present, missing, misnamed, ragged, resized, coloured and repeated tiles."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from autoseg.core.boxes import Box, read_overhanging
from autoseg.core.errors import FileFormatError
from autoseg.io.arrays import open_array
from autoseg.io.tile_json import missing_tiles
from autoseg.io.tiled_planes import TileCache

SHAPE, TILE = (3, 50, 70), (20, 32)
GREY = np.random.default_rng(0).integers(1, 250, SHAPE, dtype=np.uint8)


def describe(folder, **changes):
    content = {
        "image": [f"s{z}/{{row}}_{{column}}.png" for z in range(SHAPE[0])],
        "depth": SHAPE[0], "height": SHAPE[1], "width": SHAPE[2], "tile_size": list(TILE), "ndim": 3,
        "dtype": "uint8",
    }  # fmt: skip
    path = folder / "tiles.json"
    path.write_text(json.dumps({key: value for key, value in (content | changes).items() if value is not None}))
    return path


def write_tiles(folder, volume=GREY, tile=TILE, first=(0, 0), *, whole=False):
    """Write the tiles of a volume (z, y, x) or (z, y, x, 3); ``whole`` pads those at the border to the full size."""
    for z, plane in enumerate(volume):
        (folder / f"s{z}").mkdir()
        for row in range(-(-plane.shape[0] // tile[0])):
            for column in range(-(-plane.shape[1] // tile[1])):
                part = plane[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
                if whole:
                    part = np.pad(part, [(0, tile[0] - part.shape[0]), (0, tile[1] - part.shape[1])])
                Image.fromarray(part).save(folder / f"s{z}" / f"{row + first[0]}_{column + first[1]}.png")


@pytest.fixture
def tiles(tmp_path):
    write_tiles(tmp_path)
    return describe(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_a_box_gives_the_slice_of_the_whole(tiles, data):
    array = open_array(tiles)
    ends = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))) for n in SHAPE]
    box = Box(tuple(a for a, _ in ends), tuple(b for _, b in ends))
    assert np.array_equal(array.read(box)[0], GREY[box.slices])


@pytest.mark.parametrize("whole", [False, True], ids=["cut_off", "padded"])
@pytest.mark.parametrize("first", [(0, 0), (3, 7)])
def test_tiles_at_the_border_are_cut_off_or_padded_and_names_may_start_anywhere(tmp_path, first, whole):
    write_tiles(tmp_path, first=first, whole=whole)
    array = open_array(describe(tmp_path, tile_st=list(first)))
    assert array.shape == (1, *SHAPE)
    assert array.chunk == (1, *TILE)
    assert np.array_equal(array.read(Box.whole(SHAPE))[0], GREY)


def test_rows_come_first_in_names(tmp_path):
    write_tiles(tmp_path)
    array = open_array(describe(tmp_path))
    Image.fromarray(np.full((20, 32), 7, dtype=np.uint8)).save(tmp_path / "s1" / "1_0.png")
    assert (array.read(Box((1, 20, 0), (2, 40, 32))) == 7).all()


def test_boxes_that_overhang_are_reflected(tiles):
    array = open_array(tiles)
    box = Box((-1, -5, -9), (4, 60, 90))
    expected = np.pad(GREY, [(1, 1), (5, 10), (9, 20)], mode="reflect")
    assert np.array_equal(read_overhanging(array.read, SHAPE, box)[0], expected)


def test_a_missing_tile_is_unknown_and_reported_and_no_grey(tiles):
    gone = [tiles.parent / "s1" / "1_1.png", tiles.parent / "s2" / "2_2.png"]
    for path in gone:
        path.unlink()
    array = open_array(tiles)
    expected = (Box((1, 20, 32), (2, 40, 64)), Box((2, 40, 64), (3, 50, 70)))
    assert array.missing() == expected
    assert missing_tiles(tiles) == tuple(gone)
    box = Box((0, 10, 10), SHAPE)
    known = np.ones(SHAPE, dtype=bool)
    for gap in expected:
        known[gap.slices] = False
    assert np.array_equal(array.known(box), known[box.slices])
    assert np.array_equal(array.read(box)[0], np.where(known, GREY, 0)[box.slices])
    assert array.missing(Box((0, 0, 0), (1, 50, 70))) == ()


def test_the_first_tile_may_be_missing(tiles):
    (tiles.parent / "s0" / "0_0.png").unlink()
    assert open_array(tiles).missing() == (Box((0, 0, 0), (1, 20, 32)),)


@pytest.mark.parametrize("rename", ["{column}-{row}.png", "tile_{row}_{column}.png"])
def test_misnamed_tiles_are_explained_by_what_lies_there(tiles, rename):
    for path in tiles.parent.glob("s*/*.png"):
        row, column = path.stem.split("_")
        path.rename(path.with_name(rename.format(row=row, column=column)))
    first = sorted(path.name for path in (tiles.parent / "s0").iterdir())[0]
    with pytest.raises(FileFormatError, match=f"no tile.*holds {first}.*expected tiles such as 0_0.png"):
        open_array(tiles)


def test_a_folder_that_does_not_exist_is_named(tiles):
    describe(tiles.parent, image=["other/{row}_{column}.png"] * 3)
    with pytest.raises(FileFormatError, match="other does not exist"):
        open_array(tiles)


def test_a_tile_of_a_wrong_size_is_an_error(tiles):
    Image.fromarray(GREY[0, :19, :32]).save(tiles.parent / "s1" / "0_0.png")
    array = open_array(tiles)
    assert array.read(Box((0, 0, 0), (1, 50, 70))).all()
    with pytest.raises(FileFormatError, match=r"0_0\.png: found a tile of 19 x 32 pixels, expected 20 x 32"):
        array.read(Box((1, 0, 0), (2, 1, 1)))


def test_a_damaged_tile_is_an_error(tiles):
    path = tiles.parent / "s1" / "0_0.png"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(FileFormatError, match=r"0_0\.png"):
        open_array(tiles).read(Box((1, 0, 0), (2, 1, 1)))


def test_colours_of_labels_are_numbers(tmp_path):
    ids = np.random.default_rng(0).integers(0, 1 << 24, SHAPE, dtype=np.uint32)
    colours = np.stack([ids >> 16, (ids >> 8) & 255, ids & 255], axis=-1).astype(np.uint8)
    write_tiles(tmp_path, colours)
    array = open_array(describe(tmp_path, dtype="uint32"), as_labels=True)
    assert (array.shape, array.dtype) == ((1, *SHAPE), np.uint32)
    assert np.array_equal(array.read(Box.whole(SHAPE))[0], ids)
    assert open_array(describe(tmp_path, dtype=None), as_labels=True).dtype == np.uint32
    narrow = open_array(describe(tmp_path, dtype="uint16"), as_labels=True)
    with pytest.raises(FileFormatError, match=r"0 to 65535.*Write another .dtype"):
        narrow.read(Box.whole(SHAPE))


def test_images_keep_the_type_and_the_colours_of_their_tiles(tmp_path):
    write_tiles(tmp_path, np.stack([GREY, GREY, GREY], axis=-1))
    assert open_array(describe(tmp_path)).shape == (3, *SHAPE)


@pytest.mark.parametrize("ratio", [2, 0.5])
def test_labels_are_resized_without_new_values(tmp_path, ratio):
    small = np.repeat(np.repeat(GREY[:, :20, :32] % 5, 2, axis=1), 2, axis=2) if ratio < 1 else GREY[:, :20, :32] % 5
    write_tiles(tmp_path, small, tile=small.shape[1:])
    edges = [int(edge * ratio) for edge in small.shape[1:]]
    path = describe(tmp_path, height=edges[0], width=edges[1], tile_size=edges, tile_ratio=ratio)
    labels = open_array(path, as_labels=True).read(Box.whole((3, *edges)))[0]
    expected = small[:, ::2, ::2] if ratio < 1 else np.repeat(np.repeat(small, 2, axis=1), 2, axis=2)
    assert np.array_equal(labels, expected)


def test_images_are_resized_linearly_with_their_outer_edges_in_place(tmp_path):
    ramp = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint8), (3, 16, 20))
    write_tiles(tmp_path, ramp, tile=(16, 20))
    image = open_array(describe(tmp_path, height=32, width=40, tile_size=[32, 40], tile_ratio=2)).read(
        Box.whole((3, 32, 40))
    )[0]
    centres = (np.arange(40) + 0.5) / 2 - 0.5
    expected = np.clip(centres, 0, 19) * 10
    assert np.abs(image - expected).max() <= 0.5


def test_odd_tiles_are_resized_to_the_size_that_the_file_states(tmp_path):
    write_tiles(tmp_path, GREY[:, :15, :45], tile=(15, 15))
    array = open_array(describe(tmp_path, height=7, width=22, tile_size=8, tile_ratio=0.5))
    assert array.read(Box.whole((3, 7, 22))).any()


def test_a_path_without_row_and_column_is_a_whole_section(tmp_path):
    for z, plane in enumerate(GREY):
        Image.fromarray(plane).save(tmp_path / f"{z}.png")
    for size in (list(SHAPE[1:]), 16, 512):
        array = open_array(describe(tmp_path, image=[f"{z}.png" for z in range(3)], tile_size=size))
        assert np.array_equal(array.read(Box.whole(SHAPE))[0], GREY)


def test_a_declared_volume_of_100_gb_opens_at_once_and_a_box_takes_little_memory(tmp_path):
    tile = GREY[0, :32, :32]
    Image.fromarray(tile).save(tmp_path / "tile.png")
    shape = (1000, 10000, 10000)
    path = describe(
        tmp_path, image=["tile.png"] * shape[0], depth=shape[0], height=shape[1], width=shape[2], tile_size=32
    )
    start = time.perf_counter()
    tracemalloc.start()
    array = open_array(path)
    values = array.read(Box((500, 5000, 5000), (510, 5100, 5100)))[0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - start < 3  # about 0.1 s on an idle core; memory is traced here
    assert peak < 8 << 20
    grid = np.ix_(np.arange(5000, 5100) % 32, np.arange(5000, 5100) % 32)
    assert (values == tile[grid]).all()


FAULTS = {
    "too_few_paths": ({"image": ["a.png"]}, "image has 1 path, but depth is 3"),
    "half_a_place": ({"image": ["{row}.png"] * 3}, "with only one of {row} and {column}"),
    "no_height": ({"height": None}, "height: Field required"),
    "no_size": ({"tile_size": 0}, "tile_size"),
    "rows": ({"n_rows": 9}, "n_rows is 9, but height, width and tile_size give 3"),
    "columns": ({"n_columns": 9}, "n_columns is 9, but"),
    "ratio": ({"tile_ratio": 0}, "tile_ratio"),
    "type": ({"dtype": "float32"}, "dtype"),
    "two": ({"n_rows": 9, "image": ["a"]}, "n_rows is 9"),
    "spacing": ({"spacing": [1, 0, 1]}, "three numbers above 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_file_are_named(tmp_path, fault):
    changes, message = FAULTS[fault]
    with pytest.raises(FileFormatError) as caught:
        open_array(describe(tmp_path, **changes))
    assert message in str(caught.value)
    assert "docs/volumes.md" in str(caught.value)


def test_another_json_file_is_explained(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text('{"labels": {}}')
    with pytest.raises(FileFormatError, match="image: Field required; depth: Field required"):
        open_array(path)


def test_a_spacing_in_the_file_is_that_of_the_volume(tiles):
    assert open_array(tiles).geometry.metadata["spacing"] == "assumed"
    assert open_array(describe(tiles.parent, spacing=[5e-5, 4e-6, 4e-6])).geometry.spacing == (5e-5, 4e-6, 4e-6)


def test_decoded_tiles_are_held_up_to_a_number_of_bytes():
    cache, made = TileCache(limit=100), []

    def decode(name):
        made.append(name)
        return np.zeros(200 if name == "large" else 40, dtype=np.uint8)

    for name in ("a", "b", "a", "c", "a", "b", "large", "large", "a"):
        cache.get(name, lambda name=name: decode(name))
    assert made == ["a", "b", "c", "b", "large", "large"]
