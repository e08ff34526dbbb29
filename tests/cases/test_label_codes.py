"""Files and statements of every style come together in one target, and nothing outside a mask matters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoseg.cases.label_codes import apply_mask, read_annotation, read_valid_mask
from autoseg.core.errors import DatasetError, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import Labels
from autoseg.inspection.integrity import check_dataset
from autoseg.io.images import write_labels
from autoseg.preprocessing.read_case import read_case

SHAPES = {"2d": (1, 6, 8), "3d": (4, 6, 8)}
LABELS = {"background": 0, "liver": 1, "tumour": 2, "vessel": 3, "ignore": 9}


def lay_out(folder: Path, label_maps: dict[str, np.ndarray], masks: dict[str, np.ndarray], **keys: Any) -> Path:
    """Write a data set of noise with these labels and, where there are any, masks."""
    shape = next(iter(label_maps.values())).shape
    is_2d = shape[0] == 1
    ending, geometry = (
        (".png", Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
        if is_2d
        else (".nii.gz", Geometry(spacing=(2.0, 1.0, 1.0)))
    )
    for name in ("imagesTr", "labelsTr", "masksTr"):
        (folder / name).mkdir(parents=True)
    for case, values in label_maps.items():
        image = np.random.default_rng(0).integers(0, 200, shape).astype(np.uint8)
        write_labels(folder / f"imagesTr/{case}_0000{ending}", image, geometry)
        write_labels(folder / f"labelsTr/{case}{ending}", values.astype(np.uint8), geometry)
    for case, mask in masks.items():
        write_labels(folder / f"masksTr/{case}{ending}", mask.astype(np.uint8), geometry)
    content = {"channel_names": {"0": "x"}, "labels": LABELS, "file_ending": ending, "numTraining": len(label_maps)}
    content |= {"valid_mask_folder": "masksTr"} if masks else {}
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    return folder


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_data_set_may_mix_every_style(tmp_path, shape: tuple[int, int, int]):
    """Scribbles, a lazy case, a coarse value, a mask and an absent class, each read for what it says."""
    base = np.full(shape, 9)
    base[..., 0, :4] = [0, 1, 2, 3]
    lazy, coarse, masked, healthy = base.copy(), base.copy(), base.copy(), base.copy()
    lazy[..., 0, 2:4] = 0
    coarse[..., 1, :] = 7
    masked[..., 5, :] = 200  # never declared, and outside the mask
    healthy[..., 0, 2] = 9
    maps = {"scribbles": base, "lazy": lazy, "coarse": coarse, "masked": masked, "healthy": healthy}
    masks = {case: np.ones(shape) for case in maps}
    masks["masked"][..., 5, :] = 0
    masks["masked"][..., 0, 1] = 0
    masks["healthy"][..., 0, 3] = 0
    folder = lay_out(
        tmp_path / "toy", maps, masks, label_sets={"7": ["liver", "tumour"]},
        cases={"lazy": {"annotated": ["liver"]}, "healthy": {"absent": ["tumour"], "priority": 2, "group": "p"}},
    )  # fmt: skip
    dataset = Dataset.load(folder)
    assert check_dataset(dataset).faults == ()

    def sets(case: str, y: int = 0) -> list[tuple[int, ...]]:
        target = read_case(dataset.case(case), dataset.labels).target
        assert target is not None and target.codes.shape == shape
        row = target.codes[0, y, :5]
        return [tuple(np.flatnonzero(target.label_sets[code]).tolist()) for code in row]

    everything = (0, 1, 2, 3)
    assert sets("scribbles") == [(0,), (1,), (2,), (3,), everything]
    assert sets("lazy") == [(0, 2, 3), (1,), (0, 2, 3), (0, 2, 3), everything]
    assert sets("coarse", y=1) == [(1, 2)] * 5
    assert sets("masked") == [(0,), everything, (2,), (3,), everything]
    assert sets("masked", y=5) == [everything] * 5
    assert sets("healthy") == [(0,), (1,), (0, 1, 3), (0, 1, 3), (0, 1, 3)]


@pytest.fixture
def masked(tmp_path) -> tuple[CaseFiles, Labels]:
    shape = SHAPES["3d"]
    dataset = Dataset.load(lay_out(tmp_path / "toy", {"a": np.zeros(shape)}, {"a": np.ones(shape)}))
    return dataset.cases[0], dataset.labels


def rewrite(path: Path | None, values: np.ndarray) -> None:
    assert path is not None
    write_labels(path, values, Geometry(spacing=(2.0, 1.0, 1.0)))


def test_a_mask_must_have_the_shape_of_the_image(masked):
    files, labels = masked
    rewrite(files.valid_mask, np.ones((4, 6, 7), np.uint8))
    message = r"valid mask of case 'a': .*a\.nii\.gz: found shape \(4, 6, 7\) \(z, y, x\), expected \(4, 6, 8\)"
    with pytest.raises(DatasetError, match=message):
        read_annotation(files, labels, (4, 6, 8))


def test_a_mask_without_a_voxel_is_an_error_unless_a_class_is_absent(masked):
    files, labels = masked
    rewrite(files.valid_mask, np.zeros((4, 6, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"'a': .*0 everywhere.*remove the case"):
        read_annotation(files, labels, (4, 6, 8))
    content = {"channel_names": {"0": "x"}, "labels": LABELS, "file_ending": ".png", "valid_mask_folder": "m"}
    said = Dataset.from_json(content | {"cases": {"a": {"absent": ["liver"]}}}, name="toy", folder=None).labels
    target = read_annotation(files, said, (4, 6, 8))
    assert target.label_sets[target.codes[0, 0, 0]].tolist() == [True, False, True, True]


def test_an_unreadable_mask_is_named_as_one(masked):
    files, labels = masked
    files.valid_mask.write_bytes(b"no image")
    with pytest.raises(FileFormatError, match=r"valid mask of case 'a': .*a\.nii\.gz: found"):
        read_valid_mask(files, labels, (4, 6, 8))


def test_a_case_without_label_file_or_of_another_shape_is_an_error(masked):
    files, labels = masked
    with pytest.raises(DatasetError, match="case 'a': found no label file"):
        read_annotation(replace(files, label=None), labels, (4, 6, 8))
    with pytest.raises(DatasetError, match=r"a\.nii\.gz: found labels .*\(4, 6, 8\)"):
        read_annotation(files, labels, (4, 6, 9))


def test_a_mask_is_written_into_the_file_values_for_those_who_count_them():
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
    labels = Dataset.from_json(content, name="toy", folder=None).labels
    values, valid = np.array([[[0, 1, 300]]], dtype=np.uint16), np.array([[[True, False, False]]])
    assert apply_mask(values, None, labels) == (values, labels)
    written, with_ignore = apply_mask(values, valid, labels)
    assert with_ignore.ignore == 301 and labels.ignore is None
    assert written.tolist() == [[[0, 301, 301]]] and values.tolist() == [[[0, 1, 300]]]
    ignoring = replace(labels, ignore=5)
    assert apply_mask(values, valid, ignoring)[0].tolist() == [[[0, 5, 5]]]


@pytest.mark.parametrize("fill", [0, 254, 255])
def test_what_a_mask_hides_cannot_matter(masked, fill):
    """The value that stands for ignore need not fit into the type of the file."""
    _, labels = masked
    values = np.array([[[0, 1, fill, fill]]], dtype=np.uint8)
    valid = np.array([[[True, True, False, False]]])
    for own in (replace(labels, ignore=None), replace(labels, ignore=300)):
        hidden, said = apply_mask(values, valid, own)
        assert hidden[0, 0, :2].tolist() == [0, 1]
        assert hidden[0, 0, 2:].tolist() == [said.ignore] * 2
        assert said.ignore not in said.class_values
