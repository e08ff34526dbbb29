"""Classes that no validation case has are named."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import torch

from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.training.fold import train_fold
from autoseg.training.prepare import prepare_fold
from autoseg.training.run_config import RunOptions
from autoseg.training.validation import validate_fold


def test_a_fold_without_a_class_says_so(toy_folder, toy_workspace, tmp_path, caplog):
    torch.set_num_threads(1)
    settings = ("precision=float32", "validation_iterations=1")
    options = RunOptions("0", iterations=1, settings=settings, workers=0, device="cpu")
    request = prepare_fold(toy_workspace, Dataset.load(toy_folder), options)
    cases = []
    for case in request.dataset.cases:
        labels, geometry = read_labels(case.label)
        write_labels(tmp_path / case.label.name, np.where(labels == 2, 0, labels).astype(np.uint8), geometry)
        cases.append(replace(case, label=tmp_path / case.label.name) if case.name in request.val_cases else case)
    dataset = replace(request.dataset, cases=tuple(cases))
    request = replace(request, dataset=dataset, folder=tmp_path / "run" / "fold_0")
    train_fold(request)
    logger = logging.getLogger("autoseg.training.validation")
    logger.addHandler(caplog.handler)
    try:
        summary = validate_fold(request)
    finally:
        logger.removeHandler(caplog.handler)

    written = json.loads((request.folder / "validation" / "summary.json").read_text())
    assert written["mean"]["2"]["Dice"] is None
    assert written["not_scored"].keys() == {"2"}
    assert summary.not_scored["2"].startswith("brighter: no voxel of it in the references")
    assert f"fold 0: not scored: {summary.not_scored['2']}" in caplog.text
    assert written["foreground_mean"]["Dice"] == written["mean"]["1"]["Dice"]
    history = json.loads((request.folder / "history.jsonl").read_text().splitlines()[0])
    assert history["scored_on"] == "annotated voxels"
