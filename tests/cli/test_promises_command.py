"""Promises through the real entry point: what they settle, what contradicts them, and a cache that training accepts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command
from toy import IGNORE, write_toy_dataset

from autoseg.cases.cache import CaseCache, open_case
from autoseg.core.errors import CacheError
from autoseg.core.geometry import Geometry
from autoseg.core.workspace import Workspace
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.statements import PROMISES_FILE
from autoseg.io.images import read_labels, write_labels
from autoseg.planning.files import PLAN_FILE, load_plan
from autoseg.planning.splits import Split
from autoseg.training.prepare import check_cache


def run(*arguments: str | Path, root: Path) -> subprocess.CompletedProcess[str]:
    return run_command("plan_and_preprocess", *arguments, "-j", "1", root=root)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = write_toy_dataset(tmp_path / "Dataset007_Toy", n_cases=3)
    content = json.loads((folder / "dataset.json").read_text())
    content["annotation_protocol"] = {"reach_mm": {"bright": 8, "brighter": "auto"}, "background_encloses": True}
    content["labels"]["ignore"] = 9
    content["label_sets"] = {"4": ["bright", "brighter"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    for path in (folder / "labelsTr").iterdir():
        labels, geometry = read_labels(path)
        write_labels(path, np.where(labels == IGNORE, 9, labels).astype(np.uint8), geometry)
    return folder


@pytest.mark.slow
def test_promises_are_reported_estimated_and_reach_the_cache(raw: Path, tmp_path: Path):
    checked = run(raw, "--check-only", root=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert "effect of the promises" in checked.stdout and "no contradictions" in checked.stdout
    assert "reach_mm of 'brighter' cannot be estimated" in checked.stdout
    as_json = json.loads(run(raw, "--check-only", "--json", root=tmp_path).stdout)["promises"]
    assert set(as_json["settled"]) == {"reach_mm", "background_encloses", "the promises together"}
    assert (as_json["reach_mm"], as_json["reach_estimates"]) == ({"bright": 8.0}, {})

    made = run(raw, "-c", "2d", "--planner", "small", root=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "reach: bright 8 mm" in made.stderr and "reach_mm of 'brighter' cannot be estimated" in made.stderr
    again = run(raw, "-c", "2d", "--planner", "small", root=tmp_path)
    assert "0 cases preprocessed, 3 were up to date" in again.stderr

    dataset = Dataset.load(raw)
    folder = Workspace(tmp_path).preprocessed(dataset.name)
    entry = open_case(folder / "2d", "toy_000").entry
    assert entry.inferred_sets is not None and (entry.table.learnt <= entry.table.drawn).all()
    split = Split(train=("toy_000", "toy_001"), val=("toy_002",))
    cache = CaseCache.read(folder / "2d", dataset.case_names)
    check_cache(dataset, load_plan(folder / PLAN_FILE), "2d", cache, split)
    (folder / PROMISES_FILE).unlink()
    with pytest.raises(CacheError, match=r"annotation_protocol.* changed"):
        check_cache(dataset, load_plan(folder / PLAN_FILE), "2d", cache, split)


@pytest.mark.slow
def test_drawn_sets_are_kept_and_told(raw: Path, tmp_path: Path):
    content = json.loads((raw / "dataset.json").read_text())
    content["annotation_protocol"] = {"reach_mm": 3}
    (raw / "dataset.json").write_text(json.dumps(content))
    path = raw / "labelsTr" / "toy_001.nii.gz"
    labels, geometry = read_labels(path)
    labels = labels.copy()
    labels[1, 0, 17] = 4
    write_labels(path, labels, geometry)
    checked = run(raw, "--check-only", root=tmp_path)
    assert checked.returncode == 0 and "1 annotated voxels keep classes that a promise would exclude" in checked.stdout
    assert "case 'toy_001': 1 voxels are annotated as " in checked.stdout
    as_json = json.loads(run(raw, "--check-only", "--json", root=tmp_path).stdout)["promises"]
    assert as_json["kept_open"] == {"reach_mm": {"toy_001": 1}}


@pytest.mark.slow
def test_slices_across_an_unknown_axis_are_refused_with_what_to_write(raw: Path, tmp_path: Path):
    content = json.loads((raw / "dataset.json").read_text())
    content["annotation_protocol"] = {"classes_complete_in": "slice"}
    (raw / "dataset.json").write_text(json.dumps(content))
    for folder in ("labelsTr", "imagesTr"):
        for path in (raw / folder).iterdir():
            labels, _ = read_labels(path)
            if folder == "labelsTr":  # dots anywhere
                labels, _ = read_labels(raw / "labelsTr_dense" / path.name)
                labels = np.where(np.random.default_rng(0).random(labels.shape) < 0.1, labels, 9).astype(np.uint8)
            write_labels(path, labels, Geometry(spacing=(1.0, 1.0, 1.0), ndim=3))
    for arguments in (["--check-only"], ["-c", "2d", "--planner", "small"]):
        result = run(raw, *arguments, root=tmp_path)
        assert result.returncode == 2 and "Traceback" not in result.stderr
        assert 'Write "slice_axis": "z", "y" or "x" into annotation_protocol' in result.stderr
    assert not list((tmp_path / "preprocessed").rglob("*.npy"))
    content["annotation_protocol"]["slice_axis"] = "x"
    (raw / "dataset.json").write_text(json.dumps(content))
    assert "slices are counted along x in 3 cases" in run(raw, "--check-only", root=tmp_path).stdout
