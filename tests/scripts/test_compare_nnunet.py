from __future__ import annotations

import json

import pytest
from compare_nnunet import Comparison, score
from toy import write_toy_dataset

from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_labels, write_labels
from autoseg.training.run_config import RunOptions


@pytest.fixture
def comparison(tmp_path):
    """Two sparse toy cases of which dataset.json says things that do not hold of the dense references."""
    folder = write_toy_dataset(tmp_path / "toy", n_cases=2, shape=(6, 10, 9))
    content = json.loads((folder / "dataset.json").read_text())
    content["cases"] = {"toy_000": {"annotated": ["bright"]}}
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(folder)
    return Comparison(dataset, tmp_path, folder / "labelsTr_dense", RunOptions("0"), 1, dataset.case_names)


def test_a_run_keeps_the_dice_of_every_case(comparison, tmp_path):
    for name in comparison.cases:
        labels, geometry = read_labels(comparison.references / f"{name}.nii.gz")
        write_labels(tmp_path / "predictions" / f"{name}.nii.gz", labels if name == "toy_000" else labels * 0, geometry)
    fields = score(comparison, tmp_path / "predictions")
    assert fields["dense"] == {"foreground": 0.5, "bright": 0.5, "brighter": 0.5}
    assert fields["dense_per_case"] == {
        "toy_000": {"bright": 1.0, "brighter": 1.0},
        "toy_001": {"bright": 0.0, "brighter": 0.0},
    }
    assert fields["annotated"]["bright"] == 0.5
