"""Statistics of volumes: exact for small ones, sampled for large ones, and the same normalisation box by box."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from autoseg.core.boxes import Box, blocks
from autoseg.core.errors import FileFormatError
from autoseg.io.arrays import open_array, open_volume
from autoseg.preprocessing import volume_statistics as module
from autoseg.preprocessing.normalize import normalize, normalized_box
from autoseg.preprocessing.volume_statistics import spread, volume_statistics


@pytest.fixture
def volume(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path, offset in zip(paths, (1e6, 0), strict=True):
        values = rng.normal(offset, 30, (9, 40, 50)).astype(np.float32)
        values[:, :7] = 0
        np.save(path, values)
    return open_volume(paths)


def test_statistics_of_a_small_volume_are_those_of_all_voxels(volume):
    values = volume.read(Box.whole(volume.spatial_shape)).astype(np.float64)
    is_nonzero = (values != 0).any(axis=0)
    for channel, found in zip(values, volume_statistics(volume), strict=True):
        assert found.everywhere.mean == pytest.approx(channel.mean(), rel=1e-9)
        assert found.everywhere.std == pytest.approx(channel.std(), rel=1e-6)
        assert found.nonzero.mean == pytest.approx(channel[is_nonzero].mean(), rel=1e-9)
        assert (found.low, found.high) == (channel.min(), channel.max())


@pytest.mark.parametrize("scheme", ["ct", "zscore", "none", "rescale_to_0_1"])
@pytest.mark.parametrize("masked", [False, True])
def test_boxes_are_normalised_as_the_whole_volume_is(volume, make_plan, scheme, masked):
    plan = make_plan(normalization=(scheme,) * 2, masked=masked)
    configuration, statistics = plan.configuration("3d_fullres"), volume_statistics(volume)
    expected = normalize(volume.read(Box.whole(volume.spatial_shape)), plan, configuration)
    for box in blocks(Box.whole(volume.spatial_shape), (4, 16, 16)):
        found = normalized_box(volume.read(box), plan, configuration, statistics)
        np.testing.assert_allclose(found, expected[(slice(None), *box.slices)], atol=2e-3)  # float32 at 1e6


def test_a_large_volume_is_sampled_and_gives_nearly_the_same_numbers(volume, monkeypatch):
    exact = volume_statistics(volume)
    monkeypatch.setattr(module, "EXACT_VOXELS", 0)
    monkeypatch.setattr(module, "BLOCK", (2, 4, 5))
    monkeypatch.setattr(module, "SAMPLED_BLOCKS", 120)
    sampled = volume_statistics(volume)
    assert sampled == volume_statistics(volume)
    assert sampled[1].everywhere.std == pytest.approx(exact[1].everywhere.std, rel=0.1)
    assert sampled != exact


def test_places_are_spread_over_all_of_a_grid():
    assert spread((2, 1, 3), 10) == [(z, 0, x) for z in range(2) for x in range(3)]
    places = np.array(spread((16, 16, 16), 512))
    assert 480 <= len(places) <= 512
    octants, counts = np.unique(places // 8, axis=0, return_counts=True)
    assert len(octants) == 8
    assert counts.min() > 50  # of 64


def test_missing_tiles_do_not_count(tmp_path):
    tile = np.random.default_rng(1).integers(100, 200, (8, 8), dtype=np.uint8)
    Image.fromarray(tile).save(tmp_path / "0.png")
    content = {"image": ["0.png", "1.png"], "depth": 2, "height": 8, "width": 8, "tile_size": 8, "dtype": "uint8"}
    (tmp_path / "tiles.json").write_text(json.dumps(content))
    (found,) = volume_statistics(open_array(tmp_path / "tiles.json"))
    assert found.everywhere.mean == pytest.approx(tile.mean())
    assert found.low == tile.min()


def test_a_volume_without_voxels_that_are_there_has_statistics_0(tmp_path):
    np.save(tmp_path / "nan.npy", np.full((2, 3, 4), np.nan, np.float32))
    (found,) = volume_statistics(open_array(tmp_path / "nan.npy"))
    assert (found.everywhere.mean, found.everywhere.std, found.low, found.high) == (0, 0, 0, 0)


def test_channels_of_different_grids_are_not_joined(tmp_path):
    for name, shape in {"a": (2, 3, 4), "b": (2, 3, 5)}.items():
        np.save(tmp_path / f"{name}.npy", np.zeros(shape, np.uint8))
    with pytest.raises(FileFormatError, match=r"b\.npy.*expected \(2, 3, 4\)"):
        open_volume([tmp_path / "a.npy", tmp_path / "b.npy"])
