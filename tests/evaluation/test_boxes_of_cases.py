"""Cases that are scored box by box have exactly the scores of the whole case, whatever the format of their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import ndimage

from autoseg.core.boxes import Box, blocks
from autoseg.core.errors import EvaluationError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.evaluation import case_scoring, evaluate_folder, label_boxes
from autoseg.evaluation.case_sums import CaseSums, add_to
from autoseg.evaluation.contingency import Contingency
from autoseg.evaluation.label_boxes import box_shape, open_label_boxes
from autoseg.io.images import write_labels
from autoseg.io.zarr_writer import create_zarr

SOLID = Geometry(spacing=(2.0, 1.0, 0.5), origin=(1.0, 2.0, 3.0))
FLAT = Geometry(spacing=(FLAT_SPACING, 1.0, 1.0), ndim=2)
BASE: dict[str, Any] = {"channel_names": {"0": "a"}, "numTraining": 1, "file_ending": ".nii.gz"}
CLASSES = {**BASE, "labels": {"background": 0, "a": 1, "b": 2}}
SPARSE = {**CLASSES, "labels": {**CLASSES["labels"], "ignore": 3}}
SETS = {**CLASSES, "label_sets": {"4": ["a", "b"]}, "unlabelled": 3}
REGIONS = {**BASE, "labels": {"background": 0, "whole": [1, 2], "b": 2}, "regions_class_order": [1, 2]}
ABSENT = {**SPARSE, "cases": {"c": {"absent": ["b"]}}}
OBJECTS = {
    **BASE, "task": "instances", "labels": {"background": 0, "a": 1, "b": 2}, "instances_per_class": 1000,
    "unlabelled": 65535,
}  # fmt: skip


def values_of(content: dict[str, Any], shape: tuple[int, int, int], seed: int, *, is_reference: bool) -> np.ndarray:
    """Return (z, y, x) file values, those of unannotated voxels and of sets only in references."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), [0 if edge == 1 else 1 for edge in shape])
    classes = np.digitize(smooth, np.quantile(smooth, [0.5, 0.8])).astype(np.uint16)
    if content is OBJECTS:
        for value in (1, 2):
            numbers, _ = ndimage.label(classes == value)
            classes[numbers > 0] = 1000 * value + numbers[numbers > 0]
    if is_reference:
        unknown = {"ignore": 3, "unlabelled": content.get("unlabelled")}
        values = [unknown["ignore"]] if "ignore" in content["labels"] else [unknown["unlabelled"]]
        values = [value for value in (*values, 4 if "label_sets" in content else None) if value is not None]
        for value in values:
            classes[rng.random(shape) < 0.2] = value
    return classes


def write(path: Path, values: np.ndarray, geometry: Geometry = SOLID) -> None:
    """Write a label map in the format of the ending of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.create_dataset("labels", data=values, chunks=(2, 4, 4)).attrs["element_size_um"] = [
                edge * 1000 for edge in geometry.spacing
            ]
    elif path.suffix == ".zarr":
        depth = 1 if geometry.ndim == 2 else 2
        size = {"chunk": (depth, 4, 4), "shard": (2 * depth, 8, 8)}
        writer = create_zarr(path, (1, *values.shape), values.dtype, geometry, **size)
        for box in writer.pending():
            writer.write(box, values[None][(slice(None), *box.slices)])
    else:
        write_labels(path, values, geometry)


def scores(folder: Path, content: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return the content of the summary without the names of files."""
    summary = evaluate_folder(folder / "r", folder / "p", content, **options)
    assert summary.faults == ()
    found = json.loads(json.dumps(summary.as_json(), allow_nan=False))
    for case in found["metric_per_case"]:
        del case["reference_file"], case["prediction_file"]
    return {**found, "warnings": len(found["warnings"])}


@pytest.mark.parametrize("shape", [(5, 9, 11), (1, 13, 14)], ids=["3d", "2d"])
@pytest.mark.parametrize(
    "content", [CLASSES, SPARSE, SETS, REGIONS, ABSENT, OBJECTS],
    ids=["classes", "sparse", "sets", "regions", "absent", "objects"],
)  # fmt: skip
def test_boxes_give_exactly_the_scores_of_the_whole_case(tmp_path, monkeypatch, shape, content):
    geometry = FLAT if shape[0] == 1 else SOLID
    reference, prediction = (values_of(content, shape, seed, is_reference=seed == 0) for seed in (0, 1))
    ending = ".tif" if geometry.ndim == 2 else ".nii.gz"
    content = {**content, "file_ending": ending}
    write(tmp_path / "whole/r" / f"c{ending}", reference, geometry)
    write(tmp_path / "whole/p" / f"c{ending}", prediction, geometry)
    write(tmp_path / "arrays/r" / f"c{ending}", reference, geometry)
    write(tmp_path / "arrays/p/c.zarr", prediction, geometry)
    write(tmp_path / "both/r/c.zarr", reference, geometry)
    write(tmp_path / "both/p/c.zarr", prediction, geometry)
    expected = scores(tmp_path / "whole", content, tolerance_mm=1.0)
    assert scores(tmp_path / "arrays", content, tolerance_mm=1.0) == expected
    monkeypatch.setattr(label_boxes, "BOX_VOXELS", 40)
    for kind in ("whole", "arrays", "both"):
        assert scores(tmp_path / kind, content, tolerance_mm=1.0) == expected


def masked(folder: Path, ending: str, reference: np.ndarray, mask: np.ndarray, prediction: np.ndarray) -> Path:
    """Return the folder of a data set with a valid mask, with its label map and a prediction."""
    (folder / "imagesTr").mkdir(parents=True)
    write(folder / f"labelsTr/c{ending}", reference)
    write(folder / f"masks/c{ending}", mask)
    write(folder / f"p/c{ending}", prediction)
    content = {**CLASSES, "valid_mask_folder": "masks", "cases": {"c": {"absent": ["b"]}}, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_masked_voxels_count_as_little_in_boxes_as_in_the_whole_case(tmp_path, monkeypatch):
    shape = (5, 9, 11)
    reference, prediction = (values_of(CLASSES, shape, seed, is_reference=False) for seed in (0, 1))
    mask = (np.random.default_rng(0).random(shape) < 0.5).astype(np.uint8)
    reference = np.where(mask, np.minimum(reference, 1), 9).astype(np.uint16)  # 9 is not declared
    found = []
    for ending in (".nii.gz", ".zarr"):
        folder = masked(tmp_path / ending[1:], ending, reference, mask, prediction)
        for n_voxels in (2**24, 30):
            monkeypatch.setattr(label_boxes, "BOX_VOXELS", n_voxels)
            summary = evaluate_folder(folder / "labelsTr", folder / "p", folder)
            assert not summary.faults
            found.append([(case.metrics, case.absent, case.scored_on) for case in summary.metric_per_case])
    assert found[0] == found[1] == found[2] == found[3]
    ((metrics, absent, _),) = found[0]
    assert metrics["1"].n_decided < mask.size
    assert absent["2"].voxels == np.count_nonzero(prediction == 2)  # absent outside of the mask, too


def test_an_empty_mask_and_one_of_another_shape_are_named(tmp_path):
    values = np.ones((2, 4, 4), dtype=np.uint8)
    folder = masked(tmp_path / "a", ".zarr", values, values[:1], values)
    with pytest.raises(EvaluationError, match=r"valid mask of case 'c': .*masks/c.zarr: found shape \(1, 4, 4\)"):
        evaluate_folder(folder / "labelsTr", folder / "p", folder)
    folder = masked(tmp_path / "b", ".zarr", values, 0 * values, values)
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "cases": {}}))
    with pytest.raises(EvaluationError, match=r"masks/c.zarr: found 0 everywhere, expected voxels above 0"):
        evaluate_folder(folder / "labelsTr", folder / "p", folder)


@pytest.mark.parametrize(
    "order", [VoxelOrder((2, 0, 1), (True, False, True)), VoxelOrder((0, 1, 2), (False, True, True))]
)
def test_a_turned_map_is_read_in_boxes_of_the_reference(tmp_path, monkeypatch, order):
    shape = (5, 9, 11)
    geometry = Geometry(spacing=SOLID.spacing, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    reference, prediction = (values_of(SPARSE, shape, seed, is_reference=seed == 0) for seed in (0, 1))
    for kind, turned, placed in (
        ("plain", prediction, geometry),
        ("turned", order.apply(prediction).copy(), order.turned(geometry, shape)),
    ):
        write(tmp_path / kind / "r/c.nii.gz", reference, geometry)
        write(tmp_path / kind / "p/c.nii.gz", turned, placed)
    expected = scores(tmp_path / "plain", SPARSE)
    monkeypatch.setattr(label_boxes, "BOX_VOXELS", 40)
    assert scores(tmp_path / "turned", SPARSE) == expected
    opened = open_label_boxes(tmp_path / "turned/p/c.nii.gz").turned(order.inverse)
    assert opened.shape == shape
    for box in blocks(Box.whole(shape), (2, 4, 5)):
        np.testing.assert_array_equal(opened.read(box), prediction[box.slices])


def test_references_of_numpy_are_compared_with_zarr(tmp_path):
    reference, prediction = (values_of(CLASSES, (2, 8, 12), seed, is_reference=False) for seed in (0, 1))
    write(tmp_path / "p/c.zarr", prediction)
    (tmp_path / "p/dataset.json").write_text(json.dumps({**CLASSES, "file_ending": ".zarr"}))
    (tmp_path / "r").mkdir()
    np.save(tmp_path / "r/c.npy", reference)
    (tmp_path / "r/c.json").write_text(json.dumps({"spacing": SOLID.spacing}))
    (case,) = evaluate_folder(tmp_path / "r", tmp_path / "p").metric_per_case
    assert case.metrics["1"].TP == np.sum((reference == 1) & (prediction == 1)) > 0


def test_hdf5_and_tiles_are_read_and_missing_tiles_do_not_count(tmp_path):
    shape = (2, 8, 12)
    reference, prediction = (values_of(CLASSES, shape, seed, is_reference=False) for seed in (0, 1))
    write(tmp_path / "p/c.h5", prediction)
    tile = {"depth": 2, "height": 8, "width": 12, "tile_size": [4, 6], "dtype": "uint8", "spacing": SOLID.spacing}
    (tmp_path / "r").mkdir()
    paths = [f"tiles/s{z}_{{row}}_{{column}}.png" for z in range(2)]
    (tmp_path / "r/c.json").write_text(json.dumps({**tile, "image": paths}))
    (tmp_path / "r/dataset.json").write_text(json.dumps(CLASSES))
    for z, y, x in np.ndindex(2, 2, 2):
        part = reference[z : z + 1, 4 * y : 4 * y + 4, 6 * x : 6 * x + 6].astype(np.uint8)
        write_labels(tmp_path / f"r/tiles/s{z}_{y}_{x}.png", part, FLAT)
    dense = evaluate_folder(tmp_path / "r", tmp_path / "p").metric_per_case[0]
    assert np.sum((reference == 1) & (prediction == 1)) == dense.metrics["1"].TP
    assert dense.scored_on == {"1": "dense", "2": "dense"}
    (tmp_path / "r/tiles/s1_0_1.png").unlink()
    case = evaluate_folder(tmp_path / "r", tmp_path / "p").metric_per_case[0]
    known = np.ones(shape, dtype=bool)
    known[1, :4, 6:] = False
    assert np.sum((reference == 1) & (prediction != 1) & known) == case.metrics["1"].FN
    assert case.metrics["1"].n_decided == known.sum()
    assert case.scored_on == {"1": "annotated voxels", "2": "annotated voxels"}


def test_missing_tiles_of_a_prediction_are_a_fault(tmp_path):
    write(tmp_path / "r/c.nii.gz", np.ones((1, 4, 4), dtype=np.uint8))
    (tmp_path / "p").mkdir()
    tiles = {"image": ["s/{row}_{column}.png"], "depth": 1, "height": 4, "width": 4, "tile_size": 2, "dtype": "uint8"}
    (tmp_path / "p/c.json").write_text(json.dumps(tiles))
    write_labels(tmp_path / "p/s/0_0.png", np.ones((1, 2, 2), dtype=np.uint8), FLAT)
    with pytest.raises(EvaluationError, match=r"c.json\): found missing tiles in .*, expected a class in every voxel"):
        evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES)


def test_no_more_than_a_box_is_read_at_once_and_every_voxel_once(tmp_path, monkeypatch):
    shape = (12, 20, 24)
    for kind, seed in (("r", 0), ("p", 1)):
        write(tmp_path / kind / "c.zarr", values_of(CLASSES, shape, seed, is_reference=False))
    read: dict[str, list[int]] = {"r": [], "p": []}
    plain = label_boxes.open_array

    def counting(path: Path, **options: bool) -> Any:
        array = plain(path, **options)

        def load(box: Box) -> Any:
            read[path.parent.name].append(box.n_voxels)
            return array.load(box)

        return replace(array, load=load)

    monkeypatch.setattr(label_boxes, "open_array", counting)
    monkeypatch.setattr(label_boxes, "BOX_VOXELS", 500)
    evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES)
    assert max(read["r"] + read["p"]) <= 500
    assert sum(read["r"]) == sum(read["p"]) == 12 * 20 * 24


@pytest.mark.parametrize("ending", [".nii", ".tif"])
def test_large_image_files_are_read_in_boxes_where_the_format_allows(tmp_path, monkeypatch, ending):
    content = {**SPARSE, "file_ending": ending}
    for kind, seed in (("r", 0), ("p", 1)):
        write(tmp_path / kind / f"c{ending}", values_of(SPARSE, (5, 9, 11), seed, is_reference=seed == 0))
    expected = scores(tmp_path, content)
    monkeypatch.setattr(label_boxes, "IN_MEMORY_VOXELS", 494)
    monkeypatch.setattr(label_boxes, "BOX_VOXELS", 100)
    monkeypatch.setattr(label_boxes, "read_labels", lambda *given, **options: pytest.fail("read whole"))
    assert scores(tmp_path, content) == expected


@pytest.mark.parametrize(
    ("shape", "chunks", "n_voxels", "expected"),
    [
        ((10, 100, 100), [(1, 100, 100)], 30_000, (3, 100, 100)),
        ((10, 100, 100), [(4, 32, 32), (2, 16, 64)], 8192, (4, 32, 64)),
        ((10, 100, 100), [(1, 100, 100)], 3000, (1, 50, 50)),
        ((1, 100, 100), [(64, 64, 64)], 10**9, (1, 100, 100)),
        ((3, 5, 7), [(1, 5, 7)], 1, (1, 1, 1)),
    ],
)
def test_boxes_are_whole_chunks_as_far_as_they_fit(shape, chunks, n_voxels, expected):
    assert box_shape(shape, chunks, n_voxels) == expected


def test_surface_scores_of_a_volume_that_is_too_large_are_refused(tmp_path, monkeypatch):
    for kind, seed in (("r", 0), ("p", 1)):
        write(tmp_path / kind / "c.zarr", values_of(CLASSES, (4, 8, 8), seed, is_reference=False))
    monkeypatch.setattr(case_scoring, "IN_MEMORY_VOXELS", 255)
    with pytest.raises(
        EvaluationError, match=r"case 'c' .*: found 256 voxels, expected at most 255 .*Leave out --surf"
    ):
        evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES, tolerance_mm=1.0)
    assert evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES).n_cases == 1


def test_other_shapes_and_spacings_of_arrays_are_named(tmp_path):
    values = np.ones((2, 4, 4), dtype=np.uint8)
    write(tmp_path / "r/c.nii.gz", values)
    write(tmp_path / "p/c.zarr", values[:, :3])
    with pytest.raises(EvaluationError, match=r"c.zarr\): found shape \(2, 3, 4\), expected \(2, 4, 4\)"):
        evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES)
    write(tmp_path / "q/c.zarr", values, Geometry(spacing=(2.0, 1.0, 1.0), origin=SOLID.origin))
    (warning,) = evaluate_folder(tmp_path / "r", tmp_path / "q", CLASSES).warnings
    assert "found spacing (2, 1, 1), expected spacing (2, 1, 0.5)" in warning
    assert "voxel by voxel" in warning


def test_a_prediction_without_directions_on_the_grid_of_its_image_has_no_warning(tmp_path):
    geometry = Geometry(spacing=(2.0, 1.0, 0.5), origin=(5.0, 6.0, 7.0), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1))
    values = np.ones((2, 4, 4), dtype=np.uint8)
    write(tmp_path / "r/c.nii.gz", values, geometry)
    write(tmp_path / "p/c.zarr", values, geometry)
    write(tmp_path / "p/probabilities/c.zarr", values, geometry)
    summary = evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES, strict=True)
    assert (summary.warnings, summary.extra, summary.n_cases) == ((), (), 1)


def test_undeclared_values_in_several_boxes_are_named_with_all_their_voxels(tmp_path, monkeypatch):
    values = np.zeros((4, 6, 6), dtype=np.uint16)
    values[0, 0, 0] = values[3, 5, 5] = 7
    write(tmp_path / "r/c.zarr", values)
    write(tmp_path / "p/c.zarr", np.zeros_like(values))
    monkeypatch.setattr(label_boxes, "BOX_VOXELS", 20)
    with pytest.raises(EvaluationError, match=r"reference of case 'c': found undeclared values 7 \(2 voxels\)"):
        evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES)


def test_tables_of_many_objects_are_added_in_any_grouping(tmp_path):
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 30, (2, 64, 40))
    tables = [Contingency.of(*rows) for rows in maps.swapaxes(0, 1)]
    parts = [CaseSums(tables={"1": table}, n_valid=40) for table in tables]
    stack: list[CaseSums] = []
    for part in parts:
        add_to(stack, part)
        assert len(stack) < 10
    total, whole = sum(reversed(stack), CaseSums()), Contingency.of(*maps)
    assert total.n_valid == 64 * 40
    for name in ("predicted", "reference", "voxels"):
        np.testing.assert_array_equal(getattr(total.tables["1"], name), getattr(whole, name))


def test_a_prediction_that_is_still_written_is_a_fault(tmp_path):
    values = np.ones((2, 4, 12), dtype=np.uint8)
    write(tmp_path / "r/c.zarr", values)
    write(tmp_path / "p/c.zarr", values)
    (tmp_path / "p/c.zarr/0/.done/0.0.1").unlink()
    with pytest.raises(EvaluationError, match=r"p/c.zarr: found a volume of which 1 of 2 shards are written"):
        evaluate_folder(tmp_path / "r", tmp_path / "p", CLASSES)
