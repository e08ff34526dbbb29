"""Numbers are written with the geometry of their image and read back as they were, NaN included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoseg.core.geometry import Geometry
from autoseg.io.images import SUPPORTED_ENDINGS, read_image, write_values, written_ending

FLAT = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
DEEP = Geometry(spacing=(2.0, 0.5, 0.75), origin=(4.0, -3.0, 10.0))
FLOAT_ENDINGS = [ending for ending in SUPPORTED_ENDINGS if written_ending(ending, has_numbers=True) == ending]


def numbers(n_channels: int, shape: tuple[int, int, int]) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(n_channels, *shape)).astype(np.float32)
    values[:, 0, 1] = np.nan
    return values


@pytest.mark.parametrize("ending", FLOAT_ENDINGS)
@pytest.mark.parametrize("n_channels", [1, 2, 3])
@pytest.mark.parametrize(("shape", "geometry"), [((4, 5, 6), DEEP), ((1, 5, 6), FLAT)], ids=["3d", "2d"])
def test_numbers_are_read_as_they_were_written(
    ending: str, n_channels: int, shape: tuple[int, int, int], geometry: Geometry, tmp_path: Path
) -> None:
    values = numbers(n_channels, shape)
    path = tmp_path / f"case{ending}"
    write_values(path, values, geometry)
    read, own = read_image([path])
    np.testing.assert_array_equal(read, values)
    is_stack = ending in (".nii", ".nii.gz") and n_channels > 1  # NIfTI has no flat images with channels
    assert own.ndim == (3 if is_stack else geometry.ndim)
    if geometry.ndim == 3:
        assert own.spacing == pytest.approx(geometry.spacing)


def test_formats_of_integers_get_an_ending_that_holds_numbers() -> None:
    assert [written_ending(ending, has_numbers=True) for ending in (".png", ".BMP", ".jpg", ".nii.gz", ".mhd")] == [
        ".tif", ".tif", ".tif", ".nii.gz", ".mha",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="without floating-point numbers"):
        write_values("case.png", numbers(1, (1, 5, 6)), FLAT)
