"""Steps agree with scikit-image and SciPy; physical sizes do not depend on the spacing; regions leave what encloses."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage import measure, morphology

from autoseg.core.errors import ConfigError, EvaluationError, PlanError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation.postprocess_folder import postprocess_folder
from autoseg.evaluation.postprocessing import (
    FillHoles,
    KeepLargestComponent,
    Postprocessing,
    RemoveSmallerThan,
    load_postprocessing,
    postprocess,
)
from autoseg.io.images import read_labels, write_labels

CLASSES = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
FLAT = Geometry(spacing=(FLAT_SPACING, 2.0, 0.5), ndim=2)
SOLID = Geometry(spacing=(2.0, 1.0, 0.5))
GRIDS = [((1, 40, 50), FLAT), ((8, 20, 25), SOLID)]


def labels_of(labels=CLASSES, order=None, ending=".nii.gz"):
    content = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ending}
    content |= {} if order is None else {"regions_class_order": order}
    return Dataset.from_json(content, name="made", folder=None).labels


def blobs(shape, seed, n_values=3):
    """Return random label values (z, y, x) with components of all sizes, and holes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0.5, 1.2, 1.2))
    return np.digitize(noise, np.quantile(noise, np.linspace(0, 1, n_values + 1)[1:-1])).astype(np.uint8)


def squeezed(array, geometry):
    return array[0] if geometry.ndim == 2 else array


def apply(label_map, geometry, *steps, labels=None):
    return postprocess(label_map, geometry, labels or labels_of(), Postprocessing(steps=steps))


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
@pytest.mark.parametrize("seed", range(3))
def test_the_largest_component_is_that_of_scikit_image(shape, geometry, seed):
    label_map = blobs(shape, seed)
    kept = apply(label_map, geometry, KeepLargestComponent(of=("b",)))
    numbers = measure.label(squeezed(label_map == 2, geometry), connectivity=geometry.ndim)
    sizes = np.bincount(numbers.reshape(-1))[1:]
    assert len(sizes) > 1
    largest = np.isin(numbers, 1 + np.flatnonzero(sizes == sizes.max())).reshape(shape)
    assert np.array_equal(kept == 2, largest)
    assert np.array_equal(kept == 1, label_map == 1)


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
@pytest.mark.parametrize("voxels", [2, 5, 1000])
def test_small_components_are_those_of_scikit_image(shape, geometry, voxels):
    label_map = blobs(shape, 1)
    size, unit = voxels * geometry.voxel_volume, "mm2" if geometry.ndim == 2 else "mm3"
    kept = apply(label_map, geometry, RemoveSmallerThan(of=("a",), size=size, unit=unit))
    numbers = measure.label(squeezed(label_map == 1, geometry), connectivity=geometry.ndim)
    sizes = np.bincount(numbers.reshape(-1))
    expected = ((numbers > 0) & (sizes >= voxels)[numbers]).reshape(shape)
    assert np.array_equal(kept == 1, expected)
    assert np.array_equal(kept == 2, label_map == 2)


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
@pytest.mark.parametrize("seed", range(3))
def test_holes_are_those_of_scipy_and_only_background_in_them_is_filled(shape, geometry, seed):
    label_map = np.random.default_rng(seed).choice(3, p=(0.2, 0.1, 0.7), size=shape).astype(np.uint8)
    filled = apply(label_map, geometry, FillHoles(of=("b",)))
    mask = squeezed(label_map == 2, geometry)
    holes = (ndimage.binary_fill_holes(mask) & ~mask).reshape(shape)
    assert set(label_map[holes].tolist()) == {0, 1}
    assert np.array_equal(filled == 2, (label_map == 2) | (holes & (label_map == 0)))
    assert np.array_equal(filled == 1, label_map == 1)


def test_all_foreground_together_keeps_a_class_that_touches_the_largest_component():
    label_map = np.zeros((1, 3, 9), dtype=np.uint8)
    label_map[0, 1, :6] = (1, 1, 1, 2, 2, 2)
    label_map[0, 1, 8] = 2
    label_map[0, 0, 8] = 1
    kept = apply(label_map, FLAT, KeepLargestComponent(of=("a", "b")))
    assert kept[0, 1].tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]
    assert kept[0, 0].tolist() == [0] * 9


def test_of_several_largest_components_all_stay():
    label_map = np.array([[[1, 1, 0, 1, 1, 0, 1]]], dtype=np.uint8)
    assert apply(label_map, FLAT, KeepLargestComponent(of=("a",))).tolist() == [[[1, 1, 0, 1, 1, 0, 0]]]


def test_the_same_tissue_on_a_finer_grid_is_processed_alike():
    coarse = blobs((6, 12, 12), 5)
    fine = coarse.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    step = RemoveSmallerThan(of=("a",), size=9.0, unit="mm3")
    kept = apply(coarse, Geometry(spacing=(2.0, 1.0, 1.0)), step)
    kept_fine = apply(fine, Geometry(spacing=(1.0, 0.5, 0.5)), step)
    assert 0 < (kept == 1).sum() < (coarse == 1).sum()
    assert np.array_equal(kept.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2), kept_fine)


def test_a_size_in_the_header_that_is_rounded_keeps_a_component_of_exactly_that_size():
    edge = float(np.float32(0.7))
    label_map = np.zeros((1, 4, 9), dtype=np.uint8)
    label_map[0, 1:3, 1:6] = 1
    step = RemoveSmallerThan(of=("a",), size=10 * 0.49, unit="mm2")
    assert (apply(label_map, Geometry(spacing=(999, edge, edge), ndim=2), step) == 1).sum() == 10


@pytest.mark.parametrize("geometry", [FLAT, SOLID], ids=["2d", "3d"])
def test_without_a_voxel_of_the_class_nothing_changes(geometry):
    steps = (KeepLargestComponent(of=("a", "b")), FillHoles(of=("a",)), RemoveSmallerThan(
        of=("b",), size=3, unit="mm2" if geometry.ndim == 2 else "mm3"))  # fmt: skip
    for label_map in (np.zeros((1, 4, 5), np.uint8), np.zeros((1, 0, 5), np.uint8)):
        assert np.array_equal(apply(label_map, geometry, *steps), label_map)


def nested():
    """Return a tumour (whole > core > enhancing), a far second core in the whole, and a far piece of enhancing."""
    label_map = np.zeros((1, 9, 20), dtype=np.uint8)
    label_map[0, 1:8, 1:12] = 1
    label_map[0, 2:7, 2:7] = 2
    label_map[0, 4:6, 4:6] = 3
    label_map[0, 3:5, 9:11] = 2
    label_map[0, 3, 9] = 3
    label_map[0, 4, 17] = 3
    return label_map


def test_a_removed_region_leaves_what_encloses_it():
    labels, label_map = labels_of(REGIONS, [1, 2, 3]), nested()
    kept = apply(label_map, FLAT, KeepLargestComponent(of=("core",)), labels=labels)
    expected = label_map.copy()
    expected[0, 3:5, 9:11] = 1
    expected[0, 4, 17] = 1
    assert np.array_equal(kept, expected)
    whole = apply(label_map, FLAT, KeepLargestComponent(of=("whole",)), labels=labels)
    expected = label_map.copy()
    expected[0, 4, 17] = 0
    assert np.array_equal(whole, expected)
    inner = apply(label_map, FLAT, KeepLargestComponent(of=("enhancing",)), labels=labels)
    assert inner[0, 3, 9] == 2 and inner[0, 4, 17] == 2 and (inner == 3).sum() == 4


def test_a_region_that_is_removed_is_background_where_its_frame_consists_of_removed_classes_only():
    """Two regions that divide the third: without them no class of it is left."""
    labels = labels_of({"background": 0, "both": [1, 2], "left": 1, "right": 2}, [1, 1, 2])
    label_map = np.array([[[1, 1, 0, 1, 2, 2]]], dtype=np.uint8)
    kept = apply(label_map, FLAT, KeepLargestComponent(of=("left",)), labels=labels)
    assert kept.tolist() == [[[1, 1, 0, 0, 2, 2]]]


def test_holes_of_a_region_are_filled_within_what_encloses_it_and_not_over_others():
    labels, label_map = labels_of(REGIONS, [1, 2, 3]), nested()
    label_map[0, 3, 3] = 1  # whole within core
    label_map[0, 5, 5] = 0  # background within enhancing, which lies within core
    filled = apply(label_map, FLAT, FillHoles(of=("core",)), labels=labels)
    assert filled[0, 3, 3] == 2 and filled[0, 5, 5] == 2
    assert (filled != label_map).sum() == 2


@pytest.mark.parametrize("step", [
    KeepLargestComponent(of=("background",)), FillHoles(of=("liver",)),
    RemoveSmallerThan(of=("A",), size=1, unit="mm2"),
])  # fmt: skip
def test_a_name_of_no_class_is_refused(step):
    with pytest.raises(ConfigError, match=r"no such class or region.*expected one of a, b"):
        apply(blobs((1, 9, 9), 0), FLAT, step)


def test_a_volume_in_a_picture_is_refused():
    with pytest.raises(ConfigError, match=r"'mm3', expected 'mm2' for 2-D"):
        apply(blobs((1, 9, 9), 0), FLAT, RemoveSmallerThan(of=("a",), size=1, unit="mm3"))


@pytest.mark.parametrize(("content", "named"), [
    ({"steps": [{"operation": "keep_largest", "of": ["a"]}]}, "keep_largest"),
    ({"steps": [{"operation": "keep_largest_component", "of": []}]}, "at least 1"),
    ({"steps": [{"operation": "fill_holes", "of": ["a", "b"]}]}, "at most 1"),
    ({"steps": [{"operation": "remove_smaller_than", "of": ["a"], "size": -1, "unit": "mm3"}]}, "greater than 0"),
    ({"steps": [{"operation": "remove_smaller_than", "of": ["a"], "size": 5}]}, "unit"),
    ({"steps": [{"operation": "fill_holes", "of": ["a"], "size": 5}]}, "Extra inputs"),
    ({"step": []}, "steps"),
    ([], "postprocessing"),
])  # fmt: skip
def test_a_wrong_file_is_refused_with_an_example(tmp_path, content, named):
    path = tmp_path / "postprocessing.json"
    path.write_text(json.dumps(content))
    with pytest.raises(PlanError, match=rf"{named}.*remove_smaller_than"):
        load_postprocessing(path)


def test_a_written_file_is_read_back(tmp_path):
    steps = Postprocessing(steps=(
        KeepLargestComponent(of=("a", "b")), RemoveSmallerThan(of=("a",), size=0.5, unit="mm3"), FillHoles(of=("b",)),
    ))  # fmt: skip
    (tmp_path / "p.json").write_text(steps.model_dump_json())
    assert load_postprocessing(tmp_path / "p.json") == steps


def test_the_example_in_the_documents_is_a_file(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "find_best.md").read_text(encoding="utf-8")
    (tmp_path / "p.json").write_text(text.partition("```json\n")[2].partition("```")[0])
    operations = [step.operation for step in load_postprocessing(tmp_path / "p.json").steps]
    assert operations == ["keep_largest_component", "remove_smaller_than", "fill_holes"]


@pytest.fixture
def predictions(tmp_path):
    """Three cases as autoseg_predict leaves them."""
    folder = tmp_path / "in"
    for index, case in enumerate("xyz"):
        write_labels(folder / f"{case}.nii.gz", blobs((4, 9, 9), index), SOLID)
    content = {"channel_names": {"0": "MR"}, "labels": CLASSES, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "plans.json").write_text("{}\n")
    return folder


STEP = Postprocessing(steps=(KeepLargestComponent(of=("b",)),))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_is_processed_with_its_geometry_and_model_files(predictions, tmp_path, workers):
    report = postprocess_folder(predictions, tmp_path / "out", STEP, workers=workers)
    assert list(report.done) == ["x", "y", "z"] and not report.failed
    for case in "xyz":
        before, geometry = read_labels(predictions / f"{case}.nii.gz")
        after, kept_geometry = read_labels(tmp_path / "out" / f"{case}.nii.gz")
        assert kept_geometry == geometry
        assert np.array_equal(after, apply(before, geometry, *STEP.steps))
        assert report.done[case] == (after != before).sum()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "x.nii.gz", "y.nii.gz", "z.nii.gz", "dataset.json", "plans.json",
    }  # fmt: skip


def test_a_damaged_label_map_does_not_stop_the_others(predictions, tmp_path):
    (predictions / "y.nii.gz").write_bytes(b"no image")
    write_labels(predictions / "z.nii.gz", np.full((4, 9, 9), 7, np.uint8), SOLID)
    report = postprocess_folder(predictions, tmp_path / "out", STEP)
    assert list(report.done) == ["x"]
    assert "y.nii.gz" in report.failed["y"] and "[7]" in report.failed["z"]
    assert not (tmp_path / "out" / "y.nii.gz").exists()


def test_outputs_that_exist_are_kept_unless_it_is_said_otherwise(predictions, tmp_path):
    postprocess_folder(predictions, tmp_path / "out", STEP)
    with pytest.raises(ConfigError, match=r"3 label maps of an earlier run .*--overwrite"):
        postprocess_folder(predictions, tmp_path / "out", STEP)
    assert len(postprocess_folder(predictions, tmp_path / "out", STEP, overwrite=True).done) == 3


def test_neither_the_input_nor_a_data_set_is_written_to(predictions, tmp_path):
    (tmp_path / "data" / "imagesTr").mkdir(parents=True)
    (tmp_path / "data" / "dataset.json").write_text("{}")
    for folder in (predictions, predictions / ".." / "in", tmp_path / "data", tmp_path / "data" / "labelsTr"):
        with pytest.raises(ConfigError, match="Change -o"):
            postprocess_folder(predictions, folder, STEP)
    assert not (tmp_path / "data" / "labelsTr").exists()


def test_a_folder_without_a_dataset_json_is_refused_and_one_beside_is_taken(predictions, tmp_path):
    (predictions / "dataset.json").rename(tmp_path / "dataset.json")
    with pytest.raises(EvaluationError, match=r"no dataset.json.*-d"):
        postprocess_folder(predictions, tmp_path / "out", STEP)
    assert (
        len(postprocess_folder(predictions, tmp_path / "out", STEP, dataset_json=tmp_path / "dataset.json").done) == 3
    )


def test_a_wrong_step_is_found_before_anything_is_written(predictions, tmp_path):
    for step in (FillHoles(of=("liver",)), RemoveSmallerThan(of=("a",), size=1, unit="mm2")):
        with pytest.raises(ConfigError):
            postprocess_folder(predictions, tmp_path / "out", Postprocessing(steps=(step,)))
    assert not (tmp_path / "out").exists()


def test_small_objects_of_one_class_are_those_that_morphology_removes():
    """The same as skimage.morphology.remove_small_objects, in voxels."""
    label_map = blobs((8, 20, 25), 4)
    kept = apply(label_map, SOLID, RemoveSmallerThan(of=("b",), size=6.0, unit="mm3"))
    numbers = measure.label(label_map == 2, connectivity=3)
    name = "max_size" if "max_size" in inspect.signature(morphology.remove_small_objects).parameters else "min_size"
    expected = morphology.remove_small_objects(numbers, **{name: 5 if name == "max_size" else 6}) > 0
    assert np.array_equal(kept == 2, expected)
