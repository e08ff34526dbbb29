"""Weights of another training as a start: by name, and never silently those that saw the validation cases."""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import replace

import pytest
import torch

from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.trained_on import TrainedCase
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.inference.out_of_fold import read_fold_cases
from autoseg.nn.checkpoint import load_checkpoint, save_checkpoint
from autoseg.training.fold import train_fold
from autoseg.training.history import dice_name
from autoseg.training.prepare import check_start, prepare_fold
from autoseg.training.pretrained import pretrained_checkpoint
from autoseg.training.run_checkpoints import FINAL, LATEST
from autoseg.training.run_config import CHECKPOINT_LEVEL, RunOptions
from autoseg.training.validation import validate_fold

SETTINGS = ("precision=float32", "iterations_per_epoch=2", "validation_iterations=1", "mirror=false")


def prepared(folder, workspace, fold, run, **options):
    torch.set_num_threads(1)
    chosen = RunOptions(fold, iterations=2, settings=SETTINGS, workers=0, device="cpu", **options)
    request = prepare_fold(workspace, Dataset.load(folder), chosen)
    return replace(request, folder=run / f"fold_{fold}")


@pytest.fixture
def everything(toy_folder, toy_workspace, tmp_path):
    """The checkpoint of a training on all cases."""
    request = prepared(toy_folder, toy_workspace, "all", tmp_path / "all")
    train_fold(request)
    return request.folder / FINAL


@pytest.fixture
def renamed(toy_folder, toy_preparation, tmp_path):
    """The same images under other names, in a data set of another name."""
    folder = shutil.copytree(toy_folder, tmp_path / "raw" / "Dataset901_Copy")
    for path in [*folder.glob("imagesTr/*"), *folder.glob("labelsTr/*")]:
        path.rename(path.with_name(f"patient_{path.name}"))
    content = json.loads((folder / "dataset.json").read_text())
    content.pop("cases", None)
    (folder / "dataset.json").write_text(json.dumps(content))
    workspace = Workspace(tmp_path / "other")
    toy_preparation(Dataset.load(folder), workspace)
    return folder, workspace


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_checkpoint_holds_the_cases_that_it_was_trained_on(toy_folder, toy_workspace, everything):
    dataset = Dataset.load(toy_folder)
    trained = load_checkpoint(everything).trained_on
    assert {(case.dataset, case.case) for case in trained} == {(dataset.name, name) for name in dataset.case_names}
    assert len({case.images for case in trained}) == len(trained)


def test_a_start_that_saw_the_validation_cases_is_said_and_marked_everywhere(
    toy_folder, toy_workspace, everything, tmp_path, caplog
):
    request = prepared(toy_folder, toy_workspace, "0", tmp_path / "run", pretrained=everything)
    result = train_fold(request)
    found = " ".join(warnings(caplog))
    assert f"found {len(request.val_cases)} of its validation cases" in found
    assert all(case in found for case in request.val_cases) and str(everything) in found
    record = result.progress.records[-1]
    assert record.seen_validation_cases == len(request.val_cases) and "trained on" in dice_name(record)
    cases = read_fold_cases(request.folder)
    assert set(request.val_cases) <= cases.seen_cases and not set(request.val_cases) & cases.train
    assert set(request.train_cases) == cases.train
    summary = validate_fold(request)
    assert summary.seen_in_training == tuple(sorted(request.val_cases))
    stored = json.loads((request.folder / "validation" / "summary.json").read_text())
    assert stored["seen_in_training"] == sorted(request.val_cases)


@pytest.mark.slow
def test_copies_are_recognised_through_several_pretrainings(renamed, everything, tmp_path, caplog):
    folder, workspace = renamed
    first = prepared(folder, workspace, "1", tmp_path / "first", pretrained=everything)
    train_fold(first)
    assert load_checkpoint(first.folder / FINAL).trained_on[0].dataset == "Dataset900_Toy"
    caplog.clear()
    second = prepared(folder, workspace, "0", tmp_path / "second", pretrained=first.folder / FINAL)
    train_fold(second, should_stop=lambda: True)
    assert f"found {len(second.val_cases)} of its validation cases" in " ".join(warnings(caplog))
    with pytest.raises(ModelError, match=r"--pretrained is .*other\.pt, was .*checkpoint_final\.pt"):
        train_fold(replace(second, pretrained=tmp_path / "other.pt"), resume=True)
    train_fold(replace(second, pretrained=None), resume=True)
    content = json.loads((second.folder / "training.json").read_text())
    assert set(second.val_cases) <= set(content["seen_cases"])  # resumed without the flag, it is known all the same
    assert content["pretrained"] == str(first.folder / FINAL)


@pytest.mark.slow
def test_the_same_fold_and_a_fresh_start_are_not_marked(toy_folder, toy_workspace, tmp_path, caplog):
    fresh = prepared(toy_folder, toy_workspace, "0", tmp_path / "fresh")
    train_fold(fresh)
    same = prepared(toy_folder, toy_workspace, "0", tmp_path / "same", pretrained=fresh.folder / FINAL)
    result = train_fold(same)
    with pytest.raises(ModelError, match=r"--pretrained is .*, was none"):  # it would be said, and not be true
        train_fold(replace(fresh, pretrained=same.folder / FINAL), resume=True)
    assert not warnings(caplog) and result.progress.records[-1].seen_validation_cases == 0
    assert read_fold_cases(same.folder).pretraining_cases == frozenset()
    assert validate_fold(same).seen_in_training == ()


def test_a_checkpoint_of_an_earlier_version_is_recognised_by_names(
    toy_folder, toy_workspace, everything, tmp_path, caplog
):
    content = torch.load(everything, weights_only=True)
    del content["trained_on"]
    torch.save(content, tmp_path / "old.pt")
    names = {case.case for case in load_checkpoint(everything).trained_on}
    assert {case.case for case in load_checkpoint(tmp_path / "old.pt").trained_on} == names
    request = prepared(toy_folder, toy_workspace, "0", tmp_path / "run", pretrained=tmp_path / "old.pt")
    train_fold(request, should_stop=lambda: True)
    assert "of its validation cases" in " ".join(warnings(caplog))
    content["state"] = {}
    torch.save(content, tmp_path / "shared.pt")
    assert load_checkpoint(tmp_path / "shared.pt").trained_on is None
    caplog.clear()
    train_fold(replace(request, pretrained=tmp_path / "shared.pt"), should_stop=lambda: True)
    assert "cannot be told" in " ".join(warnings(caplog))


def test_classes_are_matched_by_name_and_what_starts_fresh_is_said(
    toy_folder, toy_workspace, everything, tmp_path, caplog
):
    request = prepared(toy_folder, toy_workspace, "0", tmp_path / "run", pretrained=everything)
    checkpoint = load_checkpoint(everything)
    names = [head.name for head in request.dataset.labels.heads]
    values = {name: value for name, value in checkpoint.dataset["labels"].items() if name not in (names[-1], "ignore")}
    other = {**values, "elsewhere": len(values), "ignore": 9}  # the last class under another name
    save_checkpoint(tmp_path / "other.pt", replace(checkpoint, dataset={**checkpoint.dataset, "labels": other}))
    train_fold(replace(request, pretrained=tmp_path / "other.pt"), should_stop=lambda: True)
    message = next(text for text in warnings(caplog) if "tensors" in text)
    assert re.search(
        rf"classes: found .*elsewhere.*, expected .*starting fresh: {names[-1]}, not used: elsewhere", message
    )


def test_another_network_or_a_run_that_is_to_be_deleted_is_refused_before_anything_is_lost(
    toy_folder, toy_workspace, everything, tmp_path
):
    request = prepared(toy_folder, toy_workspace, "all", everything.parent.parent, pretrained=everything)
    with pytest.raises(ConfigError, match=r"run that --overwrite moves aside.*--name"):
        check_start(request, resume=False, overwrite=True)
    check_start(request, resume=False, overwrite=False)
    topology = request.configuration.topology
    wider = request.configuration.model_copy(update={"topology": topology.model_copy(update={"features": (8, 24)})})
    with pytest.raises(ModelError, match=r"\(8, 16\), here \(8, 24\).*--plan-of .*\.pt"):
        check_start(replace(request, configuration=wider), resume=False, overwrite=False)
    check_start(replace(request, pretrained=tmp_path / "gone.pt"), resume=True, overwrite=False)
    with pytest.raises(ModelError, match="no such file"):
        check_start(replace(request, pretrained=tmp_path / "gone.pt"), resume=False, overwrite=False)


def test_what_weights_saw_survives_a_round_trip(everything, tmp_path):
    checkpoint = load_checkpoint(everything)
    trained = (TrainedCase(dataset="a", case="b", images=("1", "")), TrainedCase(dataset="a", case="c"))
    for cases in (trained, (), None):
        save_checkpoint(tmp_path / LATEST, replace(checkpoint, trained_on=cases))
        assert load_checkpoint(tmp_path / LATEST).trained_on == cases


def test_the_report_of_tensors_is_recorded(toy_folder, toy_workspace, everything, tmp_path):
    request = prepared(toy_folder, toy_workspace, "0", tmp_path / "run", pretrained=everything)
    train_fold(request, should_stop=lambda: True)
    report = json.loads((request.folder / "training.json").read_text())["pretrained_report"]
    assert report["matched"] > 10 and report["adapted"] == report["skipped"] == []
    assert report["heads"] == {head.name: head.name for head in request.dataset.labels.heads}
    train_fold(replace(request, pretrained=None), resume=True)
    assert json.loads((request.folder / "training.json").read_text())["pretrained_report"] == report
    assert load_checkpoint(request.folder / LATEST).state["pretrained_report"] == report


def test_of_a_model_folder_the_same_fold_is_taken(tmp_path, everything):
    for fold in ("0", "1"):
        folder = tmp_path / "model" / f"fold_{fold}"
        folder.mkdir(parents=True)
        shutil.copy(everything, folder / FINAL)
    model = tmp_path / "model"
    assert pretrained_checkpoint(model, "1") == model / "fold_1" / FINAL
    assert pretrained_checkpoint(model, "1_seed2") == model / "fold_1" / FINAL  # no such seed: the first
    assert pretrained_checkpoint(model / "fold_0", "1") == model / "fold_0" / FINAL
    assert pretrained_checkpoint(everything.parent.parent, "3") == everything  # the only one there
    assert pretrained_checkpoint(everything, "3") == everything and pretrained_checkpoint(None, "3") is None
    with pytest.raises(ConfigError, match=r"0, 1, expected fold 3.*--pretrained .*fold_0"):
        pretrained_checkpoint(model, "3")


def test_a_run_records_levels_environment_and_data(toy_folder, toy_workspace, tmp_path):
    run_file = tmp_path / "run.toml"
    run_file.write_text("seed = 7\n[optimizer]\nname = 'sgd'\n")
    request = prepared(toy_folder, toy_workspace, "0", tmp_path / "run", run_file=run_file)
    train_fold(request, should_stop=lambda: True)
    content = json.loads((request.folder / "training.json").read_text())
    assert content["origins"]["seed"] == content["origins"]["optimizer.name"] == str(run_file)
    assert content["origins"]["precision"] == "--set" and "sampling.max_attempts" not in content["origins"]
    (environment,) = content["environments"]
    assert environment["iteration"] == 0 and environment["versions"]["torch"] == torch.__version__
    assert environment["device"] and environment["cores"] >= 1
    assert content["data_hash"] == request.data_hash != ""
    train_fold(replace(request, origins=dict.fromkeys(request.origins, CHECKPOINT_LEVEL)), resume=True)
    later = json.loads((request.folder / "training.json").read_text())
    assert later["origins"] == content["origins"] and later["environments"] == content["environments"]
    assert load_checkpoint(request.folder / FINAL).state["data_hash"] == request.data_hash
