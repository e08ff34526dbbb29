from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from make_absent import box_without, main, moved
from toy import write_toy_dataset

from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_image, read_labels, write_labels


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["make_absent.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


@pytest.fixture
def source(tmp_path):
    """Four cases: class 2 in planes 2 and 3 of 9 along the last, longest axis."""
    folder = tmp_path / "dense"
    labels = np.zeros((4, 5, 9), dtype=np.uint8)
    labels[1:3, 1:3, 2:4] = 2
    labels[1:3, 1:3, 6] = 1
    for number in range(4):
        image = np.full(labels.shape, 10 + number, dtype=np.uint8)
        image[0, 0] = np.arange(9)
        for part, values in ((f"imagesTr/c{number}_0000", image), (f"labelsTr/c{number}", labels)):
            path = folder / f"{part}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_labels(path, values, Geometry(spacing=(3.0, 2.0, 0.5), origin=(1.0, 2.0, 3.0)))
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "front": 1, "back": 2}, "numTraining": 4,
               "file_ending": ".nii.gz"}  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_lazy_cases_are_cut_to_where_the_class_is_not_and_say_only_that(source, tmp_path, monkeypatch):
    made = tmp_path / "made"
    assert run(monkeypatch, source, "-o", made, "--class", "back", "--dense", 1, "--lazy", 2) == 0
    dataset = Dataset.load(made)
    lazy = [case for case in dataset.cases if case.name in dataset.json["cases"]]
    assert (len(dataset.cases), len(lazy)) == (3, 2)
    assert all(dataset.json["cases"][case.name] == {"absent": ["back"]} for case in lazy)
    for case in lazy:
        image, geometry = read_image(case.images)
        assert image.shape == (1, 4, 5, 5)
        np.testing.assert_array_equal(image[0, 0, 0], np.arange(4, 9))
        assert geometry.origin == (1.0 + 4 * 0.5, 2.0, 3.0)
        assert (read_labels(case.label)[0] == 3).all()
    (test_case,) = (path.name for path in (made / "labelsTs").iterdir())
    assert read_labels(made / "labelsTs" / test_case)[0].shape == (4, 5, 9)
    cut, _ = read_labels(made / "labelsTs_cut" / test_case)
    assert cut.shape == (4, 5, 5)
    assert set(np.unique(cut)) == {0, 1}


def test_a_class_that_is_nowhere_leaves_all_of_the_case():
    assert box_without(np.zeros((3, 4, 5), dtype=np.uint8), 1) == (slice(None),) * 3


def test_a_part_keeps_its_place_in_the_world():
    turned = Geometry(spacing=(3, 2, 1), origin=(5, 6, 7), direction=(0, -1, 0, 1, 0, 0, 0, 0, 1))
    assert moved(turned, (1, 2, 4)).origin == (5 - 2 * 2, 6 + 4, 7 + 3)


@pytest.mark.parametrize(
    "arguments", [("--class", "liver"), ("--class", "background"), ("--class", "organ1", "--dense", 99)]
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys, arguments):
    write_toy_dataset(tmp_path / "toy")
    assert run(monkeypatch, tmp_path / "toy", "-o", tmp_path / "made", *arguments) == 2
    assert "expected dense labels" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "made").exists()
