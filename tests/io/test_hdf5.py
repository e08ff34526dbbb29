from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from autoseg.core.errors import FileFormatError
from autoseg.io.hdf5 import Hdf5Array, find_array, has_array, parse_array, read_array


@pytest.mark.parametrize(
    ("text", "path", "key"),
    [
        ("a.h5:raw", "a.h5", "raw"),
        ("dir/a.h5:volumes/raw", "dir/a.h5", "volumes/raw"),
        ("a.h5", "a.h5", None),
        ("a.h5:", "a.h5", None),
        ("C:\\cubes\\a.h5", "C:\\cubes\\a.h5", None),
        ("C:\\cubes\\a.h5:raw", "C:\\cubes\\a.h5", "raw"),
    ],
)
def test_the_last_colon_separates_file_and_key(text, path, key):
    assert parse_array(text) == (Path(path), key)


def test_a_file_whose_name_has_a_colon_is_a_file(tmp_path):
    (tmp_path / "a:b.h5").touch()
    assert parse_array(str(tmp_path / "a:b.h5")) == (tmp_path / "a:b.h5", None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["volumes/raw"] = np.arange(6, dtype=">i2").reshape(1, 2, 3)
        opened["info"] = [[1, 0], [0, 1]]
        opened["text"] = "words"
    return tmp_path / "a.h5"


def test_values_come_in_native_order(file):
    array = read_array(find_array(file, "/volumes/raw"))
    assert array.dtype == np.dtype("=i2")
    np.testing.assert_array_equal(array, np.arange(6).reshape(1, 2, 3))
    assert has_array(file, "info")
    assert not has_array(file, "volumes")


def test_a_missing_data_set_is_reported_with_those_that_exist(file):
    assert find_array(file, None, others=("info", "text")) == Hdf5Array(file, "volumes/raw")
    with pytest.raises(FileFormatError, match=r"found the data sets info, text, volumes/raw"):
        find_array(file, None)
    with pytest.raises(FileFormatError, match=r"expected a data set 'volumes'"):
        find_array(file, "volumes")
    with pytest.raises(FileFormatError, match=r"found 'text' of type .*, expected numbers"):
        read_array(find_array(file, "text"))


def test_a_truncated_file_is_refused(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileFormatError, match=r"another format.*HDF5"):
        find_array(file, "info")
