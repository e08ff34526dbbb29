"""Boxes of volumes are cases, whose neighbours stay in one fold; every fault of their entries is named at once."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.volume_part import VolumePart

BOX = [[0, 4], [2, 8], [0, 10]]
FAR = [[4, 8], [2, 8], [0, 10]]


def written(folder: Path, boxes: dict[str, Any] | None, **keys: Any) -> Path:
    """Write empty files and a dataset.json: only names matter here."""
    folder.mkdir(exist_ok=True)
    for name in ("v.npy", "w.npy", "cubes.h5"):
        (folder / name).touch()
    content: dict[str, Any] = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}}
    (folder / "dataset.json").write_text(
        json.dumps(content | ({} if boxes is None else {"boxes": boxes}) | {k: v for k, v in keys.items() if v})
    )
    return folder


def entry(image: Any = "v.npy", box: Any = None, label: str = "cubes.h5:a", **keys: Any) -> dict[str, Any]:
    return {"image": image, "label": label, **({} if box is None else {"box": box}), **keys}


def faults_of(path: Path) -> list[str]:
    with pytest.raises(DatasetError) as raised:
        Dataset.load(path)
    return [str(fault) for fault in raised.value.faults]


def groups_of(path: Path) -> dict[str, str | None]:
    return {case.name: case.group for case in Dataset.load(path).cases}


def test_a_box_is_a_case_whose_files_are_locations(tmp_path):
    boxes = {"b": entry(["v.npy", "w.npy"], BOX, valid_mask="cubes.h5:mask"), "a": entry("w.npy")}
    dataset = Dataset.load(written(tmp_path, boxes, cases={"b": {"priority": 2, "group": "g", "absent": ["cell"]}}))
    whole, box = dataset.cases
    part = VolumePart(
        (f"{tmp_path}/v.npy", f"{tmp_path}/w.npy"), Box((0, 2, 0), (4, 8, 10)), f"{tmp_path}/cubes.h5:a",
        f"{tmp_path}/cubes.h5:mask",
    )  # fmt: skip
    assert box.volume == part
    assert (box.name, box.images, box.label) == ("b", part.image_paths, part.label_path)
    assert (box.valid_mask, box.priority, box.group) == (part.mask_path, 2, "g")
    assert dataset.labels.statements["b"].absent == {1}
    assert whole.volume == VolumePart((f"{tmp_path}/w.npy",), None, f"{tmp_path}/cubes.h5:a")
    assert whole.images == (tmp_path / "w.npy",)
    assert dataset.file_ending == ".nii.gz" and not dataset.labels.is_dense
    assert pickle.loads(pickle.dumps(dataset)) == dataset  # noqa: S301


def test_boxes_and_ordinary_cases_stand_together(tmp_path):
    for name in ("imagesTr/z_0000.nii.gz", "labelsTr/z.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    dataset = Dataset.load(written(tmp_path, {"box": entry(box=BOX)}, file_ending=".nii.gz", numTraining=2))
    assert dataset.case_names == ("box", "z") and dataset.warnings == ()
    assert dataset.case("z").volume is None
    (fault,) = faults_of(written(tmp_path, {"box": entry(box=BOX)}))
    assert "file_ending: found no such key, expected the ending of the files in imagesTr" in fault
    (fault,) = faults_of(written(tmp_path, {"z": entry(box=BOX)}, file_ending=".nii.gz"))
    assert "a name that imagesTr or dataset has, too" in fault


def test_listed_images_may_be_arrays_of_volumes(tmp_path):
    listed = {"a": {"images": ["v.npy"], "label": "cubes.h5:a"}}
    (case,) = Dataset.load(written(tmp_path, None, file_ending=".nii.gz", dataset=listed)).cases
    assert case.volume == VolumePart((f"{tmp_path}/v.npy",), label=f"{tmp_path}/cubes.h5:a")
    (fault,) = faults_of(
        written(tmp_path, None, file_ending=".nii.gz", dataset={"a": {"images": ["u.h5:raw"], "label": "v.npy"}})
    )
    assert f"dataset.a: found no file {tmp_path}/u.h5:raw" in fault


def test_arrays_that_are_folders_are_found_as_files_are(tmp_path):
    for name in ("imagesTr/a_0000.zarr", "labelsTr/a.zarr"):
        (tmp_path / name).mkdir(parents=True)
    (case,) = Dataset.load(written(tmp_path, None, file_ending=".zarr")).cases
    assert case.volume == VolumePart((f"{tmp_path}/imagesTr/a_0000.zarr",), label=f"{tmp_path}/labelsTr/a.zarr")


def test_parts_of_one_volume_are_one_group_unless_all_cases_are(tmp_path):
    boxes = {"a": entry(box=BOX), "b": entry(box=FAR), "c": entry("w.npy", BOX)}
    assert groups_of(written(tmp_path, boxes)) == {"a": "v.npy", "b": "v.npy", "c": None}
    stated = written(tmp_path, boxes, cases={"b": {"group": "left"}})
    assert groups_of(stated) == {"a": "v.npy", "b": "left", "c": None}
    del boxes["c"]
    assert groups_of(written(tmp_path, boxes)) == {"a": None, "b": None}
    assert "boxes: all cases are parts of v.npy" in Dataset.load(tmp_path).warnings[0]


def test_volumes_of_one_name_in_several_files_or_folders_are_groups_of_their_own(tmp_path):
    for name in ("a.h5", "b.h5", "A/v.npy", "B/v.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    boxes = {f"{name}{i}": entry(f"{name}.h5:volumes/raw", box) for name in "ab" for i, box in enumerate((BOX, FAR))}
    first, second = "a.h5:volumes/raw", "b.h5:volumes/raw"
    assert groups_of(written(tmp_path, boxes)) == {"a0": first, "a1": first, "b0": second, "b1": second}
    boxes = {f"{name}{i}": entry(f"{name}/v.npy", box) for name in "AB" for i, box in enumerate((BOX, FAR))}
    assert groups_of(written(tmp_path, boxes)) == {"A0": "A/v.npy", "A1": "A/v.npy", "B0": "B/v.npy", "B1": "B/v.npy"}
    boxes = {f"a{i}": entry("a.h5:volumes/raw", box) for i, box in enumerate((BOX, FAR))}
    assert "all cases are parts of a.h5:volumes/raw" in Dataset.load(written(tmp_path, boxes)).warnings[0]


def test_overlapping_parts_share_a_group_whatever_is_stated(tmp_path):
    near = [[3, 6], [2, 8], [0, 10]]
    boxes = {"a": entry(box=BOX), "b": entry(box=near), "c": entry(box=FAR)}
    assert len({*groups_of(written(tmp_path, boxes)).values()}) == 1  # b overlaps a and c
    boxes = {"a": entry(box=BOX), "b": entry(box=near), "c": entry("w.npy", BOX), "d": entry("w.npy", FAR)}
    stated = {"a": {"group": "one"}, "b": {"group": "two"}, "c": {"group": "two"}, "d": {"group": "d"}}
    folder = written(tmp_path, boxes, cases=stated)
    assert groups_of(folder) == {"a": "one", "b": "one", "c": "one", "d": "d"}
    assert Dataset.load(folder).warnings == ("dataset.json: boxes: parts that overlap are kept in one fold: a and b",)
    whole = {"a": entry(box=BOX), "b": entry()}
    assert len({*groups_of(written(tmp_path, whole)).values()}) == 1


def test_every_fault_of_the_boxes_is_found_at_once(tmp_path):
    boxes = {
        "gone": entry("x.zarr", BOX),
        "near": entry("vv.npy", BOX),
        "boxed": entry("v.npy[0:3, 0:9]"),
        "empty": entry(box=[[0, 0], [0, 1], [0, 1]]),
        "turned": entry(box=[[4, 0], [0, 1], [0, 1]]),
        "flat": entry(box=[[0, 1], [0, 1]]),
        "negative": entry(box=[[-1, 1], [0, 1], [0, 1]]),
        "far": entry("gs://bucket/v.zarr"),
        "no/name": entry(),
        "unlabelled": {"image": "v.npy"},
        "misspelt": {"images": ["v.npy"], "label": "cubes.h5:a"},
        "mask": entry(valid_mask="m.h5:mask"),
        "list": [],
    }
    faults = faults_of(written(tmp_path, boxes))
    assert len(faults) == len(boxes) + 1  # misspelt is both unknown and missing
    for name, text in {
        "gone.image": f"no file or folder {tmp_path}/x.zarr",
        "near.image": "Did you mean 'v.npy'?",
        "boxed.image": "the box [0:3, 0:9], expected [z0:z1, y0:y1, x0:x1]",
        "empty.box": "the box [[0, 0], [0, 1], [0, 1]] without voxels",
        "turned.box": "the smaller number of each axis first",
        "flat.box": "[[z0, z1], [y0, y1], [x0, x1]] in voxels",
        "negative.box": "[[z0, z1], [y0, y1], [x0, x1]] in voxels",
        "far.image": "the address gs://bucket/v.zarr",
        "unlabelled.label": "no such key",
        "misspelt.images": "Did you mean 'image'?",
        "misspelt.image": "no such key",
        "mask.valid_mask": f"no file or folder {tmp_path}/m.h5",
        "list": "an object from case to an object",
    }.items():
        (fault,) = [fault for fault in faults if fault.startswith(f"dataset.json: boxes.{name}: ")]
        assert text in fault
    assert any("the case name 'no/name'" in fault for fault in faults)


def test_a_model_remembers_that_it_was_trained_on_boxes():
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "boxes": {"a": entry(box=BOX)}}
    assert Dataset.from_json(content, name="model", folder=None).labels.has_boxes
