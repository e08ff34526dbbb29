"""autoseg_merge_datasets as a user starts it: what it prints, what it writes, and how it refuses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from command_line import run_command
from toy import write_toy_dataset

from autoseg.dataset.dataset import Dataset

merge = partial(run_command, "merge_datasets")


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    """A sparse set of "bright" and "brighter" and a dense one of "bright" and "dim"; cases of the same names."""
    sparse = write_toy_dataset(tmp_path / "raw" / "Dataset001_Sparse", n_cases=2)
    dense = write_toy_dataset(tmp_path / "raw" / "Dataset002_Dense", n_cases=3, sparse=False, seed=1)
    content = json.loads((dense / "dataset.json").read_text())
    content["labels"] = {"background": 0, "bright": 1, "dim": 2}
    (dense / "dataset.json").write_text(json.dumps(content))
    return [sparse, dense]


def test_two_data_sets_become_one(tmp_path, folders):
    done = merge("1", folders[1], "-o", tmp_path / "C", "--name", "both", "-j", "1", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "5 cases, labels: background 0, bright 1, brighter 2, dim 3, ignore 4",
        "  Dataset001_Sparse: 2 cases, not annotated: dim, 2 renamed: Dataset001_Sparse_toy_000, ...",
        "  Dataset002_Dense: 3 cases, not annotated: brighter, 2 renamed: Dataset002_Dense_toy_000, ...",
    ]
    assert f"written: {tmp_path / 'C'}" in done.stderr
    dataset = Dataset.load(tmp_path / "C")
    assert dataset.json["name"] == "both" and len(dataset.cases) == 5
    assert dataset.labels.sets_by_value("toy_002")[0] == {0, 2}


def test_the_result_is_json_on_demand(tmp_path, folders):
    done = merge(*folders, "-o", tmp_path / "C", "--json", "-q", "--copy", "-j", "1")
    result = json.loads(done.stdout)
    assert result["cases"] == 5 and result["labels"]["dim"] == 3 and done.stderr == ""
    assert result["sources"][1]["values"] == {"0": 0, "1": 1, "2": 3}
    assert result["sources"][1]["not_annotated"] == ["brighter"]


@pytest.mark.slow
def test_conflicts_are_the_users_to_solve(tmp_path, folders):
    content = json.loads((folders[1] / "dataset.json").read_text())
    (folders[1] / "dataset.json").write_text(json.dumps(content | {"channel_names": {"0": "CT"}}))
    done = merge(*folders, "-o", tmp_path / "C")
    assert done.returncode == 2 and "Traceback" not in done.stderr and not (tmp_path / "C").exists()
    assert "Dataset002_Dense: channel_names: found 1 (CT), expected 1 (MR), as in Dataset001_Sparse" in done.stderr
    assert merge(folders[0], "-o", tmp_path / "C").returncode == 2
    assert merge("nowhere", folders[0], "-o", tmp_path / "C", root=tmp_path).returncode == 2
