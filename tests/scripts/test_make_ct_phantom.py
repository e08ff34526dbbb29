from __future__ import annotations

import numpy as np
import pytest
from make_ct_phantom import AIR, ORGANS, ct_case, make_ct_phantom
from skimage.measure import label

from autoseg.cli import common
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_image, read_labels
from autoseg.simulation.styles import case_rng

SHAPE = (48, 80, 80)


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    return ct_case(case_rng(0, "ct_000", "ct"), SHAPE)


def test_every_organ_is_there_in_one_piece_and_sizes_differ_greatly(case):
    _, labels = case
    sizes = [(labels == organ.value).sum() for organ in ORGANS.values()]
    assert min(sizes) > 5
    assert max(sizes) > 100 * min(sizes)
    assert sorted(organ.value for organ in ORGANS.values()) == list(range(1, 16))
    for organ in ORGANS.values():
        assert label(labels == organ.value, connectivity=1).max() == 1


def test_intensities_are_hounsfield_units_that_overlap(case):
    image, labels = case
    assert image[:, 0, 0].mean() == pytest.approx(AIR, abs=20)  # noise, cut off at -1024
    assert image.max() > 300
    spread = {name: np.percentile(image[labels == organ.value], [5, 95]) for name, organ in ORGANS.items()}
    assert spread["liver"][0] < spread["spleen"][1]
    assert spread["spleen"][0] < spread["liver"][1]
    assert spread["bladder"][1] < spread["aorta"][0]
    organs = image[labels > 0]
    assert -100 < organs.mean() < 200
    assert organs.std() < 0.2 * image.std()


def test_the_command_writes_a_data_set(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "ct"
    flags = ["--cases", "2", "--seed", "3", "--shape", "24", "40", "40", "-j", "1", "-q"]

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            common.run(make_ct_phantom, argv=["-o", str(folder), *arguments])
        return left.value.code

    assert run("--shape", "4", "40", "40") == 2
    assert "--shape: found (4, 40, 40), expected at least 16 voxels" in capsys.readouterr().err
    assert run(*flags) == 0
    dataset = Dataset.load(folder)
    assert dataset.channels == ("CT",)
    assert dataset.labels.n_classes == 16
    assert dataset.labels.is_dense
    assert dataset.case_names == ("ct_000", "ct_001")
    image, geometry = read_image(dataset.cases[1].images)
    expected, labels = ct_case(case_rng(3, "ct_001", "ct"), (24, 40, 40))
    assert np.array_equal(image[0], expected)
    assert np.array_equal(read_labels(dataset.cases[1].label)[0], labels)
    assert geometry.spacing == pytest.approx((2.5, 1.5, 1.5))
    assert not geometry.differs_from(read_labels(dataset.cases[1].label)[1])
    assert run(*flags) == 2
    assert "found a data set, expected a new folder" in capsys.readouterr().err
