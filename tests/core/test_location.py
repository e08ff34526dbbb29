"""A location is a path, a name in it, and a box; nothing that exists under its whole name is split."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autoseg.core.boxes import Box
from autoseg.core.errors import FileFormatError
from autoseg.core.location import path_of, split_box
from autoseg.dataset.volume_part import VolumePart

BOX = Box((0, 5, 10), (2, 7, 30))


@pytest.mark.parametrize("text", ["v.zarr:raw/0[0:2, 5:7, 10:30]", "v.zarr:raw/0[0:2,5:7,10:30]"])
def test_a_box_follows_the_name_of_the_array(text):
    assert split_box(text) == ("v.zarr:raw/0", BOX)
    assert path_of(text) == Path("v.zarr")


def test_what_is_no_box_belongs_to_the_path():
    for text in ("v.zarr", "v.zarr[0]", "v.zarr[a:b]", "v.zarr[0:2, 5:7].png", "[0:1, 0:1, 0:1]"):
        assert split_box(text) == (text, None)


@pytest.mark.parametrize("box", ["[0:2, 5:7]", "[-1:2, 5:7, 1:2]", "[:, 5:7, 1:2]", "[0:2, 5-7, 1:2]"])
def test_what_is_meant_as_a_box_and_is_none_is_refused(box, tmp_path):
    with pytest.raises(FileFormatError, match=rf"found the box {re.escape(box)}, expected \[z0:z1, y0:y1, x0:x1\]"):
        split_box(f"v.zarr{box}")
    (tmp_path / f"v.tif{box}").write_bytes(b"")
    assert split_box(tmp_path / f"v.tif{box}")[1] is None


def test_a_file_whose_name_looks_like_a_box_is_that_file(tmp_path):
    path = tmp_path / "a.nii[0:2, 5:7, 10:30]"
    path.write_bytes(b"")
    assert split_box(path) == (str(path), None)
    assert path_of(path) == path


def test_a_box_that_ends_before_it_starts_is_refused():
    with pytest.raises(FileFormatError, match="smaller number"):
        split_box("v.zarr[4:2, 0:1, 0:1]")


def test_the_part_of_a_volume_is_written_as_a_location_that_reads_back():
    part = VolumePart(("/a/raw.zarr:0", "/a/other.zarr"), BOX, "/a/cubes.h5:labels")
    assert [split_box(path) for path in part.image_paths] == [("/a/raw.zarr:0", BOX), ("/a/other.zarr", BOX)]
    assert part.label_path is not None
    assert split_box(part.label_path) == ("/a/cubes.h5:labels", BOX)
    assert part.mask_path is None
    assert VolumePart(("/a/raw.zarr",)).image_paths == (Path("/a/raw.zarr"),)
