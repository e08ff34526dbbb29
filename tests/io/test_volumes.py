from __future__ import annotations

import numpy as np
import pytest

from autoseg.core.errors import FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.io.images import read_image
from autoseg.io.volumes import VOLUME_ENDINGS, write_volume

GEOMETRY = Geometry(spacing=(3.0, 1.0, 0.5), origin=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
@pytest.mark.parametrize("values", [[0.25, -7.5], [-3, 9], [0, 70000], [0, 255]])
def test_written_values_are_read_back(tmp_path, ending, values):
    image = np.resize(np.asarray(values), (2, 3, 4))
    write_volume(tmp_path / f"a{ending}", image, GEOMETRY)
    actual, geometry = read_image([tmp_path / f"a{ending}"])
    np.testing.assert_array_equal(actual[0], image)
    assert not geometry.differs_from(GEOMETRY)


def test_values_that_a_format_cannot_hold_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match=r"ending .png, expected one of .nii.gz"):
        write_volume(tmp_path / "a.png", np.zeros((1, 2, 2)), GEOMETRY)
    with pytest.raises(FileFormatError, match="8589934592, expected at most 32 bits"):
        write_volume(tmp_path / "a.nii.gz", np.array([[[0, 2**33]]]), GEOMETRY)
    assert not list(tmp_path.iterdir())
