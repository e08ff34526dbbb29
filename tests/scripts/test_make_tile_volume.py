"""The volume that is made has the declared size, repeats without a seam, and lacks as many tiles as asked for."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from make_tile_volume import DEPTH, main, repeated_block

from autoseg.core.boxes import Box
from autoseg.dataset.dataset import Dataset
from autoseg.io.arrays import open_array


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_tile_volume.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_a_volume_of_tiles_is_a_data_set_of_one_case(tmp_path, monkeypatch):
    folder = tmp_path / "Dataset300_Tiles"
    arguments = ["-o", folder, "--gb", 0.001, "--tile", 32, "--depth", 40, "--missing", 30, "--every", 5]
    assert run(monkeypatch, *arguments) == 0
    case = Dataset.load(folder).case("volume")
    image, labels = open_array(case.images[0]), open_array(case.label, as_labels=True)
    assert image.spatial_shape == labels.spatial_shape == (40, 160, 160)
    assert len(image.missing()) == 30 and {gap.start[0] for gap in image.missing()} == {20, 21}
    assert not labels.missing()
    drawn = labels.read(Box((0, 0, 0), (11, 40, 40)))[0]
    assert [(plane != 255).all() for plane in drawn] == [z % 5 == 0 for z in range(11)]
    again, first = (image.read(Box((z, 0, 0), (z + 1, 32, 160))) for z in (DEPTH, 0))
    np.testing.assert_array_equal(again, first)
    assert run(monkeypatch, *arguments) == 2  # nothing is overwritten


def test_neighbouring_blocks_meet_without_a_seam():
    _, labels = repeated_block(64, 0)
    assert set(np.unique(labels)) == {0, 1, 2}
    for axis in range(3):
        within = (np.diff(labels.astype(int), axis=axis) != 0).mean()
        across = (labels.take(0, axis=axis) != labels.take(-1, axis=axis)).mean()
        assert across < 2 * within + 0.02
