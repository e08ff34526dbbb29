"""Models are compared on what each fold predicted of the cases that it left out, and pairs by their mean."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from tiny_models import make_checkpoint

from autoseg.assist import trained_folds
from autoseg.assist.find_best import FindBest, FindBestOptions, find_best, prediction_commands
from autoseg.core.atomic import write_json
from autoseg.core.errors import ConfigError, EvaluationError, ModelError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation.postprocessing import KeepLargestComponent, load_postprocessing
from autoseg.inference.predict_images import predict_images
from autoseg.io.images import read_labels, write_labels
from autoseg.nn.checkpoint import load_checkpoint, save_checkpoint

NAME = "Dataset005_Toy"
CASES = tuple(f"case{index}" for index in range(8))
FOLDS = {"0": CASES[:4], "1": CASES[4:]}
OPTIONS = FindBestOptions(device="cpu")


def truth_of(index, shape):
    """Return a dense label map (z, y, x) with a box of class 1."""
    label_map = np.zeros(shape, dtype=np.uint8)
    label_map[..., 4:9, 3 + index % 3 : 11] = 1
    return label_map


def make_workspace(root: Path, *, n_dims=3) -> Workspace:
    """Write a dense data set with two folds of four cases; images show the label map."""
    workspace = Workspace(root)
    raw = workspace.raw(NAME)
    shape, spacing = ((8, 16, 16), (2.0, 1.0, 1.0)) if n_dims == 3 else ((1, 16, 16), (FLAT_SPACING, 1.0, 1.0))
    geometry, ending = Geometry(spacing=spacing, ndim=n_dims), ".nii.gz" if n_dims == 3 else ".png"
    for index, case in enumerate(CASES):
        truth = truth_of(index, shape)
        noise = np.random.default_rng(index).integers(0, 60, shape)
        write_labels(raw / "imagesTr" / f"{case}_0000{ending}", (100 * truth + noise).astype(np.uint8), geometry)
        write_labels(raw / "labelsTr" / f"{case}{ending}", truth, geometry)
    content = {
        "channel_names": {"0": "channel0"}, "labels": {"background": 0, "organ": 1, "ignore": 2},
        "numTraining": len(CASES), "file_ending": ending, "name": "Toy",
    }  # fmt: skip
    write_json(raw / "dataset.json", content)
    splits = [{"train": [case for case in CASES if case not in val], "val": list(val)} for val in FOLDS.values()]
    write_json(raw / "splits_final.json", splits)
    return workspace


def add_model(workspace: Workspace, configuration: str, n_wrong: int, *, name="default", seed=0, n_dims=3) -> Path:
    """Write a model folder as after training: weights, lists of cases, and predictions with some wrong voxels."""
    folder = workspace.model(NAME, configuration, name)
    for fold, val in FOLDS.items():
        options = {"n_dims": n_dims} | ({"spacing": (FLAT_SPACING, 1.0, 1.0), "ending": ".png"} if n_dims == 2 else {})
        save_checkpoint(folder / f"fold_{fold}" / "checkpoint_final.pt", make_checkpoint(fold, **options))
        train = [case for case in CASES if case not in val]
        write_json(folder / f"fold_{fold}" / "training.json", {"train_cases": train, "val_cases": list(val)})
        for case in val:
            (label,) = (workspace.raw(NAME) / "labelsTr").glob(f"{case}.*")
            values, geometry = read_labels(label)
            values = values.copy()
            wrong = np.random.default_rng(100 * seed + int(case[-1])).choice(values.size, n_wrong, replace=False)
            values.reshape(-1)[wrong] = 1 - values.reshape(-1)[wrong]
            write_labels(folder / f"fold_{fold}" / "validation" / label.name, values, geometry)
    return folder


@pytest.fixture
def workspace(tmp_path):
    return make_workspace(tmp_path / "a root")


def run(workspace, **options):
    return find_best(workspace, Dataset.load(workspace.raw(NAME)), FindBestOptions(device="cpu", **options))


def results(workspace):
    return workspace.results(NAME)


def test_the_model_with_the_higher_dice_is_chosen_and_written(workspace):
    add_model(workspace, "3d_lowres", 40)
    good = add_model(workspace, "3d_fullres", 5)
    found = run(workspace, with_pairs=False)
    assert found.choice.chosen == (good.name,)
    assert [model.members for model in found.choice.ranking] == [(good.name,), ("default__3d_lowres",)]
    assert found.cases == CASES and found.folds == ("0", "1") and found.choice.n_cases == 8
    expected = []
    for index, case in enumerate(CASES):
        truth = truth_of(index, (8, 16, 16))
        predicted = read_labels(good / f"fold_{index // 4}" / "validation" / f"{case}.nii.gz")[0]
        expected.append(2 * (truth & predicted).sum() / (truth.sum() + predicted.sum()))
    assert found.choice.ranking[0].foreground == pytest.approx(np.mean(expected))
    assert found.choice.ranking[1].against_best_single.is_clear
    assert FindBest.model_validate_json((results(workspace) / "find_best.json").read_text()) == found
    assert load_postprocessing(results(workspace) / "postprocessing.json") == found.postprocessing
    lines = (results(workspace) / "predict_command.txt").read_text().splitlines()
    assert lines[0].startswith("# ") and tuple(lines[1:]) == found.commands


def test_of_equally_good_models_the_cheaper_is_chosen(workspace):
    add_model(workspace, "3d_fullres", 10)
    add_model(workspace, "3d_lowres", 10)
    assert run(workspace, with_pairs=False).choice.chosen == ("default__3d_lowres",)


@pytest.mark.slow
@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_pair_is_the_mean_of_the_folds_that_left_the_case_out(tmp_path, n_dims):
    workspace = make_workspace(tmp_path, n_dims=n_dims)
    configuration = "2d" if n_dims == 2 else "3d_fullres"
    folders = [add_model(workspace, configuration, 5, name=name, n_dims=n_dims) for name in ("default", "other")]
    dataset = Dataset.load(workspace.raw(NAME))
    for fold in FOLDS:  # another network
        shape = {"spacing": (FLAT_SPACING, 1.0, 1.0), "ending": ".png"} if n_dims == 2 else {}
        other = make_checkpoint("7", n_dims=n_dims, **shape)
        save_checkpoint(folders[1] / f"fold_{fold}" / "checkpoint_final.pt", other)
    further = make_checkpoint("9", n_dims=n_dims, **shape)  # no part of the validation of fold 0
    save_checkpoint(folders[0] / "fold_0_seed1" / "checkpoint_final.pt", further)
    found = run(workspace)
    pair = tuple(folder.name for folder in folders)
    assert {model.members for model in found.choice.ranking} == {pair, pair[:1], pair[1:]}
    assert len(found.choice.chosen) == 1  # random networks do not improve anything
    for case, fold in (("case1", "0_seed0"), ("case6", "1_seed0")):
        predict_images({case: dataset.case(case).images}, tmp_path / "expected", folders, folds=[fold], device="cpu")
        (written,) = (results(workspace) / "find_best" / "+".join(pair)).glob(f"{case}.*")
        expected, geometry = read_labels(tmp_path / "expected" / written.name)
        assert np.array_equal(read_labels(written)[0], expected) and 0 < expected.mean() < 1
        assert read_labels(written)[1] == geometry
    assert not list((results(workspace) / "find_best").glob(".probabilities_*"))


@pytest.mark.slow
def test_pairs_are_predicted_again_only_after_training(workspace, monkeypatch):
    folders = [add_model(workspace, "3d_fullres", 5, name=name) for name in ("default", "other")]
    run(workspace)
    (pair,) = (results(workspace) / "find_best").iterdir()
    times = {path.name: path.stat().st_mtime_ns for path in pair.iterdir()}
    run(workspace)
    assert {path.name: path.stat().st_mtime_ns for path in pair.iterdir()} == times
    os.utime(folders[1] / "fold_1" / "checkpoint_final.pt")
    run(workspace)
    again = {path.name for path in pair.iterdir() if path.stat().st_mtime_ns != times[path.name]}
    assert again == {f"{case}.nii.gz" for case in FOLDS["1"]}


def perfect_with_specks(workspace, folder):
    """Make the predictions of a model right but for a voxel far away."""
    for index, case in enumerate(CASES):
        path = folder / f"fold_{index // 4}" / "validation" / f"{case}.nii.gz"
        values, geometry = truth_of(index, (8, 16, 16)), read_labels(path)[1]
        values[0, 15, 15] = 1
        write_labels(path, values, geometry)


def commands_of_two_plans(folders, folds, postprocessing):
    """Return the commands for a pair whose second model crops images, which the first one does not."""
    for path in folders[1].glob("fold_*/checkpoint_final.pt"):
        checkpoint = load_checkpoint(path)
        crop = not checkpoint.plan.crop
        save_checkpoint(path, replace(checkpoint, plan=checkpoint.plan.model_copy(update={"crop": crop})))
    return prediction_commands(folders, folds, postprocessing)


@pytest.mark.slow
def test_the_commands_work_as_written(workspace, tmp_path, monkeypatch):
    """In another folder, with blanks in the paths: one model with post-processing, and a pair."""
    folders = [add_model(workspace, "3d_fullres", 5, name=name) for name in ("default", "other")]
    perfect_with_specks(workspace, folders[0])
    found = run(workspace, with_pairs=False)
    assert found.postprocessing.steps == (KeepLargestComponent(of=("organ",)),)
    images = sorted((workspace.raw(NAME) / "imagesTr").iterdir())[:1]
    postprocessing = results(workspace) / "postprocessing.json"
    for number, n_lines in enumerate((2, 2, 4)):
        lines = found.commands
        if number:
            lines = (prediction_commands, commands_of_two_plans)[number - 1](folders, ("0", "1"), postprocessing)
        assert len(lines) == n_lines
        elsewhere = tmp_path / f"else where {number}"
        (elsewhere / "new_images").mkdir(parents=True)
        (elsewhere / "new_images" / images[0].name).symlink_to(images[0].resolve())
        monkeypatch.chdir(elsewhere)
        for line in lines:
            command, *arguments = shlex.split(line)
            done = run_command(command.removeprefix("autoseg_"), *arguments)
            assert done.returncode == 0, done.stderr
        label_map, geometry = read_labels(elsewhere / "predictions" / "case0.nii.gz")
        assert label_map.shape == (8, 16, 16) and geometry.spacing == pytest.approx((2, 1, 1))


def test_a_subset_of_the_folds_uses_their_cases_alone(workspace):
    folder = add_model(workspace, "3d_fullres", 5)
    (folder / "fold_1" / "checkpoint_final.pt").unlink()
    found = run(workspace, folds=("0",))
    assert found.cases == FOLDS["0"] and found.folds == ("0",)
    assert "-f 0" in found.commands[0]
    assert all("4 of 4 references" in decision.reason for decision in found.decisions)


def test_missing_folds_are_named_with_the_commands_that_train_them(workspace):
    folder = add_model(workspace, "3d_fullres", 5)
    (folder / "fold_1" / "checkpoint_final.pt").unlink()
    with pytest.raises(ModelError, match=r"fold 1 is not finished.*train: autoseg_train \S+ 1 -c 3d_fullres --root '"):
        run(workspace)
    (folder / "fold_1" / "checkpoint_latest.pt").touch()
    (folder / "fold_0" / "validation" / "case2.nii.gz").unlink()
    command = r"train: autoseg_train \S+ 0 1 -c 3d_fullres --resume --root '[^;]*$"
    with pytest.raises(ModelError, match=rf"fold 0 has no predictions of case2.*fold 1 is not finished.*{command}"):
        run(workspace)


def test_folds_that_need_the_same_options_are_trained_by_one_command(workspace):
    folder = add_model(workspace, "3d_fullres", 5)
    for fold in FOLDS:
        (folder / f"fold_{fold}" / "checkpoint_final.pt").unlink()
    with pytest.raises(ModelError, match=r"train: autoseg_train \S+ 0 1 -c 3d_fullres --root '[^;]*$"):
        run(workspace)
    (folder / "fold_1" / "checkpoint_latest.pt").touch()
    new, begun = r"autoseg_train \S+ 0 -c 3d_fullres --root", r"autoseg_train \S+ 1 -c 3d_fullres --resume --root"
    with pytest.raises(ModelError, match=rf"train: {new} [^;]*; {begun} [^;]*$"):
        run(workspace)


def test_an_unfinished_model_is_left_out_with_a_reason_unless_it_is_asked_for(workspace, caplog):
    add_model(workspace, "3d_fullres", 5)
    broken = add_model(workspace, "2d", 5)
    (broken / "fold_0" / "checkpoint_final.pt").unlink()
    found = run(workspace)
    assert found.choice.chosen == ("default__3d_fullres",)
    assert "fold 0 is not finished" in found.left_out["default__2d"] and "default__2d is left out" in caplog.text
    with pytest.raises(ModelError, match="default__2d: found that fold 0 is not finished"):
        run(workspace, configurations=("2d", "3d_fullres"))


def test_a_fold_that_was_trained_on_its_validation_cases_is_no_evidence(workspace):
    folder = add_model(workspace, "3d_fullres", 5)
    content = json.loads((folder / "fold_0" / "training.json").read_text())
    write_json(folder / "fold_0" / "training.json", content | {"seen_cases": ["case1"]})
    with pytest.raises(ModelError, match=r"was trained on cases of its validation \(case1\).*--overwrite"):
        run(workspace)


def test_a_model_of_other_folds_is_not_compared(workspace):
    folder = add_model(workspace, "3d_fullres", 5)
    content = json.loads((folder / "fold_0" / "training.json").read_text())
    write_json(folder / "fold_0" / "training.json", content | {"val_cases": list(FOLDS["0"][:3])})
    with pytest.raises(ModelError, match=r"other cases than those of the split: case3.*--overwrite"):
        run(workspace)


@pytest.mark.parametrize(("options", "match"), [
    ({"configurations": ("2d",)}, r"no model of -c 2d, expected one of 3d_fullres.*autoseg_train \S+ 0 -c 2d"),
    ({"configurations": ("3D_fullres",)}, r"expected one of 3d_fullres. Correct -c. Did you mean '3d_fullres'"),
    ({"names": ("deep",)}, r"no model of --name deep, expected one of default"),
    ({"folds": ("7",)}, r"folds: found 7, expected some of 0 to 1"),
    ({"folds": ("all",)}, r"folds: found all, expected some of 0 to 1"),
])  # fmt: skip
def test_what_does_not_exist_is_refused(workspace, options, match):
    add_model(workspace, "3d_fullres", 5)
    with pytest.raises(ConfigError, match=match):
        run(workspace, **options)


def test_a_case_too_large_for_memory_without_a_scored_box_needs_its_validation(workspace, monkeypatch):
    add_model(workspace, "3d_fullres", 5)
    monkeypatch.setattr(trained_folds, "is_large", lambda files: files.name == "case1")
    with pytest.raises(ModelError, match=r"fold 0 has no predictions of case1 in validation/.*--resume"):
        run(workspace)


def test_without_any_model_the_command_that_trains_is_given(workspace):
    with pytest.raises(ConfigError, match=r"no such model.*Train first: autoseg_train"):
        run(workspace)


def test_a_damaged_prediction_is_an_error_that_names_the_file(workspace):
    folder = add_model(workspace, "3d_fullres", 5)
    (folder / "fold_0" / "validation" / "case0.nii.gz").write_bytes(b"no image")
    with pytest.raises(EvaluationError, match=r"case0\.nii\.gz"):
        run(workspace)


def test_sparse_references_rank_models_and_decide_no_postprocessing(workspace):
    folders = [add_model(workspace, configuration, n) for configuration, n in (("3d_lowres", 60), ("3d_fullres", 5))]
    for path in (workspace.raw(NAME) / "labelsTr").iterdir():
        values, geometry = read_labels(path)
        values = values.copy()
        values[1:-1] = 2
        write_labels(path, values, geometry)
    done = run_command("find_best", NAME, "--no-pairs", "--device", "cpu", "-j", "1", "--json", root=workspace.root)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["choice"]["chosen"] == [folders[1].name] and content["choice"]["scored_on"] == "annotated voxels"
    assert content["postprocessing"] == {"steps": []}
    assert {"not decided: 0 of 8 references decide every voxel for organ, expected at least 6"} == {
        decision["reason"] for decision in content["decisions"]
    }
    assert "Dice is on annotated voxels" in done.stderr


@pytest.mark.slow
def test_through_the_entry_point(workspace):
    add_model(workspace, "3d_fullres", 5)
    script = Path(sys.executable).parent / "autoseg_find_best"
    command = [str(script)] if script.is_file() else [sys.executable, "-m", "autoseg.cli.find_best"]
    environment = os.environ | {"AUTOSEG_ROOT": str(workspace.root)}
    line = [*command, "5", "-c", "3d_fullres", "-f", "0", "1", "-j", "1", "--device", "cpu"]
    done = subprocess.run(line, capture_output=True, encoding="utf-8", check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "default__3d_fullres" in done.stdout and "autoseg_predict -i new_images" in done.stdout
    assert "chosen: default__3d_fullres: the only model" in done.stderr
