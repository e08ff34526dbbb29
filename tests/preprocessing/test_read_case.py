"""A box of a volume is read with its context, of which nothing is known but the image."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from autoseg.cases.layers import OBJECTS
from autoseg.core.boxes import Box
from autoseg.core.errors import DatasetError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.arrays import open_volume
from autoseg.preprocessing import volume_size
from autoseg.preprocessing.context import PREDICTED_CONTEXT, TRAINED_CONTEXT, context_margin
from autoseg.preprocessing.file_point import point_in_file
from autoseg.preprocessing.normalize import normalized_box
from autoseg.preprocessing.pipeline import preprocess, restore
from autoseg.preprocessing.read_case import infer_case, read_case, read_unlabelled
from autoseg.preprocessing.volume_statistics import volume_statistics

SHAPE = (20, 40, 50)
BOX = Box((4, 15, 0), (12, 35, 18))
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 200, SHAPE).astype(np.uint8)
LABELS = RNG.integers(0, 3, SHAPE).astype(np.uint8)
SPACING = (2.0, 1.0, 1.0)


def dataset_of(folder: Path, drawn=LABELS, **keys: Any) -> Dataset:
    np.save(folder / "v.npy", VOLUME)
    np.save(folder / "l.npy", drawn)
    (folder / "v.json").write_text(json.dumps({"spacing": SPACING}))
    spans = [list(span) for span in zip(BOX.start, BOX.stop, strict=True)]
    content = {
        "channel_names": {"0": "EM"}, "labels": {"background": 0, "a": 1, "b": 2},
        "boxes": {"box": {"image": "v.npy", "box": spans, "label": "l.npy"}},
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content | keys))
    return Dataset.load(folder)


def grown(margin) -> Box:
    return BOX.grown(margin).intersection(Box.whole(SHAPE))


def test_the_context_is_a_share_of_the_patch_in_voxels_of_the_volume(make_plan):
    plan = make_plan(transpose=(1, 0, 2), spacing=(1.0, 4.0, 3.0))  # plan's axes: y, z, x
    geometry = Geometry(spacing=SPACING)
    full, flat = plan.configuration("3d_fullres"), plan.configuration("2d")
    assert context_margin(plan, full, geometry, 0.75) == (12, 6, 18)  # 6 voxels of 4 mm (z), 1 mm (y), 3 mm (x)
    assert context_margin(plan, flat, geometry, 0.75) == (12, 0, 18)  # its slices lie across y
    assert context_margin(plan, full, geometry, 0.25) == (4, 2, 6)


@pytest.mark.parametrize("name", ["3d_fullres", "2d"])
def test_a_box_is_read_with_its_context_as_far_as_the_volume_goes(tmp_path, make_plan, name):
    dataset = dataset_of(tmp_path)
    plan = make_plan()
    configuration = plan.configuration(name)
    case = read_case(dataset.case("box"), dataset.labels, (plan, configuration))
    margin = context_margin(plan, configuration, case.geometry, TRAINED_CONTEXT)
    assert margin == ((6 if name == "3d_fullres" else 0), 6, 6)
    read = grown(margin)
    assert case.box == BOX.relative_to(read)
    assert np.array_equal(case.image[0], VOLUME[read.slices])
    assert np.array_equal(case.own_image[0], VOLUME[BOX.slices])
    assert np.array_equal(case.target.codes[case.box.slices], LABELS[BOX.slices])
    outside = np.ones(read.shape, bool)
    outside[case.box.slices] = False
    assert (case.target.codes[outside] == dataset.labels.unknown).all()
    assert case.target.label_sets[dataset.labels.unknown].all()
    assert case.geometry.origin == (0, 15, 8)
    assert case.statistics == volume_statistics(open_volume([tmp_path / "v.npy"]))
    to_predict = read_unlabelled("box", dataset.case("box").images, [(plan, configuration)])
    assert to_predict.box == BOX.relative_to(
        grown(context_margin(plan, configuration, case.geometry, PREDICTED_CONTEXT))
    )
    assert to_predict.image.dtype == np.float32 and np.array_equal(to_predict.own_image, case.own_image)
    alone = read_case(dataset.case("box"), dataset.labels)
    assert alone.box is None and np.array_equal(alone.image, case.own_image)


def test_a_case_that_is_too_large_for_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    dataset = dataset_of(tmp_path)
    monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", BOX.n_voxels)
    assert read_case(dataset.case("box"), dataset.labels).image.shape[1:] == BOX.shape
    monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", BOX.n_voxels - 1)
    with pytest.raises(DatasetError, match=r"case 'box': found a case of more than .* Give boxes"):
        read_case(dataset.case("box"), dataset.labels)


def test_what_is_said_of_a_case_is_not_said_of_its_context(tmp_path, make_plan):
    labels = np.where(LABELS == 2, 9, LABELS).astype(np.uint8)
    keys = {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 9}, "cases": {"box": {"absent": ["b"]}}}
    dataset = dataset_of(tmp_path, labels, **keys)
    plan = make_plan()
    case = read_case(dataset.case("box"), dataset.labels, (plan, plan.configuration("3d_fullres")))
    undrawn = case.target.codes[case.box.slices][labels[BOX.slices] == 9]
    assert (undrawn == case.target.undrawn).all()
    assert case.target.label_sets[case.target.undrawn].tolist() == [True, True, False]
    assert case.target.codes[0, 0, 0] == dataset.labels.unknown
    promise = AnnotationProtocol(reach_mm={1: 2.0})
    inference = infer_case(case, dataset.labels, promise)
    alone = infer_case(read_case(dataset.case("box"), dataset.labels), dataset.labels, promise)
    assert np.array_equal(inference.codes[case.box.slices], alone.codes)
    inference.codes[case.box.slices] = 0
    assert not inference.codes.any() and inference.label_sets[0].all()


def test_context_has_no_numbers_and_no_objects(tmp_path, make_plan):
    plan = make_plan()
    grid = (plan, plan.configuration("3d_fullres"))
    dataset = dataset_of(tmp_path, task="instances", labels={"background": 0, "cell": 1})
    case = read_case(dataset.case("box"), dataset.labels, grid)
    (layer,) = case.layers
    assert layer.info.name == OBJECTS
    assert np.array_equal(layer.array[case.box.slices], LABELS[BOX.slices])
    layer.array[case.box.slices] = 0
    assert not layer.array.any()


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("spacing", [SPACING, (3.0, 0.7, 1.4)])
def test_a_box_is_normalised_as_its_volume_and_comes_back_without_its_context(tmp_path, make_plan, transpose, spacing):
    dataset = dataset_of(tmp_path)
    plan = make_plan(transpose=transpose, spacing=tuple(spacing[axis] for axis in transpose))
    configuration = plan.configuration("3d_fullres")
    case = read_case(dataset.case("box"), dataset.labels, (plan, configuration))
    prepared = preprocess(case, plan, configuration, unknown=case.target.undrawn)
    record = prepared.record
    assert record.shape_before_crop == record.shape_after_crop == tuple(BOX.shape[axis] for axis in transpose)
    own = record.own_box
    assert own.is_within(record.shape)
    assert (prepared.codes[own.slices] != case.target.undrawn).all()  # annotated where its centre lies in the box
    if spacing == SPACING:
        whole = normalized_box(VOLUME[None], plan, configuration, case.statistics)[0]
        turned = record.voxel_order.apply(whole[BOX.slices])
        np.testing.assert_array_equal(prepared.image[0][own.slices], turned)
        back = restore(prepared.codes[own.slices], record)
        assert np.array_equal(back, LABELS[BOX.slices])
        for corner in product(*zip(BOX.start, BOX.stop, strict=True)):
            point = np.subtract(corner, BOX.start)
            inside = record.voxel_order.permuted(point)
            on_grid = np.add(inside, record.context_low)
            assert point_in_file(record, on_grid) == tuple(point)


def test_missing_tiles_are_unknown_whatever_the_labels_say(tmp_path, make_plan):
    (tmp_path / "tiles").mkdir()
    for z in range(2):
        tifffile.imwrite(tmp_path / f"tiles/{z}_0_0.tif", np.full((4, 6), 7 + z, np.uint8))
    tifffile.imwrite(tmp_path / "tiles/0_0_1.tif", np.full((4, 6), 9, np.uint8))
    tiles = {
        "image": [f"tiles/{z}_{{row}}_{{column}}.tif" for z in range(2)], "depth": 2, "height": 4, "width": 12,
        "tile_size": [4, 6],
    }  # fmt: skip
    (tmp_path / "tiles.json").write_text(json.dumps(tiles))
    np.save(tmp_path / "l.npy", np.ones((2, 4, 12), np.uint8))
    content = {
        "channel_names": {"0": "EM"}, "labels": {"background": 0, "a": 1},
        "boxes": {"t": {"image": "tiles.json", "label": "l.npy", "box": [[0, 2], [0, 4], [3, 12]]}},
    }  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(tmp_path)
    case = read_case(dataset.case("t"), dataset.labels)
    assert (case.target.codes[0] == 1).all() and (case.target.codes[1, :, :3] == 1).all()
    assert (case.target.codes[1, :, 3:] == case.target.undrawn).all()
