"""Predictions of models with affinities, parted by the mutex watershed where settings or the command say so."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from bioimage_cpp import segmentation
from exact_affinities import FLAT, MUTEX, predictor
from objects import draw_objects

from autoseg.cases.case import Case
from autoseg.core.errors import AutosegError, ConfigError, ModelError
from autoseg.core.geometry import Geometry
from autoseg.core.orientation import VoxelOrder
from autoseg.evaluation.instances import match_instances
from autoseg.inference.predict_group import predict_group
from autoseg.inference.predict_images import predict_images
from autoseg.inference.predictor_group import PredictorGroup, separation_of
from autoseg.io.images import read_labels, write_labels
from autoseg.tasks.separation import SeparationSettings


def drawn(n_dims):
    return draw_objects((1, 40, 44) if n_dims == 2 else (14, 24, 24), 5.0, 1)


@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_exact_affinities_in_many_mirrored_windows_are_parted_into_the_objects(n_dims, n_models, tmp_path):
    own = [predictor(tmp_path / str(index), n_dims, separation=MUTEX) for index in range(n_models)]
    objects, group = drawn(n_dims), PredictorGroup(tuple(own))
    image = objects[None].astype(np.float32)
    geometry = Geometry(spacing=own[0].model.plan.original_median_spacing, ndim=n_dims)
    found = own[0].predict_array(image, geometry) if n_models == 1 else averaged(group, image, geometry)
    assert own[0].is_mirrored and match_instances(found, objects).average_precision() == 1
    np.testing.assert_array_equal(found > 0, objects > 0)
    assert not own[0].predict_array(np.zeros_like(image), geometry).any()


def averaged(group, image, geometry):
    return group.label_map(group.prepare(Case("x", image, geometry)))


@pytest.mark.parametrize(
    "order", [VoxelOrder((1, 2, 0), (False, True, False)), VoxelOrder((2, 0, 1), (True, False, True))], ids=str
)
def test_slices_along_any_axis_of_the_file_are_parted_each_by_itself(order, tmp_path):
    own = predictor(tmp_path, 2, separation=MUTEX)
    geometry = Geometry(spacing=(3.0, 1.0, 1.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    directed = own.model.plan.model_copy(update={"direction": geometry.direction})
    group = PredictorGroup((replace(own, model=replace(own.model, plan=directed)),))
    objects = np.concatenate([draw_objects((1, 40, 44), 3.0, seed) for seed in range(3)])
    objects[1, :, :6] = 0
    found = averaged(group, order.apply(objects[None].astype(np.float32)), order.turned(geometry, objects.shape))
    alone = [np.unique(plane[plane > 0]) for plane in order.invert(found)]
    for plane, expected in zip(order.invert(found), objects, strict=True):
        assert match_instances(plane[None], expected[None]).average_precision() == 1
        np.testing.assert_array_equal(plane > 0, expected > 0)
    assert len(np.concatenate(alone)) == len(np.unique(found)) - 1 > 30


@pytest.mark.parametrize("instances", ["mutex", "watershed", None])
def test_the_command_chooses_how_label_maps_are_parted_and_writes_nothing_else(instances, tmp_path, monkeypatch):
    objects, used = drawn(2), []
    own = predictor(tmp_path / "m", 2)
    write_labels(tmp_path / "in" / "c_0000.nii.gz", objects, Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    group = PredictorGroup((own,))
    plain = segmentation.mutex_watershed
    monkeypatch.setattr(segmentation, "mutex_watershed", lambda *args, **keys: used.append(1) or plain(*args, **keys))
    report = predict_group(group, tmp_path / "in", tmp_path / "out", instances=instances, workers=0)
    assert not report.failed and len(used) == (instances == "mutex") and not (tmp_path / "out" / "instances").exists()
    found, _ = read_labels(tmp_path / "out" / "c.nii.gz")
    assert match_instances(found, objects).average_precision() == 1


def test_methods_that_do_not_fit_the_models_are_refused_before_anything_is_predicted(tmp_path, monkeypatch):
    own = predictor(tmp_path / "a", 2)
    group = PredictorGroup((own,))
    for method, match in (("fish", "expected one of watershed, mutex"), ("cellpose", "expected watershed or mutex")):
        with pytest.raises(ConfigError, match=match):
            predict_group(group, tmp_path, tmp_path / "out", instances=method)
    boundaries = predictor(tmp_path / "b", 2, offsets=())
    with pytest.raises(ModelError, match=r"found a model of boundaries.*separation\.json"):
        PredictorGroup((boundaries,), MUTEX)
    with pytest.raises(ConfigError, match="already hold objects"):
        predict_group(PredictorGroup((boundaries,)), tmp_path, tmp_path / "out", instances="mutex")
    for n_dims, offsets, match in ((2, FLAT[:2], "a longer one along y"), (3, FLAT, "one of one voxel along z")):
        with pytest.raises(ConfigError, match=f"found the affinities .*expected also {match}"):
            PredictorGroup((predictor(tmp_path / f"few{n_dims}", n_dims, offsets),), MUTEX)
    other = predictor(tmp_path / "c", 2)
    configuration = other.model.configuration.model_copy(update={"spacing": (2.0, 2.0)})
    other = replace(other, model=replace(other.model, configuration=configuration))
    with pytest.raises(ModelError, match=r"found the spacing \(2\.0, 2\.0\) mm, expected \(1\.0, 1\.0\) mm"):
        PredictorGroup((own, other), MUTEX)
    assert separation_of(PredictorGroup((own, other))) == SeparationSettings()
    monkeypatch.setitem(sys.modules, "bioimage_cpp.segmentation", None)
    with pytest.raises(ConfigError, match=r"pip install 'autoseg\[mutex\]'"):
        predict_group(group, tmp_path, tmp_path / "out", instances="mutex")


@pytest.mark.parametrize("lacks", ["offsets", "package", "one grid"])
def test_models_that_cannot_be_parted_by_mutex_are_by_the_watershed_as_the_message_says(lacks, tmp_path, monkeypatch):
    own = predictor(tmp_path / "a", 2, FLAT[:2] if lacks == "offsets" else None, separation=MUTEX)
    models, objects = [own], drawn(2)
    if lacks == "package":
        monkeypatch.setitem(sys.modules, "bioimage_cpp.segmentation", None)
    if lacks == "one grid":
        configuration = own.model.configuration.model_copy(update={"spacing": (2.0, 2.0)})
        other = predictor(tmp_path / "b", 2)
        models.append(replace(other, model=replace(other.model, configuration=configuration)))
    write_labels(tmp_path / "in" / "c_0000.nii.gz", objects, Geometry(spacing=(999.0, 1.0, 1.0), ndim=2))
    for method in (None, "mutex"):
        with pytest.raises(AutosegError):
            predict_images(tmp_path / "in", tmp_path / "out", models, instances=method, workers=0)
    report = predict_images(tmp_path / "in", tmp_path / "out", models, instances="watershed", workers=0)
    assert not report.failed and read_labels(tmp_path / "out" / "c.nii.gz")[0].max() > 5
