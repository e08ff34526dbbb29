"""Every dataset.json that users are told to copy is accepted as it is, and means what its README says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg import Dataset

TEMPLATES = Path(__file__).parent.parent / "dataset_templates"


def load(style: str) -> Dataset:
    content = json.loads((TEMPLATES / style / "dataset.json").read_text(encoding="utf-8"))
    return Dataset.from_json(content, name=style, folder=None)


def test_every_template_is_parsed_and_explained() -> None:
    styles = {path.parent.name for path in TEMPLATES.glob("*/dataset.json")}
    assert styles == {"dense", "ignore_scribbles", "regions_with_ignore", "rgb_2d", "multimodal_mr"}
    readme = (TEMPLATES / "README.md").read_text(encoding="utf-8")
    for style in styles:
        assert load(style).labels.n_classes >= 3
        assert f"`{style}`" in readme


@pytest.mark.parametrize(
    ("style", "ignore", "is_dense"),
    [
        ("dense", None, True),
        ("multimodal_mr", None, True),
        ("ignore_scribbles", 4, False),
        ("regions_with_ignore", 4, False),
        ("rgb_2d", 255, False),
    ],
)
def test_ignore_makes_a_template_sparse(style: str, ignore: int | None, is_dense: bool) -> None:
    labels = load(style).labels
    assert (labels.ignore, labels.is_dense) == (ignore, is_dense)


def test_regions_nest() -> None:
    labels = load("regions_with_ignore").labels
    assert [head.key for head in labels.heads] == ["(1, 2, 3)", "(2, 3)", "3"]
    assert labels.paint_values == (1, 2, 3)


def test_channels_are_as_explained() -> None:
    assert load("rgb_2d").channels == ("R", "G", "B")
    assert load("rgb_2d").file_ending == ".png"
    assert load("multimodal_mr").channels == ("T2", "ADC")


def test_a_copied_template_is_a_data_set(tmp_path: Path) -> None:
    content = json.loads((TEMPLATES / "ignore_scribbles" / "dataset.json").read_text(encoding="utf-8"))
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"numTraining": 1}), encoding="utf-8")
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert Dataset.load(tmp_path).case_names == ("a",)
