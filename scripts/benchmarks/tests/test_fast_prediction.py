from __future__ import annotations

import json
import sys

import fast_prediction
import numpy as np
import pytest
import torch
from fast_prediction import DEFAULT, FAST
from tiny_models import make_checkpoint

from autoseg.cli import common
from autoseg.core.geometry import Geometry
from autoseg.io.images import write_labels
from autoseg.nn.checkpoint import save_checkpoint


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function that runs the command in this process and gives what it printed."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["fast_prediction.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            fast_prediction.main()
        assert left.value.code == 0
        return capsys.readouterr().out

    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)
    common.log.handlers.clear()
    common.log.propagate = True


@pytest.fixture
def files(tmp_path):
    """Return the options of a tiny model with three cases, of which its fold held out two."""
    fold = tmp_path / "model" / "fold_0"
    save_checkpoint(fold / "checkpoint_final.pt", make_checkpoint())
    (fold / "training.json").write_text(json.dumps({"val_cases": ["b", "c", "elsewhere"]}))
    for name in "abc":
        labels = np.random.default_rng(0).integers(0, 2, size=(9, 12, 10), dtype=np.uint8)
        geometry = Geometry(spacing=(2.0, 1.0, 1.0))
        write_labels(tmp_path / "images" / f"{name}_0000.nii.gz", 50 * labels, geometry)
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", labels, geometry)
    return ["-m", tmp_path / "model", "-i", tmp_path / "images", "-r", tmp_path / "labels", "--device", "cpu"]


def test_each_reduction_is_a_row_beside_the_default(run, files):
    result = json.loads(run(*files, "--batch", 1, 2, "--json", "-q"))
    assert result["cases"] == ["b", "c"]
    first, *others = result["rows"]
    assert (first["variant"], first["ratio"], first["difference"]) == (DEFAULT, 1.0, 0.0)
    assert [row["variant"] for row in others] == [
        "no mirrored copies", "and wide steps", FAST, f"{FAST}, batch of 1", f"{FAST}, batch of 2",
    ]  # fmt: skip
    for row in others:
        assert row["ratio"] == pytest.approx(first["seconds"] / row["seconds"])
        assert row["difference"] == pytest.approx(row["dice"] - first["dice"])
    assert others[2]["dice"] == others[3]["dice"] == others[4]["dice"]


def test_the_table_has_a_line_for_each_variant(run, files):
    lines = run(*files, "--cases", 1, "-q").splitlines()
    assert lines[0] == "| 3d_fullres, 1 case | s per case | ratio | Dice | difference |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "default", "no mirrored copies", "and wide steps", "--fast",
    ]  # fmt: skip
