"""Every dataset.json that users are told to copy is accepted as it is, and means what its README says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoseg import Dataset
from autoseg.dataset.protocol import AnnotationProtocol

TEMPLATES = Path(__file__).parent.parent / "dataset_templates"


def load(style: str) -> Dataset:
    content = json.loads((TEMPLATES / style / "dataset.json").read_text(encoding="utf-8"))
    return Dataset.from_json(content, name=style, folder=None)


def test_every_template_is_parsed_and_explained() -> None:
    styles = {path.parent.name for path in TEMPLATES.glob("*/dataset.json")}
    assert styles == {
        "dense", "ignore_scribbles", "regions_with_ignore", "rgb_2d", "multimodal_mr", "lazy_labels", "coarse_labels",
        "valid_masks", "merged", "scribbles_with_protocol", "unlabelled", "regression",
        "experts", "weighted_labels", "instances", "boxes",
    }  # fmt: skip
    readme = (TEMPLATES / "README.md").read_text(encoding="utf-8")
    for style in styles:
        assert load(style).labels.n_classes >= 3 or load(style).labels.targets or load(style).labels.instances
        assert f"`{style}`" in readme


@pytest.mark.parametrize(
    ("style", "ignore", "is_dense"),
    [
        ("dense", None, True),
        ("multimodal_mr", None, True),
        ("ignore_scribbles", 4, False),
        ("regions_with_ignore", 4, False),
        ("rgb_2d", 255, False),
        ("lazy_labels", 4, False),
        ("coarse_labels", 6, False),
        ("valid_masks", None, False),
        ("merged", None, False),
        ("scribbles_with_protocol", 4, False),
        ("experts", 3, False),
        ("weighted_labels", 5, False),
        ("boxes", None, False),
    ],
)
def test_ignore_makes_a_template_sparse(style: str, ignore: int | None, is_dense: bool) -> None:
    labels = load(style).labels
    assert (labels.ignore, labels.is_dense) == (ignore, is_dense)


def test_unlabelled_voxels_and_background_have_values_of_their_own():
    labels = load("unlabelled").labels
    assert (labels.unlabelled, labels.class_values, labels.is_dense) == (0, (1, 2, 3), False)


def test_numbers_of_a_regression_have_names_and_may_be_unknown() -> None:
    labels = load("regression").labels
    assert (labels.targets, labels.no_number) == (("distance to membrane",), -1)


def test_values_of_instances_are_numbers_of_objects() -> None:
    labels = load("instances").labels
    assert labels.instances is not None and labels.instances.per_class is None and labels.unlabelled == 65535


def test_regions_nest() -> None:
    labels = load("regions_with_ignore").labels
    assert [head.key for head in labels.heads] == ["(1, 2, 3)", "(2, 3)", "3"]
    assert labels.paint_values == (1, 2, 3)


def test_channels_are_as_explained() -> None:
    assert load("rgb_2d").channels == ("R", "G", "B")
    assert load("rgb_2d").file_ending == ".png"
    assert load("multimodal_mr").channels == ("T2", "ADC")


def test_lazy_labels_leave_open_what_nobody_drew():
    labels = load("lazy_labels").labels
    assert labels.sets_by_value("case_1")[0] == {0}
    assert labels.sets_by_value("case_2")[0] == {0, 2, 3}
    assert labels.sets_by_value("case_3")[0] == {0}  # kidney and liver are drawn, spleen is absent
    assert labels.sets_by_value("case_4")[4] == {0, 1, 2}


def test_coarse_labels_are_choices():
    assert load("coarse_labels").labels.set_values == {4: frozenset({1, 2}), 5: frozenset({1, 2, 3})}


def test_merged_cases_know_their_own_classes():
    labels = load("merged").labels
    assert labels.sets_by_value("liver_1")[0] == {0, 3} and labels.sets_by_value("kidney_2")[0] == {0, 1, 2}


def test_the_protocol_promises_what_it_says():
    assert load("scribbles_with_protocol").protocol == AnnotationProtocol(
        "slice", {1: 40, 2: 30, 3: 40}, instances_touched=True, slice_axis=0
    )
    assert load("ignore_scribbles").protocol.is_empty


def test_boxes_of_one_volume_stay_together(tmp_path: Path) -> None:
    content = (TEMPLATES / "boxes" / "dataset.json").read_text(encoding="utf-8")
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    for name in ("volume.zarr", "second.zarr", "second_labels.zarr"):
        (tmp_path / name).mkdir()
    (tmp_path / "cubes.h5").touch()
    dataset = Dataset.load(tmp_path)
    assert {case.name: case.group for case in dataset.cases} == {
        "cubeA": "volume.zarr", "cubeB": "volume.zarr", "other": None
    }  # fmt: skip
    assert dataset.warnings == ()


FILES = [path.parent.name for path in TEMPLATES.glob("*/dataset.json") if path.parent.name != "boxes"]


@pytest.mark.parametrize("style", FILES)
def test_a_copied_template_is_a_data_set(style: str, tmp_path: Path) -> None:
    content = json.loads((TEMPLATES / style / "dataset.json").read_text(encoding="utf-8"))
    cases = sorted(content.get("cases", {"case_1": {}}))
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"numTraining": len(cases)}), encoding="utf-8")
    ending = content["file_ending"]
    channels = [f"_{number:04d}" for number in range(1 if style == "rgb_2d" else len(content["channel_names"]))]
    masks = [path for case in content.get("cases", {}).values() for path in case.get("experts", {}).values()]
    for path in masks:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    for folder, suffixes in (("imagesTr", channels), ("labelsTr", [] if masks else [""]), ("masksTr", [""])):
        (tmp_path / folder).mkdir()
        for name in (f"{case}{suffix}{ending}" for case in cases for suffix in suffixes):
            (tmp_path / folder / name).touch()
    dataset = Dataset.load(tmp_path)
    assert dataset.case_names == tuple(cases) and dataset.warnings == ()
    assert all((case.valid_mask is not None) == (style == "valid_masks") for case in dataset.cases)
