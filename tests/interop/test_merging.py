"""Data sets with different classes become one in which every voxel still says what its annotator meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import as_mhd, toy_case

from autoseg import planning
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.interop.merged_files import write_merged
from autoseg.interop.merging import plan_merger
from autoseg.io.images import read_header, read_image, read_labels, write_labels
from autoseg.planning.strata import FoldGap, find_gaps, profiles_from_report
from autoseg.preprocessing.read_case import read_case

SHAPES = {"2d": (1, 40, 36), "3d": (12, 20, 18)}
LIVER = {"background": 0, "liver": 1, "tumour": 2}
KIDNEY = {"background": 0, "kidney": 1, "liver": 2, "ignore": 7}


def write(
    folder: Path, labels: dict[str, Any], names: tuple[str, ...] = ("a", "b"), shape=SHAPES["3d"], **keys: Any
) -> Path:
    """Write a toy data set with two balls of the values 1 and 2, and a corner of ``corner``."""
    is_2d = shape[0] == 1
    ending, geometry = (".png", Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)) if is_2d else (
        ".nii.gz", Geometry(spacing=(2.0, 1.0, 1.0))
    )  # fmt: skip
    corner = keys.pop("corner", 0)
    for name in ("imagesTr", "labelsTr", "masksTr"):
        (folder / name).mkdir(parents=True)
    for index, case in enumerate(names):
        image, truth = toy_case(shape, index)
        truth[0, 0, :4] = corner
        write_labels(folder / f"imagesTr/{case}_0000{ending}", image, geometry)
        write_labels(folder / f"labelsTr/{case}{ending}", truth, geometry)
        mask = np.ones(shape, np.uint8)
        mask[0, 1] = 0
        write_labels(folder / f"masksTr/{case}{ending}", mask, geometry)
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(names), "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    return folder


def merge(*folders: Path, **options: Any) -> Dataset:
    merger = plan_merger([Dataset.load(folder) for folder in folders], "merged")
    return write_merged(merger, folders[0].parent / "merged", **options)


def sets_of(dataset: Dataset, case: str, value: int) -> set[str]:
    return {dataset.labels.class_names[index] for index in dataset.labels.sets_by_value(case)[value]}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_classes_are_mapped_by_name_and_the_rest_of_each_case_stays_open(tmp_path, shape):
    folders = [
        write(tmp_path / "A", LIVER, ("a", "b"), shape),
        write(tmp_path / "B", KIDNEY, ("c", "d", "e"), shape, corner=7),
    ]
    dataset = merge(*folders)
    assert dataset.json["labels"] == {"background": 0, "liver": 1, "tumour": 2, "kidney": 3, "ignore": 4}
    assert dataset.case_names == ("a", "b", "c", "d", "e") and dataset.warnings == ()
    everything = set(dataset.labels.class_names)
    for case, original, meaning in (
        ("a", folders[0], {0: {"background", "kidney"}, 1: {"liver"}, 2: {"tumour"}}),
        ("c", folders[1], {0: {"background", "tumour"}, 1: {"kidney"}, 2: {"liver"}, 7: everything}),
    ):
        drawn, _ = read_labels(Dataset.load(original).case(case).label)
        target = read_case(dataset.case(case), dataset.labels).target
        for value in np.unique(drawn):
            rows = target.label_sets[np.unique(target.codes[drawn == value])]
            assert [{dataset.labels.class_names[k] for k in np.flatnonzero(row)} for row in rows] == [meaning[value]]


FOLD = (("a", "b"), ("c", "d", "e"))


def test_the_merged_data_set_can_be_planned(tmp_path):
    dataset = merge(write(tmp_path / "A", LIVER), write(tmp_path / "B", KIDNEY, ("c", "d", "e"), corner=7))
    report = check_dataset(dataset)
    assert report.faults == () and report.uninformative == () and report.never_annotated == ()
    assert report.warnings == () and find_gaps([FOLD], profiles_from_report(report), report.heads) == (
        FoldGap(0, "train", ("background", "kidney")),  # what is not liver may be kidney
        FoldGap(0, "val", ("tumour",)),
    )
    plan = planning.plan(dataset, planning.extract_fingerprint(dataset), "small")
    assert plan.configurations


def test_data_sets_with_the_same_classes_stay_dense(tmp_path):
    dataset = merge(write(tmp_path / "A", LIVER), write(tmp_path / "B", LIVER, ("c",)))
    assert dataset.labels.is_dense and "cases" not in dataset.json


def test_equal_case_names_get_the_name_of_their_data_set(tmp_path):
    dataset = merge(write(tmp_path / "A", LIVER, ("a", "b")), write(tmp_path / "B", LIVER, ("b", "c")))
    assert dataset.case_names == ("A_b", "B_b", "a", "c")
    assert dataset.case("B_b").images[0].resolve() == (tmp_path / "B/imagesTr/b_0000.nii.gz").resolve()
    other = write(tmp_path / "other" / "A", LIVER, ("b",))
    merger = plan_merger([Dataset.load(tmp_path / "A"), Dataset.load(other)], "x")
    assert [source.case_names["b"] for source in merger.sources] == ["A_1_b", "A_2_b"]


def test_names_that_still_collide_are_an_error(tmp_path):
    folders = [write(tmp_path / "A", LIVER, ("b", "B_b")), write(tmp_path / "B", LIVER, ("b",))]
    with pytest.raises(DatasetError, match=r"2 cases .* 'B_b'"):
        plan_merger([Dataset.load(folder) for folder in folders], "x")


def test_what_is_said_of_a_case_goes_along(tmp_path):
    said = {"annotated": ["liver"], "absent": ["tumour"], "priority": 2, "group": "p"}
    one = write(tmp_path / "A", LIVER, cases={"a": said, "b": {"absent": ["background"]}})
    merger = plan_merger([Dataset.load(one), Dataset.load(write(tmp_path / "B", KIDNEY, ("c",)))], "x")
    assert merger.content["cases"] == {
        "a": {"annotated": ["liver"], "absent": ["tumour"], "priority": 2, "group": "A/p"},
        "b": {"annotated": ["liver", "tumour"], "absent": ["background", "kidney"]},
        "c": {"annotated": ["kidney", "liver"]},
    }


def test_label_sets_are_shared_by_name_and_background_grows(tmp_path):
    one = write(tmp_path / "A", LIVER, label_sets={"5": ["liver", "tumour"], "6": ["background", "tumour"]}, corner=5)
    two = write(tmp_path / "B", {**LIVER, "kidney": 3}, ("c",), label_sets={"9": ["tumour", "liver"]}, corner=9)
    dataset = merge(one, two)
    assert dataset.json["label_sets"] == {"4": ["background", "tumour", "kidney"], "5": ["liver", "tumour"]}
    assert sets_of(dataset, "a", 0) == {"background", "kidney"} and sets_of(dataset, "c", 0) == {"background"}
    for case in ("a", "c"):
        assert set(read_labels(dataset.case(case).label)[0][0, 0, :4]) == {5}


def test_masks_become_the_ignore_label(tmp_path):
    dataset = merge(write(tmp_path / "A", LIVER, valid_mask_folder="masksTr"), write(tmp_path / "B", LIVER, ("c",)))
    assert dataset.labels.ignore == 3 and not dataset.labels.has_masks
    drawn, _ = read_labels(dataset.case("a").label)
    assert (drawn[0, 1] == 3).all() and (drawn == 3).sum() == drawn.shape[2]
    assert (read_labels(dataset.case("c").label)[0] != 3).all()


def test_an_equal_task_stays(tmp_path):
    keys = {"task": "split_task:Split"}
    dataset = merge(write(tmp_path / "A", LIVER, **keys), write(tmp_path / "B", LIVER, ("c",), **keys))
    assert dataset.json["task"] == dataset.labels.task == "split_task:Split"


def test_equal_regions_stay(tmp_path):
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    keys = {"regions_class_order": [1, 2]}
    dataset = merge(
        write(tmp_path / "A", regions, **keys), write(tmp_path / "B", regions | {"ignore": 9}, ("c",), **keys)
    )
    assert dataset.labels.has_regions and dataset.labels.ignore == 3
    assert [head.key for head in dataset.labels.heads] == ["(1, 2)", "2"]


@pytest.mark.parametrize("copy", [False, True])
def test_images_are_linked_or_copied(tmp_path, copy: bool):
    seen: list[tuple[int, int, str]] = []
    folders = [write(tmp_path / "A", LIVER), write(tmp_path / "B", LIVER, ("c",))]
    dataset = merge(*folders, copy=copy, progress=lambda *step: seen.append(step))
    assert all(image.is_symlink() != copy for case in dataset.cases for image in case.images)
    assert [step[:2] for step in seen] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("compress", [False, True], ids=["raw", "compressed"])
def test_headers_beside_their_data_become_single_files(tmp_path, compress: bool):
    folders = [write(tmp_path / name, LIVER) for name in ("one", "two")]
    for folder in folders:
        as_mhd(folder, compress=compress)
    merged = merge(*folders)
    assert merged.file_ending == ".mha"
    assert not check_dataset(merged).faults
    for case in merged.cases:
        name, _, own = case.name.partition("_")
        there, here = tmp_path / name / f"imagesTr/{own}_0000.mhd", case.images[0]
        np.testing.assert_array_equal(read_image([here])[0], read_image([there])[0])
        assert read_header(here) == read_header(there)


def keys_of(protocol: dict[str, Any]) -> dict[str, Any]:
    return {"annotation_protocol": protocol, "valid_mask_folder": "masksTr"}


def test_only_what_all_promise_for_all_classes_is_still_promised(tmp_path):
    one = write(tmp_path / "A", LIVER, **keys_of({"reach_mm": 5, "classes_complete_in": "slice"}))
    two = write(tmp_path / "B", LIVER, ("c",), **keys_of({"reach_mm": 7, "classes_complete_in": "slice"}))
    merger = plan_merger([Dataset.load(one), Dataset.load(two)], "x")
    assert merger.content["annotation_protocol"] == {"classes_complete_in": "slice"}
    assert len(merger.warnings) == 1 and merger.warnings[0].startswith("annotation_protocol: reach_mm dropped")
    other = write(tmp_path / "C", KIDNEY, ("d",), **keys_of({"classes_complete_in": "slice"}))
    merger = plan_merger([Dataset.load(one), Dataset.load(other)], "x")
    assert "annotation_protocol" not in merger.content and "classes_complete_in, reach_mm" in merger.warnings[0]


def test_promises_about_slices_across_different_axes_are_dropped(tmp_path):
    about_slices = {"reach_mm": 5, "classes_complete_in": "slice", "background_encloses": True}
    one = write(tmp_path / "A", LIVER, **keys_of({**about_slices, "slice_axis": "z"}))
    two = write(tmp_path / "B", LIVER, ("c",), **keys_of({**about_slices, "slice_axis": "y"}))
    merger = plan_merger([Dataset.load(one), Dataset.load(two)], "x")
    assert merger.content["annotation_protocol"] == {"reach_mm": 5}
    assert "background_encloses, classes_complete_in, slice_axis dropped" in merger.warnings[0]


def test_an_image_in_two_data_sets_is_a_warning(tmp_path):
    one, two = write(tmp_path / "A", LIVER), write(tmp_path / "B", LIVER)
    image = two / "imagesTr/a_0000.nii.gz"
    image.unlink()
    image.symlink_to(one / "imagesTr/a_0000.nii.gz")
    (warning,) = plan_merger([Dataset.load(one), Dataset.load(two)], "x").warnings
    assert "the image of A/a, B/a. Give these cases" in warning


SEED = {"lazy_semantics": "seed", "cases": {"c": {"annotated": ["liver"]}}}
CONFLICTS: list[tuple[str, dict[str, Any], str]] = [
    ("channel", {"channel_names": {"0": "MR"}}, r"B: channel_names: found 1 \(MR\), expected 1 \(CT\), as in A"),
    (
        "channels",
        {"channel_names": {"0": "CT", "1": "PET"}},
        r"found 2 \(CT, PET\), expected 1 \(CT\), as in A\.",
    ),
    ("ending", {"file_ending": ".mha"}, r"B: file_ending: found '\.mha', expected '\.nii\.gz', as in A"),
    (
        "regions",
        {"labels": {"background": 0, "liver": [1, 2], "tumour": 2}, "regions_class_order": [1, 2]},
        "B: labels: found .* Regions consist of values",
    ),
    ("task", {"task": "split_task:Split"}, "B: task: found 'split_task:Split', expected 'no such key', as in A"),
    ("semantics", {"labels": {**LIVER, "kidney": 3}, **SEED}, "lazy_semantics: found marginal in A, seed in B"),
]


@pytest.mark.parametrize(("keys", "message"), [item[1:] for item in CONFLICTS], ids=[item[0] for item in CONFLICTS])
def test_a_conflict_is_refused(tmp_path, keys: dict[str, Any], message: str):
    one, two = write(tmp_path / "A", LIVER), write(tmp_path / "B", **({"labels": LIVER} | keys), names=("c",))
    datasets = [Dataset.load(one), Dataset.examine(two)[0]]
    with pytest.raises(DatasetError, match=message):
        plan_merger(datasets, "x")


def test_channels_in_another_order_are_told_apart(tmp_path):
    one, two = (
        write(tmp_path / name, LIVER, (case,), channel_names={str(n): c for n, c in enumerate(order)})
        for name, case, order in (("A", "a", ("T1", "T2")), ("B", "b", ("T2", "T1")))
    )
    with pytest.raises(DatasetError, match="Bring the channels into the same order"):
        plan_merger([Dataset.examine(one)[0], Dataset.examine(two)[0]], "x")


def test_seed_semantics_shared_by_all_are_kept(tmp_path):
    one = write(tmp_path / "A", LIVER)
    dataset = merge(one, write(tmp_path / "B", LIVER, ("c",), **SEED))
    assert sets_of(dataset, "c", 0) == {"background", "liver", "tumour"} and sets_of(dataset, "a", 0) == {"background"}


def test_fewer_than_two_data_sets_or_one_twice_are_errors(tmp_path):
    dataset = Dataset.load(write(tmp_path / "A", LIVER))
    with pytest.raises(DatasetError, match="data sets to merge: found A"):
        plan_merger([dataset], "x")
    with pytest.raises(DatasetError, match="found the data set A 2 times"):
        plan_merger([dataset, dataset], "x")


def test_wrong_label_files_are_all_named_and_nothing_is_left(tmp_path):
    folders = [write(tmp_path / "A", LIVER, corner=9), write(tmp_path / "B", LIVER, ("c",))]
    with pytest.raises(DatasetError, match=r"'a': .*values 9 \(4 voxels\)") as error:
        merge(*folders)
    assert len(error.value.faults) == 2 and not (tmp_path / "merged").exists()


def test_a_folder_with_something_in_it_is_not_written_over(tmp_path):
    folders = [write(tmp_path / "A", LIVER), write(tmp_path / "B", LIVER, ("c",))]
    merge(*folders)
    with pytest.raises(DatasetError, match=r"merged: found a dataset\.json"):
        merge(*folders)


def test_one_class_in_two_spellings_is_a_conflict(tmp_path):
    first = write(tmp_path / "one", LIVER)
    second = write(tmp_path / "two", {"background": 0, "Liver": 1, "kidney": 2}, names=("c",))
    with pytest.raises(DatasetError, match="labels: found the classes Liver, liver"):
        merge(first, second)


def test_labels_of_another_shape_than_their_image_are_refused(tmp_path):
    first, second = write(tmp_path / "one", LIVER), write(tmp_path / "two", KIDNEY, names=("c",))
    wrong = np.zeros((3, 4, 5), dtype=np.uint8)
    write_labels(second / "labelsTr/c.nii.gz", wrong, Geometry(spacing=(2.0, 1.0, 1.0)))
    with pytest.raises(DatasetError, match=r"'c': c.nii.gz: .*\(3, 4, 5\)"):
        merge(first, second)
    assert not (tmp_path / "merged" / "dataset.json").exists()


def test_a_complete_background_says_nothing_of_classes_that_another_data_set_adds(tmp_path):
    said = {"a": {"annotated": ["background", "liver"]}}
    first, second = write(tmp_path / "one", LIVER, cases=said), write(tmp_path / "two", KIDNEY, names=("c",))
    merged = merge(first, second)
    assert sets_of(merged, "a", 0) == {"background", "kidney"}
    assert sets_of(merged, "b", 0) == {"background", "kidney"}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_values_of_which_nothing_is_known_become_ignore(tmp_path, shape):
    """In A nobody looked where the files hold 0, and background is 3; in B it is -1's set of all classes, 9."""
    first = write(tmp_path / "A", {"background": 3, "liver": 1, "tumour": 2}, ("a",), shape, unlabelled=0, corner=3)
    second = write(tmp_path / "B", LIVER, ("b",), shape, corner=9, label_sets={"9": ["background", "liver", "tumour"]})
    merged = merge(first, second)
    assert merged.labels.class_values == (0, 1, 2) and merged.labels.ignore == 3 and not merged.labels.set_values
    for name, folder in (("a", first), ("b", second)):
        source = Dataset.load(folder)
        before, after = (read_case(data.case(name), data.labels).target for data in (source, merged))
        np.testing.assert_array_equal(after.codes, before.codes)


def test_merged_regions_keep_the_value_of_background(tmp_path):
    labels = {"background": 9, "both": [1, 2], "tumour": 2}
    folders = [
        write(tmp_path / name, labels, (name,), unlabelled=0, corner=9, regions_class_order=[1, 2]) for name in "ab"
    ]
    merged = merge(*folders)
    assert merged.labels.class_values == (9, 1, 2) and merged.labels.ignore == 10


def test_weights_of_labels_are_kept_and_equal_ones_share_a_value(tmp_path):
    doubtful = {"3": {"label": "liver", "weight": 0.5}, "4": {"label": "tumour", "weight": 0.5}}
    first = write(tmp_path / "one", LIVER, corner=3, label_weights=doubtful)
    second = write(tmp_path / "two", KIDNEY, corner=8, label_weights={"8": {"label": "liver", "weight": 0.5}})
    merged = merge(first, second)
    values = {
        int(read_labels(case.label)[0][0, 0, 0]): merged.labels.class_names.index("liver") for case in merged.cases
    }
    ((value, liver),) = values.items()
    assert merged.labels.value_weights[value] == 0.5 and merged.labels.set_values[value] == {liver}
    assert len(merged.labels.value_weights) == 2 and "label_sets" not in merged.json
