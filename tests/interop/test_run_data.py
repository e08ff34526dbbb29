"""A run's file with a table of cubes is a data set: converted on first use, and again when something changes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from autoseg.core.errors import ConfigError
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.interop.run_data import check_same_dataset, dataset_of_run_file, read_table
from autoseg.io.images import read_image, read_labels
from autoseg.planning import extract_fingerprint, plan
from autoseg.planning.splits import NNUNET_SPLITS_FILE, load_or_make_splits

N_CUBES = 3
TABLE = """
iterations = 5

[data]
images = ["cubes/raw_*.h5:raw"]
labels = ["cubes/lab_*.h5:labels"]
"""


@pytest.fixture
def cubes(tmp_path: Path) -> Path:
    """Folder with ``cubes/``: images of 12 x 10 x 4 voxels (x, y, z), labels of 8 x 6 x 4."""
    (tmp_path / "cubes").mkdir()
    rng = np.random.default_rng(0)
    for index in range(N_CUBES):
        with h5py.File(tmp_path / "cubes" / f"raw_{index}.h5", "w") as file:
            file["raw"] = rng.integers(0, 255, (12, 10, 4), dtype=np.uint8)
        with h5py.File(tmp_path / "cubes" / f"lab_{index}.h5", "w") as file:
            file["labels"] = np.arange(8 * 6 * 4, dtype=np.int16).reshape(8, 6, 4) % 2
    return tmp_path


def written(folder: Path, more: str = "", name: str = "run.toml") -> Path:
    path = folder / name
    path.write_text(TABLE + more)
    return path


def test_a_pattern_counts_as_a_loop_does(cubes):
    for kind in ("raw", "lab"):
        (cubes / "cubes" / f"{kind}_1.h5").rename(cubes / "cubes" / f"{kind}_10.h5")
    space = Workspace(cubes / "root")
    folder = dataset_of_run_file(written(cubes, "priorities = [1, 2, 3]\nvalidation = [1]"), space)
    assert {case.name: case.priority for case in Dataset.load(folder).cases} == {"raw_0": 1, "raw_2": 2, "raw_10": 3}
    assert json.loads((folder / NNUNET_SPLITS_FILE).read_text()) == [{"train": ["raw_0", "raw_10"], "val": ["raw_2"]}]


def test_cubes_become_a_data_set_with_labels_in_their_centre(cubes):
    space = Workspace(cubes / "root")
    folder = dataset_of_run_file(written(cubes, 'priorities = [1, 2, 0.5]\nclasses = ["background", "cell"]'), space)
    assert folder == space.raw("run")
    dataset = Dataset.load(folder)
    assert dataset.case_names == ("raw_0", "raw_1", "raw_2") and dataset.labels.class_names == ("background", "cell")
    assert [case.priority for case in dataset.cases] == [1, 2, 0.5]
    labels, _ = read_labels(dataset.case("raw_1").label)
    assert labels.shape == (4, 10, 12) and set(np.unique(labels[:, 2:8, 2:10])) == {0, 1}
    assert (labels[:, :2] == dataset.labels.ignore).all() and (labels[:, :, 10:] == dataset.labels.ignore).all()
    assert len(load_or_make_splits(dataset, cubes / "none", dataset.case_names)) == N_CUBES


@pytest.mark.parametrize("chosen", ["[1]", '["raw_1"]'])
def test_cubes_that_validate_are_the_only_fold(cubes, chosen):
    dataset = Dataset.load(dataset_of_run_file(written(cubes, f"validation = {chosen}"), Workspace(cubes)))
    (fold,) = load_or_make_splits(dataset, cubes / "none", dataset.case_names)
    assert (fold.train, fold.val) == (("raw_0", "raw_2"), ("raw_1",))


def test_slices_of_stacks_are_cases_for_2d_networks(cubes):
    more = "anisotropic_data = true\npriorities = [1, 2, 4]\nvalidation = [2]\nspacing = [2, 1, 1]"
    dataset = Dataset.load(dataset_of_run_file(written(cubes, more), Workspace(cubes)))
    assert dataset.case_names[:2] == ("raw_0_z0000", "raw_0_z0001") and len(dataset.cases) == 4 * N_CUBES
    assert {(case.group, case.priority) for case in dataset.cases} == {("raw_0", 0.25), ("raw_1", 0.5), ("raw_2", 1)}
    image, _ = read_image(dataset.case("raw_1_z0003").images)
    with h5py.File(cubes / "cubes" / "raw_1.h5") as file:
        np.testing.assert_array_equal(image[0, 0], file["raw"][:, :, 3].T)
    (fold,) = load_or_make_splits(dataset, cubes / "none", dataset.case_names)
    assert fold.val == tuple(f"raw_2_z{z:04d}" for z in range(4))
    assert list(plan(dataset, extract_fingerprint(dataset), "small").configurations) == ["2d"]


def test_files_are_converted_once_and_again_when_one_or_the_table_changed(cubes):
    path, space = written(cubes), Workspace(cubes)
    first = (dataset_of_run_file(path, space) / "dataset.json").stat().st_mtime_ns
    assert (dataset_of_run_file(path, space) / "dataset.json").stat().st_mtime_ns == first
    with h5py.File(cubes / "cubes" / "lab_0.h5", "w") as file:
        file["labels"] = np.full((8, 6, 4), 2, dtype=np.int16)
    assert Dataset.load(dataset_of_run_file(path, space)).labels.class_names[-1] == "class_2"
    path = written(cubes, 'classes = ["background", "a", "b"]')
    assert Dataset.load(dataset_of_run_file(path, space)).labels.class_names[-1] == "b"
    os.utime(cubes / "cubes" / "raw_0.h5", (1, 1))
    (cubes / "cubes" / "raw_2.h5").unlink()
    (cubes / "cubes" / "lab_2.h5").unlink()
    assert len(Dataset.load(dataset_of_run_file(path, space)).cases) == N_CUBES - 1
    assert not list(space.raw("").glob(".*"))


def test_a_data_set_of_another_origin_is_not_replaced(cubes):
    space = Workspace(cubes)
    foreign = space.raw("run")
    foreign.mkdir(parents=True)
    (foreign / "dataset.json").write_text("{}")
    with pytest.raises(ConfigError, match=r'another origin.*name = "run_2"'):
        dataset_of_run_file(written(cubes), space)
    assert dataset_of_run_file(written(cubes, 'name = "mine"'), space) == space.raw("mine")
    (cubes / "other").mkdir()
    other = cubes / "other" / "run.toml"
    other.write_text(TABLE.replace("cubes/", "../cubes/") + 'name = "mine"')
    with pytest.raises(ConfigError, match=r"holds a data set of .*run\.toml"):
        dataset_of_run_file(other, space)
    assert json.loads((foreign / "dataset.json").read_text()) == {}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("valid_cubes = [0]", "data.valid_cubes: no such key.* Write validation"),
        ("priorites = [0]", "data.priorites: no such key.*Did you mean 'priorities'"),
        ("validation = [3]", "data.validation: found 3, expected numbers from 0 to 2"),
        ("validation = [0, 1, 2]", "data.validation: found all cubes"),
        ("priorities = [1]", "data.priorities: found 1 value, expected 3"),
        ('axes = "xyt"', "axes: 'xyt'"),
        ("spacing = [1, 1]", r"data.spacing"),
    ],
)
def test_what_is_wrong_in_the_table_is_named(cubes, more, message):
    with pytest.raises(ConfigError, match=message):
        dataset_of_run_file(written(cubes, more), Workspace(cubes))
    assert not (cubes / "raw").exists()


def test_a_file_without_the_table_is_no_data_set(cubes):
    path = cubes / "run.toml"
    path.write_text("seed = 1")
    assert read_table(path) is None
    with pytest.raises(ConfigError, match=rf"no table \[data\].*--config {re.escape(str(path))}"):
        dataset_of_run_file(path, Workspace(cubes))
    check_same_dataset(path, Workspace(cubes), cubes)
    with pytest.raises(ConfigError, match=r"describes .*raw/run, expected"):
        check_same_dataset(written(cubes), Workspace(cubes), cubes)
    check_same_dataset(written(cubes), Workspace(cubes), Workspace(cubes).raw("run"))
