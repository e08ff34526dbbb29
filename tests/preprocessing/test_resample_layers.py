"""Layers go the way of the image through preprocessing, each by the rule of its kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoseg.cases.case import Case, Target
from autoseg.cases.layers import Kind, Layer, LayerInfo, classes_layer
from autoseg.core.geometry import Geometry
from autoseg.preprocessing.pipeline import preprocess, restore
from autoseg.preprocessing.resample_layers import RESAMPLE, resample_layer

INSTANCES = LayerInfo(name="cells", kind=Kind.INSTANCES, dtype="uint32")


def a_case(shape, *, empty_border=True):
    """Three classes in blocks, an image that shows them, ids 1000 times as high, all with an empty border."""
    rng = np.random.default_rng(0)
    classes = np.zeros(shape, np.uint8)
    classes[:, 4:12, 3:9], classes[shape[0] // 2 :, 8:18, 10:16] = 1, 2
    image = (100 + 50.0 * classes + rng.normal(0, 1, shape)).astype(np.float32)
    if empty_border:
        image[:, :2] = image[:, :, -3:] = 0
    layers = (
        Layer(classes_layer("previous", 3), classes),
        Layer(INSTANCES, classes.astype(np.uint32) * 1000),
        Layer(LayerInfo(name="twin", kind=Kind.INTENSITY, dtype="float32"), image[None]),
        Layer(LayerInfo(name="other_target", kind=Kind.LABEL_SETS, dtype="uint8"), classes),
    )
    target = Target(classes, np.concatenate([np.eye(3, dtype=bool), np.ones((1, 3), bool)]), 3)
    return Case("a", image[None], Geometry(spacing=(3.0, 1.0, 1.5)), target, layers)


def test_every_kind_has_a_rule():
    assert set(RESAMPLE) == set(Kind)


@pytest.mark.parametrize("shape", [(1, 20, 20), (9, 20, 20)], ids=["2d", "3d"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (0, 2, 1)])
def test_layers_stay_aligned_with_image_and_target(make_plan, shape, transpose):
    plan = make_plan(transpose=transpose)
    plan = plan.model_copy(update={"direction": (0, 1, 0, 1, 0, 0, 0, 0, 1)})  # so that axes are exchanged, too
    case = a_case(shape)
    case = replace(case, geometry=case.geometry.model_copy(update={"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}))
    prepared = preprocess(case, plan, plan.configuration("2d" if shape[0] == 1 else "3d_fullres"), unknown=None)
    layers = {layer.info.name: layer.array for layer in prepared.layers}
    assert prepared.record.shape_after_crop != prepared.record.shape_before_crop
    assert all(array.shape[-3:] == prepared.record.shape for array in layers.values())
    assert np.array_equal(layers["previous"], prepared.codes)  # the rule of dense codes
    assert np.array_equal(layers["other_target"], prepared.codes)
    assert (layers["cells"] // 1000 == prepared.codes).mean() > 0.85  # along borders a vote is not the nearest voxel
    assert np.corrcoef(layers["twin"].ravel(), prepared.image.ravel())[0, 1] > 0.999


def test_the_grid_of_the_file_comes_back(make_plan):
    plan = make_plan(spacing=(3.0, 1.0, 1.5), transpose=(0, 2, 1)).model_copy(update={"transpose_backward": (0, 2, 1)})
    configuration = plan.configuration("3d_fullres").model_copy(update={"spacing": (3.0, 1.5, 1.0)})
    case = a_case((9, 20, 20))
    prepared = preprocess(case, plan, configuration, unknown=None)
    for before, after in zip(case.layers, prepared.layers, strict=True):
        inside = restore(np.ones(prepared.record.shape, bool), prepared.record)
        restored = restore(after.array, prepared.record)
        assert np.array_equal(restored[..., inside], before.array[..., inside])
        assert after.array.dtype.name == before.info.dtype and after.array.flags.c_contiguous


def test_a_layer_on_another_grid_than_the_image_is_refused():
    case = a_case((9, 20, 20))
    other = replace(case.layers[0], array=case.layers[0].array[1:])
    with pytest.raises(ValueError, match=r"case a: .*'previous' .*\(8, 20, 20\)"):
        replace(case, layers=(other,))


@pytest.mark.parametrize("shape", [(1, 9, 31), (5, 9, 31), (3, 20, 13)])
def test_resampling_instances_makes_no_new_id(shape):
    ids = np.random.default_rng(1).integers(0, 2**31 - 1, (5, 14, 20)).astype(np.uint32)
    moved = resample_layer(Layer(INSTANCES, ids), shape, None).array
    assert moved.shape == shape and moved.dtype == np.uint32
    assert set(moved.ravel()) <= set(ids.ravel())


def test_annotated_voxels_of_a_sparse_layer_win():
    codes = np.full((1, 8, 8), 3, np.uint8)
    codes[0, 2, 1:7] = 1
    info = LayerInfo(name="scribble", kind=Kind.LABEL_SETS, dtype="uint8", undrawn=3, outside=3)
    assert (resample_layer(Layer(info, codes), (1, 4, 4), None).array == 1).sum() >= 3
    dense = info.model_copy(update={"undrawn": None})
    assert (resample_layer(Layer(dense, codes), (1, 4, 4), None).array == 1).sum() < 3
