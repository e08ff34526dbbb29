"""The command through its entry point, on a tiny trained model."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from PIL import Image
from toy import IGNORE

from autoseg.assist.suggest_run import refuse_data_sets
from autoseg.cli.suggest import check_units
from autoseg.core.errors import ConfigError
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions


def suggest(root: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command("suggest", "900", "--device", "cpu", "--no-tta", "-j", "0", *arguments, root=root)


@pytest.fixture(scope="module")
def root(toy_folder: Path, toy_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace with two folds trained for a few iterations."""
    folder = tmp_path_factory.mktemp("suggest")
    shutil.copytree(toy_workspace.root, folder, dirs_exist_ok=True)
    shutil.copytree(toy_folder, folder / "raw" / toy_folder.name)  # keeps the times, so the cache is up to date
    data, settings = Dataset.load(folder / "raw" / toy_folder.name), ("validation_iterations=1", "precision=float32")
    for fold in ("0", "1"):
        options = RunOptions(fold, "3d_fullres", iterations=4, settings=settings, workers=0, device="cpu")
        train_fold(prepare_fold(Workspace(folder), data, options))
    return folder


def model(root: Path) -> Path:
    return root / "results" / "Dataset900_Toy" / "default__3d_fullres"


@pytest.mark.slow
def test_slices_that_nobody_annotated_are_ranked(root):
    result = suggest(root, "-n", "6")
    assert result.returncode == 0, result.stderr
    assert "slice z = " in result.stdout
    assert "cases are predicted by folds that were trained on them" in result.stderr
    folder = model(root) / "suggestions"
    assert sorted(path.name for path in folder.iterdir()) == [
        "suggestions.csv", "suggestions.json", "suggestions.png",
    ]  # fmt: skip
    written = json.loads((folder / "suggestions.json").read_text())
    assert written["method"] == "clasp"
    assert len(written["suggestions"]) == 6
    with (folder / "suggestions.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, item in zip(rows, written["suggestions"], strict=True):
        assert (int(row["rank"]), row["case"], int(row["slice"])) == (item["rank"], item["case"], item["slice"])
        labels, _ = read_labels(root / "raw" / "Dataset900_Toy" / "labelsTr" / f"{row['case']}.nii.gz")
        assert (labels[int(row["slice"])] == IGNORE).all()
        assert float(row["unannotated_share"]) == 1
    assert np.asarray(Image.open(folder / "suggestions.png")).ndim == 3


@pytest.mark.slow
def test_more_suggestions_than_there_are_get_the_true_reasons(root, tmp_path):
    result = suggest(root, "-n", "1000", "-o", tmp_path / "out", "--pictures", "0", "--json")
    assert result.returncode == 0, result.stderr
    n = len(json.loads(result.stdout)["suggestions"])
    found = re.search(r"(\d+) suggestions instead of 1000; the other slices: (.*)", result.stderr)
    assert int(found[1]) == n
    numbers = {
        why: int(number) for number, why in re.findall(r"(\d+) (within|that are at least|in which the)", found[2])
    }
    shapes = [read_labels(path)[0].shape for path in (root / "raw/Dataset900_Toy/labelsTr").glob("*.nii.gz")]
    assert n + sum(numbers.values()) == sum(shape[0] for shape in shapes)  # nothing is passed over in silence
    assert numbers["that are at least"] > 0


@pytest.mark.slow
def test_patches_as_json(root, tmp_path):
    flags = ["--by", "patch", "--patch-size", "2", "6", "5", "-n", "3", "--method", "entropy", "--seed", "1"]
    result = suggest(root, *flags, "-o", tmp_path / "out", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["patch_size"] == [2, 6, 5]
    for item in found["suggestions"]:
        assert [last - first + 1 for first, last in (item["box"][axis] for axis in "zyx")] == [2, 6, 5]
    assert (tmp_path / "out" / "suggestions.png").is_file()


@pytest.mark.slow
def test_new_images_are_ranked_without_annotation(root, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    source = root / "raw" / "Dataset900_Toy" / "imagesTr" / "toy_000_0000.nii.gz"
    shutil.copy(source, images / "new_0000.nii.gz")
    result = suggest(root, "-i", images, "-n", "4", "--method", "random", "--axis", "2", "-o", tmp_path / "out", "-q")
    assert result.returncode == 0, result.stderr
    assert result.stderr == result.stdout == ""
    found = json.loads((tmp_path / "out" / "suggestions.json").read_text())
    assert {(item["case"], item["axis"]) for item in found["suggestions"]} == {("new", "x")}
    (images / "broken_0000.nii.gz").write_bytes(b"no image")
    broken = suggest(root, "-i", images, "-n", "2", "-o", tmp_path / "out")
    assert broken.returncode == 1
    assert "1 cases could not be predicted" in broken.stderr
    assert "Traceback" not in broken.stderr


@pytest.mark.parametrize(
    ("by", "axis", "patch_size", "message"),
    [
        ("slice", None, (1, 2, 3), "--patch-size: found with --by slice"),
        ("patch", 1, None, "--axis: found with --by patch"),
        ("patch", None, (0, 2, 3), r"--patch-size: found \(0, 2, 3\)"),
    ],
)
def test_options_that_do_not_go_together_are_refused(by, axis, patch_size, message):
    with pytest.raises(ConfigError, match=message):
        check_units(by, axis, patch_size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"), [(["-f", "4"], "found no finished fold 4"), (["-i", "nowhere"], "nowhere: found no such")]
)
def test_a_users_mistake_is_named(root, flags, message):
    result = suggest(root, *flags)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_set_is_not_written_into(toy_folder):
    with pytest.raises(ConfigError, match="expected a folder for suggestions"):
        refuse_data_sets(toy_folder)
