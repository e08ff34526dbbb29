"""The whole prose of each command: its help, and what it says when it succeeds and when it refuses.

After a change of prose look at what ``pytest tests/cli/test_golden.py --regenerate`` changes in ``golden/``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import groupby
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import run_command
from toy import write_toy_dataset

from autoseg.core.atomic import write_json
from autoseg.core.geometry import Geometry
from autoseg.core.progress import Progress, silent_stages
from autoseg.core.workspace import Workspace
from autoseg.io.images import write_labels, write_probabilities

GOLDEN = Path(__file__).parent / "golden"
QUICK = ("--set", "validation_iterations=1", "batch_size=2", "precision=float32")
CPU = ("--device", "cpu")
FRAMES = "─━│┃┏┓┗┛└┘┌┐├┤┡┩╇╈┳┻┴┬┼╭╮╰╯"


def transcript(command: str, *lines: tuple[object, ...], root: Path) -> str:
    """Return the help of a command, then each command line with its exit code, stdout and stderr, normalised."""
    shown = [f"$ autoseg_{command} --help", unframed(run_command(command, "--help", columns=1000).stdout)]
    for line in lines:
        done = run_command(command, *line, root=root)
        typed = " ".join(map(str, line)).replace(str(root), "ROOT")
        shown += [f"\n$ autoseg_{command} {typed}", f"exit code {done.returncode}"]
        streams = {"stdout": done.stdout, "stderr": done.stderr}
        if command == "train":  # the table of evaluate_folder, whose headings break where its numbers make them
            del streams["stdout"]
        for name, text in streams.items():
            if text.strip():
                shown += [f"{name}:", without_results(unframed(text.replace(str(root), "ROOT")))]
    return "\n".join(shown) + "\n"


def unframed(text: str) -> str:
    """Drop colours, frames, and the spaces that align columns: they follow the width of the numbers."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = (re.sub(rf"[\s{FRAMES}]+", " ", line).strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def without_results(text: str) -> str:
    """Write ``#`` for each number that stands by itself, and one row for the cases of a table.

    Results and seconds differ between machines.
    """
    text = re.sub(r"(?<![\w.#/])[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?(?!\w)|(?<= )-(?= |$)", "#", text)
    text = re.sub(r"# h # min|# min # s|# min\b", "# s", text)
    rows = ("CASE ..." if re.match(r"(# )?toy_\d+ ", line) else line for line in text.splitlines())
    return "\n".join(line for line, _ in groupby(rows))


@pytest.fixture(scope="module")
def root(toy_folder: Path, toy_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace with a sparse data set, planned and preprocessed for a tiny network, a dense and a broken one."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.copytree(toy_workspace.root, folder, dirs_exist_ok=True)
    shutil.copytree(toy_folder, folder / "raw" / toy_folder.name)  # keeps the times, so the cache is up to date
    write_toy_dataset(folder / "raw" / "Dataset901_Dense", n_cases=2, sparse=False, seed=1)
    broken = write_toy_dataset(folder / "raw" / "Dataset902_Broken", n_cases=2)
    (broken / "labelsTr" / "toy_001.nii.gz").write_bytes(b"no image")
    return folder


@pytest.fixture
def matches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[..., None]:
    """Return a function that compares the transcript of a command with its file, or writes that file."""

    def progress(title: str, *, quiet: bool = False) -> AbstractContextManager[Progress]:
        return silent_stages(title)  # lines of progress depend on the speed of the machine

    for module in ("common", "train"):
        monkeypatch.setattr(f"autoseg.cli.{module}.progress", progress)

    def check(command: str, *lines: tuple[object, ...]) -> None:
        text, path = transcript(command, *lines, root=root), GOLDEN / f"{command}.txt"
        if request.config.getoption("--regenerate"):
            path.write_text(text, encoding="utf-8")
        expected = path.read_text(encoding="utf-8")
        assert text == expected, "changed on purpose? pytest tests/cli/test_golden.py --regenerate"

    return check


@pytest.fixture(scope="module")
def train_line(root: Path) -> tuple[object, ...]:
    return ("900", "0", "--iterations", "2", "-j", "0", *CPU, *QUICK)


@pytest.fixture(scope="module")
def model(root: Path, train_line: tuple[object, ...]) -> Path:
    """Folder of a model of one fold, under another name than that of the golden training."""
    done = run_command("train", *train_line[:2], "--name", "golden", *train_line[2:], root=root)
    assert done.returncode == 0, done.stderr
    return root / "results" / "Dataset900_Toy" / "golden__3d_fullres"


def test_plan_and_preprocess(matches, root):
    matches(
        "plan_and_preprocess",
        ("900", "--check-only", "-j", "1"),
        ("901", "--planner", "small", "-c", "2d", "-j", "1"),
        ("902", "-j", "1"),
        ("nowhere",),
        ("901", "--planner", "huge"),
    )


@pytest.mark.slow
def test_train(matches, train_line):
    matches("train", train_line, train_line, ("900", "9"), ("902", "0"), ("900", "0", "--set", "lr=1"))


@pytest.mark.slow
def test_predict(matches, root, model):
    line = ("-o", root / "predicted", "-m", model, "--no-tta", "-j", "1", *CPU)
    images = ("-i", root / "raw/Dataset900_Toy/imagesTr")
    matches("predict", (*images, *line), (*images, *line), ("-i", "nowhere", *line), (*images, *line, "-f", "3"))


def test_evaluate_folder(matches, root):
    references = root / "raw/Dataset901_Dense/labelsTr"
    line = ("-o", root / "summary.json", "-j", "1")
    matches("evaluate_folder", (references, references, *line), (references, root / "nowhere", *line))


@pytest.mark.slow
def test_preview_batches(matches, root):
    line = ("900", "-n", "2", "-o", root / "patches.png")
    matches("preview_batches", line, (*line, "--iteration", "100000000"))


@pytest.mark.slow
def test_preview_augmentation(matches, root):
    line = ("900", "--augmentation", "em", "-n", "2", "-o", root / "augmented.png")
    matches("preview_augmentation", line, (*line[:1], "--augmentation", "en", *line[3:]))


@pytest.mark.slow
def test_complete(matches, root, model):
    line = ("900", "--name", "golden", "-o", root / "completed", "--no-tta", "-j", "0", *CPU)
    matches("complete", line, (*line, "--seen", "--review"), ("902",))


@pytest.mark.slow
def test_find_best(matches, root, model):
    line = ("900", "--name", "golden", "--root", root, "-j", "0", *CPU)
    matches("find_best", line, (*line, "-f", "0"), (*line, "-c", "2d"), ("902", *line[1:]))


@pytest.mark.slow
def test_suggest(matches, root, model):
    line = ("900", "--name", "golden", "-n", "2", "-o", root / "suggested", "--no-tta", "-j", "0", *CPU)
    matches("suggest", line, (*line, "--patch-size", "1", "2", "3"), (*line, "-f", "5"))


def test_simulate_annotation(matches, root):
    line = ("901", "-o", root / "simulated", "--points", "5", "-j", "1")
    matches("simulate_annotation", line, line, ("900", "-o", root / "other", "--points", "5", "-j", "1"))


def test_merge_datasets(matches, root):
    line = ("900", "901", "-o", root / "merged", "--name", "both", "-j", "1")
    matches("merge_datasets", line, line, ("900", "-o", root / "one"))


def test_convert_elektronn(matches, root):
    images, labels = [], []
    for index in range(2):
        cube, drawn = root / f"raw_{index}.h5", root / f"lab_{index}.h5"
        images.append(f"{cube}:raw")
        labels.append(f"{drawn}:labels")
        with h5py.File(cube, "w") as file:
            file["raw"] = np.full((14, 12, 8), 100, np.uint8)
        with h5py.File(drawn, "w") as file:
            file["labels"] = np.arange(960, dtype=np.int16).reshape(12, 10, 8) % 2
    line = ("-o", root / "converted", "--images", *images, "--labels", *labels)
    matches("convert_elektronn", line, line, (*line[:-1],))


@pytest.fixture(scope="module")
def pictures(root: Path) -> Path:
    """Folder with two pictures in ``images``, and the masks of two experts in ``experts``."""
    flat = Geometry(spacing=(1.0, 1.0, 1.0), ndim=2)
    grey = np.arange(80, dtype=np.uint8).reshape(1, 8, 10)
    for name in ("1", "10"):
        write_labels(root / "pictures" / "images" / f"{name}.png", grey, flat)
        for expert, limit in (("anna", 30), ("ben", 40)):
            mask = 255 * (grey > limit).astype(np.uint8)
            write_labels(root / "pictures" / "experts" / expert / f"{name}_mask.png", mask, flat)
    return root / "pictures"


def test_fuse_experts(matches, pictures):
    line = ("-o", pictures / "fused", "--images", pictures / "images", "-j", "1")
    matches(
        "fuse_experts",
        (pictures / "experts", *line),
        (pictures / "experts", *line),
        (pictures / "images", *line[2:], "-o", "new"),
    )


def test_import_images(matches, pictures):
    line = ("-o", pictures / "imported", "-j", "1")
    masks = pictures / "experts" / "anna"
    matches(
        "import_images",
        (pictures / "images", masks, *line),
        (pictures / "images", masks, *line),
        ("nowhere", masks, "-o", "new"),
    )


@pytest.fixture(scope="module")
def predictions(root: Path) -> tuple[Path, Path]:
    """Two folders as autoseg_predict --save-probabilities writes them."""
    folders = root / "first model", root / "second model"
    for seed, folder in enumerate(folders):
        values = np.random.default_rng(seed).random((2, 3, 8, 9)).astype(np.float32)
        write_labels(folder / "toy_000.nii.gz", values.argmax(0).astype(np.uint8), Geometry(spacing=(2.0, 1.0, 1.0)))
        write_probabilities(folder / "toy_000", values / values.sum(0), 2)
        content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "bright": 1}, "file_ending": ".nii.gz"}
        write_json(folder / "dataset.json", content)
    return folders


def test_ensemble(matches, root, predictions):
    line = (*predictions, "-o", root / "combined", "-j", "1")
    matches("ensemble", (*line, "--weights", "2", "1"), line, (*predictions[:1], "-o", root / "one"))


def test_postprocess(matches, root, predictions):
    steps = [
        {"operation": "keep_largest_component", "of": ["bright"]},
        {"operation": "remove_smaller_than", "of": ["bright"], "size": 4, "unit": "mm3"},
        {"operation": "fill_holes", "of": ["bright"]},
    ]
    write_json(root / "steps.json", {"steps": steps})
    write_json(root / "wrong.json", {"steps": [{"operation": "keep_largest_component", "of": ["dark"]}]})
    line = (predictions[0], "-o", root / "processed", "-j", "1")
    matches(
        "postprocess",
        (*line, "-p", root / "steps.json"),
        (*line, "-p", root / "steps.json"),
        (*line, "-p", root / "wrong.json"),
        (*line, "-p", "nowhere.json"),
    )


def test_report(matches, root):
    dataset, predictions = root / "raw/Dataset901_Dense", root / "predictions"
    shutil.copytree(dataset / "labelsTr", predictions)
    shutil.copy(dataset / "dataset.json", predictions)
    line = (predictions, "-i", dataset / "imagesTr")
    matches(
        "report", line, (*line, "--json"), (predictions,), (dataset,), ("nowhere",), (*line, "--summary", "nowhere")
    )


def test_ctl(matches, root):
    matches("ctl", (root, "help"), (root, "status"), (root, "setrl 1"))


@pytest.mark.slow
def test_plot(matches, root, model):
    matches("plot", (model / "fold_0",), (root,))


def test_every_command_has_its_file():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    commands = set(re.findall(r"^autoseg_(\w+) = ", text, re.M))
    assert {path.stem for path in GOLDEN.glob("*.txt")} == commands
