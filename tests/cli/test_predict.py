from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from autoseg.cli import common, predict
from autoseg.core.fingerprint import IntensityProperties
from autoseg.core.plan import Configuration, Plan, Topology
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import Checkpoint, save_checkpoint


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the command in this process and gives its exit code."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autoseg_predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            predict.main()
        return left.value.code

    yield call
    common.log.handlers.clear()
    common.log.propagate = True


@pytest.fixture
def workspace(tmp_path):
    """A workspace with a model of data set Toy (folds 0 and 1), and two images in ``in``."""
    topology = Topology(
        kind="plain", features=(2,), strides=((1, 1, 1),), kernels=((3, 3, 3),), encoder_blocks=(1,), decoder_blocks=()
    )
    configuration = Configuration(
        name="3d_fullres", spacing=(1.0, 1.0, 1.0), patch_size=(8, 8, 8), batch_size=2, median_shape=(9.0, 9.0, 9.0),
        normalization=("zscore",), use_mask_for_norm=(False,), topology=topology, batch_dice=False,
    )  # fmt: skip
    statistics = IntensityProperties(mean=0, median=0, std=1, min=0, max=1, percentile_99_5=1, percentile_00_5=0)
    plan = Plan(
        dataset_name="Toy", planner="small", transpose_forward=(0, 1, 2), transpose_backward=(0, 1, 2),
        original_median_spacing=(1.0, 1.0, 1.0), original_median_shape=(9, 9, 9), channel_names=("MR",),
        intensities=(statistics,), configurations={"3d_fullres": configuration},
    )  # fmt: skip
    dataset = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "organ": 1},
        "file_ending": ".mha",
        "name": "Toy",
    }
    for fold in ("0", "1"):
        torch.manual_seed(int(fold))
        weights = build_network(topology, 1, 2).state_dict()
        path = tmp_path / "results" / "Toy" / "default__3d_fullres" / f"fold_{fold}" / "checkpoint_final.pt"
        save_checkpoint(path, Checkpoint(weights, plan, "3d_fullres", dataset, (0, 1, 2), fold))
    (tmp_path / "in").mkdir()
    for seed, name in enumerate("ab"):
        array = np.random.default_rng(seed).normal(size=(9, 8, 10)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "in" / f"{name}_0000.mha"))
    return tmp_path


def test_a_model_is_found_by_data_set_and_configuration(run, workspace, monkeypatch):
    monkeypatch.setenv("AUTOSEG_ROOT", str(workspace))
    common_arguments = ("-i", workspace / "in", "-d", "Toy", "-c", "3d_fullres", "--device", "cpu", "-q")
    assert run(*common_arguments, "-o", workspace / "out") == 0
    assert sorted(path.name for path in (workspace / "out").glob("*.mha")) == ["a.mha", "b.mha"]
    monkeypatch.delenv("AUTOSEG_ROOT")
    assert run(*common_arguments, "-o", workspace / "out2", "--root", workspace, "-f", "0", "1") == 0
    for name in "ab":
        first, second = (sitk.ReadImage(str(workspace / out / f"{name}.mha")) for out in ("out", "out2"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))


def test_several_model_folders_are_averaged(run, workspace):
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    other = workspace / "results" / "Toy" / "default__other"
    shutil.copytree(model, other)
    line = ("-i", workspace / "in", "--device", "cpu", "-q", "--no-tta", "--save-probabilities")
    assert run(*line, "-o", workspace / "one", "-m", model, "-f", "0") == 0
    assert run(*line, "-o", workspace / "two", "-m", model, "-f", "1") == 0
    shutil.rmtree(model / "fold_1")
    shutil.rmtree(other / "fold_0")
    assert run(*line, "-o", workspace / "m", "-m", model, other) == 0
    assert run(*line, "-o", workspace / "c", "-d", "Toy", "-c", "3d_fullres", "other", "--root", workspace) == 0
    for name in "ab":
        found = {folder: np.load(workspace / folder / f"{name}.npz")["probabilities"] for folder in ("one", "two", "m")}
        np.testing.assert_allclose(found["m"], (found["one"] + found["two"]) / 2, atol=1e-6)
        assert (workspace / "m" / f"{name}.mha").read_bytes() == (workspace / "c" / f"{name}.mha").read_bytes()


def test_a_data_set_given_by_its_folder_names_the_model(run, workspace):
    raw = workspace / "elsewhere" / "Toy"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".mha"}
    (raw / "dataset.json").write_text(json.dumps(content | {"numTraining": 1}))
    for path in (raw / "imagesTr" / "x_0000.mha", raw / "labelsTr" / "x.mha"):
        path.write_bytes((workspace / "in" / "a_0000.mha").read_bytes())
    arguments = ("-i", workspace / "in", "-o", workspace / "out", "-c", "3d_fullres", "--root", workspace, "-q")
    assert run(*arguments, "-d", raw, "--device", "cpu") == 0


def test_the_result_is_printed_for_machines(run, workspace, capsys):
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    arguments = ("-i", workspace / "in", "-o", workspace / "out", "-m", model, "--device", "cpu", "--json", "--no-tta")
    assert run(*arguments, "--save-probabilities", "-j", "0") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["done"], result["skipped"], result["failed"]) == (["a", "b"], [], {})
    assert (workspace / "out" / "a.npz").is_file()
    assert run(*arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["skipped"] == ["a", "b"]
    assert "0 predicted, 2 existed already" in captured.err


def test_a_broken_case_gives_exit_code_1_and_is_named_at_the_end(run, workspace, capsys):
    broken = workspace / "in" / "a_0000.mha"
    broken.write_bytes(broken.read_bytes()[:-100])
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    assert run("-i", workspace / "in", "-o", workspace / "out", "-m", model, "--device", "cpu") == 1
    last = capsys.readouterr().err.splitlines()[-2:]
    assert last[0] == "failed: 1 case could not be predicted:"
    assert last[1].startswith("  a: ")
    assert (workspace / "out" / "b.mha").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "found no model, expected -m MODEL_FOLDER, or -d DATASET with -c CONFIGURATION"),
        (("-d", "Toy"), "found no model, expected -m"),
        (("-m", "x", "-d", "Toy"), "found -m together with -d or -c"),
        (("-m", "x"), "x: found no such folder, expected a model folder"),
        (("-d", "Other", "-c", "2d"), "data set 'Other': neither a folder"),
        (("-d", "Toy", "-c", "2d"), "default__2d: found no such folder"),
        (("-d", "Toy", "-c", "2d"), "(there: default__3d_fullres)"),
        (
            ("-d", "Toy", "-c", "3d_fullres", "-f", "7"),
            "found no finished fold 7, expected one of the finished folds: 0, 1",
        ),
        (("-d", "Toy", "-c", "3d_fullres", "2d"), "default__2d: found no such folder"),
        (("-d", "Toy", "-c", "3d_fullres", "3d_fullres"), "found the model folder twice"),
        (("-d", "Toy", "-c", "3d_fullres", "-f", "0_seed1"), "found no finished fold 0_seed1"),
        (("-d", "Toy", "-c", "3d_fullres", "--step", "2"), "step: found 2.0"),
        (("-d", "Toy", "-c", "3d_fullres", "--device", "tpu"), "device: found 'tpu'"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_one_line(run, workspace, capsys, arguments, message):
    code = run("-i", workspace / "in", "-o", workspace / "out", "--root", workspace, *arguments)
    captured = capsys.readouterr().err
    assert code == 2
    assert message in captured
    assert "Traceback" not in captured
    assert not (workspace / "out").exists()


@pytest.mark.slow
def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['autoseg_predict', '--help']\n"
        "import autoseg.cli.predict as command\n"
        "try: command.main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    start = time.perf_counter()
    wide = {**os.environ, "COLUMNS": "120"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False, env=wide)
    assert result.returncode == 0
    assert "--save-probabilities" in result.stdout
    assert time.perf_counter() - start < 10


def test_no_image_of_the_input_folder_vanishes(run, workspace, capsys):
    """Names in are names out or names reported, and then the exit code says that part is missing."""
    images = workspace / "in"
    array = np.random.default_rng(0).normal(size=(9, 8, 10)).astype(np.float32)
    for name in ("c_0000.nrrd", "d_0000.nii.gz"):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(images / name))
    (images / "b_0000.mha").rename(images / "b_0000.MHA")
    (images / "e_0000.mha").symlink_to(workspace / "gone.mha")
    (images / "f_0000.mha").touch()
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    assert run("-i", images, "-o", workspace / "out", "-m", model, "--device", "cpu", "--no-tta", "--json") == 1
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert sorted(result["done"]) == ["a"]
    assert sorted(result["failed"]) == ["b", "c", "d", "e", "f"]  # ITK reads no .MHA, which is said
    for name in ("b_0000.MHA", "c_0000.nrrd", "d_0000.nii.gz", "e_0000.mha", "f_0000.mha"):
        assert name in captured.err


def test_one_image_and_a_list_of_images_are_predicted(run, workspace, capsys):
    """As the folder predicts them; the list starts at its own folder, not at that of the process."""
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    arguments = ("-m", model, "--device", "cpu", "--no-tta", "-q")
    (workspace / "in" / "list.txt").write_text("# new ones\n\nb_0000.mha\n", encoding="utf-8")
    inputs = {"all": "in", "one": "in/a_0000.mha", "listed": "in/list.txt"}
    for name, given in inputs.items():
        assert run("-i", workspace / given, "-o", workspace / name, *arguments) == 0
    written = {name: sorted(path.name for path in (workspace / name).glob("*.mha")) for name in inputs}
    assert written == {"all": ["a.mha", "b.mha"], "one": ["a.mha"], "listed": ["b.mha"]}
    for folder, case in (("one", "a"), ("listed", "b")):
        assert (workspace / folder / f"{case}.mha").read_bytes() == (workspace / "all" / f"{case}.mha").read_bytes()


def test_a_wrong_list_is_refused_before_anything_is_written(run, workspace, capsys):
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    path = workspace / "list.txt"
    path.write_text("in/a_0000.mha\nin/c_0000.mha\n", encoding="utf-8")
    assert run("-i", path, "-o", workspace / "out", "-m", model, "--device", "cpu", "-q") == 2
    assert f"{path}, line 2: found no file, {workspace / 'in' / 'c_0000.mha'}, expected" in capsys.readouterr().err
    assert not (workspace / "out").exists()


def test_fast_predicts_without_mirrored_copies_in_wide_steps(run, workspace):
    model = workspace / "results" / "Toy" / "default__3d_fullres"
    line = ("-i", workspace / "in", "-m", model, "--device", "cpu", "-q")
    options = {"slow": (), "fast": ("--fast",), "same": ("--no-tta", "--step", "0.75")}
    maps = {}
    for name, given in options.items():
        assert run(*line, "-o", workspace / name, *given) == 0
        maps[name] = sitk.GetArrayFromImage(sitk.ReadImage(str(workspace / name / "a.mha")))
    assert np.array_equal(maps["fast"], maps["same"])
    assert not np.array_equal(maps["fast"], maps["slow"])
