from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from make_inverted import main
from toy import write_toy_dataset

from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_inverted.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_foreground_and_background_are_exchanged(tmp_path, monkeypatch):
    source, made = tmp_path / "source", tmp_path / "made"
    labels = np.zeros((2, 6, 5), dtype=np.uint8)
    labels[0, 1:3] = 1
    for part in ("imagesTr/a_0000", "labelsTr/a"):
        path = source / f"{part}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, labels, Geometry(spacing=(2, 1, 1)))
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "membrane": 1}, "numTraining": 1,
               "file_ending": ".nii.gz"}  # fmt: skip
    (source / "dataset.json").write_text(json.dumps(content))
    assert run(monkeypatch, source, "-o", made, "--name", "cell") == 0
    dataset = Dataset.load(made)
    assert dataset.labels.class_names == ("background", "cell")
    np.testing.assert_array_equal(read_labels(dataset.cases[0].label)[0], 1 - labels)
    assert run(monkeypatch, source, "-o", made, "--name", "cell") == 2  # it is there already


def test_more_classes_are_refused(tmp_path, monkeypatch, capsys):
    write_toy_dataset(tmp_path / "toy")
    assert run(monkeypatch, tmp_path / "toy", "-o", tmp_path / "made", "--name", "cell") == 2
    assert "expected background and one more" in " ".join(capsys.readouterr().err.split())
