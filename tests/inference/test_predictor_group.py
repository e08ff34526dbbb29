"""Several model folders: the mean of their probabilities, of any configurations and orders of heads."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from observing import Recorder
from tiny_models import make_checkpoint

import autoseg
from autoseg.cases.case import Case
from autoseg.core.errors import ModelError
from autoseg.core.geometry import Geometry
from autoseg.inference import Predictor
from autoseg.inference.export import ProbabilitySlab
from autoseg.inference.mean_probabilities import mean_slabs
from autoseg.inference.predictor_group import PredictorGroup
from autoseg.io.images import read_labels
from autoseg.nn.architectures.registry import build_network
from autoseg.nn.checkpoint import save_checkpoint
from autoseg.preprocessing import restore

GEOMETRY = Geometry(spacing=(2.0, 1.0, 1.0))
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def write_model(folder, *, labels=None, order=None, folds=("0",), n_dims=3, spacing=(2.0, 1.0, 1.0), **further):
    """Write a model of tiny networks; ``labels`` are those of dataset.json, ``order`` the regions_class_order."""
    for fold in folds:
        made = make_checkpoint(fold, n_dims=n_dims, spacing=spacing)
        content = dict(made.dataset)
        if labels is not None:
            content["labels"] = labels
        if order is not None:
            content["regions_class_order"] = order
        weights = made.weights
        if len(content["labels"]) - ("ignore" in content["labels"]) != 2:  # one output per class
            configuration = next(iter(made.plan.configurations.values()))
            n_outputs = len(content["labels"]) - (order is not None)
            weights = build_network(configuration.topology, 1, n_outputs).state_dict()
        if "channel_names" in further:
            content["channel_names"] = further["channel_names"]
        plan_of = made.plan.model_copy(update={k: v for k, v in further.items() if k != "channel_names"})
        save_checkpoint(
            folder / f"fold_{fold}" / "checkpoint_final.pt",
            replace(made, dataset=content, plan=plan_of, weights=weights),
        )
    return folder


def load(folder, folds=None):
    return replace(Predictor.load(folder, folds, "cpu"), autocast_dtype=None)


def image(shape=(11, 18, 16), seed=0):
    values = np.random.default_rng(seed).uniform(1, 200, size=(1, *shape)).astype(np.float32)
    values[:, :2] = 0  # cropped
    return values


@pytest.fixture
def folders(tmp_path):
    """A 2-D model of two folds, and a 3-D model of another spacing, of the same data set."""
    return (
        write_model(tmp_path / "default__2d", n_dims=2, folds=("0", "1")),
        write_model(tmp_path / "default__3d_fullres", spacing=(3.1, 1.7, 1.4), folds=("all",)),
    )


@pytest.mark.parametrize("threaded", [False, True])
def test_several_models_predict_from_the_mean_of_their_probabilities(folders, threaded):
    single = [load(folder) for folder in folders]
    group, content, recorder = PredictorGroup(tuple(single)), Case("x", image(), GEOMETRY), Recorder(needs_members=True)
    expected = np.mean([item.predict_probabilities(content.image, GEOMETRY)[1] for item in single], axis=0)
    prepared = group.prepare(content)
    with ThreadPoolExecutor(1) as pool:
        labels = group.label_map(prepared, observers=[recorder], pool=pool if threaded else None)
    np.testing.assert_array_equal(labels, group.label_map(prepared))
    inside = restore(np.ones(prepared.record.shape_after_crop, bool), prepared.record)
    kept = restore(recorder.probabilities, prepared.record)
    np.testing.assert_allclose(kept[:, inside], expected[:, inside], atol=1e-5)
    clear = np.abs(expected[1] - expected[0]) > 1e-4
    np.testing.assert_array_equal(labels[clear], expected.argmax(axis=0)[clear])
    assert len(np.unique(labels)) == 2
    assert len(recorder.members) == 3  # two folds, and one network
    np.testing.assert_allclose(recorder.members[2], _alone(single[1], content), atol=1e-5)
    assert group.member_kind == "models and folds"


def _alone(predictor, content):
    group, recorder = PredictorGroup((predictor,)), Recorder(needs_members=False)
    group.label_map(group.prepare(content), observers=[recorder])
    return recorder.probabilities


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    from autoseg.io.images import write_values

    for number in range(2):
        write_values(folder / f"case{number}_0000.nii.gz", image(seed=number), GEOMETRY)
    return folder


def test_files_of_two_models_are_the_mean_of_the_files_of_each(folders, images, tmp_path):
    for name, model in (("a", folders[0]), ("b", folders[1]), ("both", list(folders))):
        report = autoseg.predict(images, tmp_path / name, model, device="cpu", save_probabilities=True)
        assert report.done == ("case0", "case1"), report
    for case in report.done:
        saved = {}
        for name in ("a", "b", "both"):
            with np.load(tmp_path / name / f"{case}.npz") as archive:
                saved[name] = archive["probabilities"]
        mean = (saved["a"] + saved["b"]) / 2
        np.testing.assert_allclose(saved["both"], mean, atol=1e-5)
        labels, _ = read_labels(tmp_path / "both" / f"{case}.nii.gz")
        clear = np.abs(mean[1] - mean[0]) > 1e-4
        np.testing.assert_array_equal(labels[clear], mean.argmax(axis=0)[clear])


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=["same order", "other order"])
@pytest.mark.parametrize("has_regions", [False, True], ids=["classes", "regions"])
def test_heads_are_matched_by_name(tmp_path, order, has_regions):
    """The second model is the first with heads in another order: their mean is the first."""
    values = REGIONS if has_regions else {"background": 0, "liver": 1, "tumour": 2}
    other = {name: values[name] for name in ([*values][index] for index in order)}
    for name, labels, painted in (("a", values, [1, 2]), ("b", other, [*order[1:]])):
        write_model(tmp_path / name, labels=labels, order=painted if has_regions else None)
    first, second = load(tmp_path / "a"), load(tmp_path / "b")
    heads = [[head.name for head in item.model.dataset.labels.heads] for item in (first, second)]
    assert (heads[0] == heads[1]) == (order == (0, 1, 2) or not has_regions)
    picked = [heads[0].index(name) for name in heads[1]]
    weights = first.model.networks[0].state_dict()
    weights = {name: value[picked] if name.startswith("heads.") else value for name, value in weights.items()}
    second.model.networks[0].load_state_dict(weights)
    content = Case("x", image(), GEOMETRY)
    group = PredictorGroup((first, second))
    np.testing.assert_array_equal(group.label_map(group.prepare(content)), first.predict_case(content))


THREE = {"background": 0, "organ": 1, "tumour": 2}
DIFFERENT = {
    "classes": ({}, {"labels": {"background": 0, "tumour": 1}}, r"other classes \(without organ, also tumour\)"),
    "values": (
        {"labels": THREE},
        {"labels": {"background": 0, "tumour": 1, "organ": 2}},
        r"other values of classes \(organ 2 instead of 1; tumour 1 instead of 2\)",
    ),
    "regions": (
        {"labels": REGIONS, "order": [1, 2]},
        {"labels": {"background": 0, "whole": [1, 2], "rim": [1]}, "order": [2, 1]},
        r"other regions \(without core, also rim\)",
    ),
    "voxels of regions": (
        {"labels": REGIONS, "order": [1, 2]},
        {"labels": {"background": 0, "whole": [1, 2], "core": [1]}, "order": [2, 1]},
        r"other values of regions \(core 1 instead of 2\)",
    ),
    "painting of regions": (
        {"labels": {"background": 0, "whole": [1, 2], "part": [1]}, "order": [1, 2]},
        {"labels": {"background": 0, "whole": [1, 2], "part": [1]}, "order": [2, 1]},
        r"another regions_class_order",
    ),
    "channels": ({}, {"channel_names": {"0": "T2"}}, r"other channels \(T2 instead of channel0\)"),
    "axes": ({}, {"transpose_forward": (1, 0, 2)}, "another order of the axes"),
    "crop": ({}, {"crop": False}, "another crop"),
}


@pytest.mark.parametrize(("first", "second", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_models_that_do_not_fit_are_refused_with_the_difference(tmp_path, first, second, message):
    write_model(tmp_path / "a", **first)
    write_model(tmp_path / "b", **second)
    with pytest.raises(ModelError, match=rf"b: found {message}.*than in .*a, expected models of one data set"):
        PredictorGroup((load(tmp_path / "a"), load(tmp_path / "b")))


def test_a_model_that_is_given_twice_is_refused(folders):
    with pytest.raises(ModelError, match="model folder twice"):
        PredictorGroup((load(folders[0]), load(folders[0])))
    with pytest.raises(ModelError, match="models: found none"):
        PredictorGroup(())


@pytest.mark.parametrize("sizes", [([5], [1, 4]), ([2, 3], [3, 2], [1, 1, 1, 2])])
def test_slabs_of_any_sizes_are_cut_to_common_planes(sizes):
    whole = np.random.default_rng(0).uniform(size=(len(sizes), 2, 5, 3, 4)).astype(np.float32)

    def slabs(values, planes):
        first = 0
        for n_planes in planes:
            part = values[:, first : first + n_planes]
            yield ProbabilitySlab(first, part, (part, 1 - part))
            first += n_planes

    streams = [slabs(values, planes) for values, planes in zip(whole, sizes, strict=True)]
    heads = [(0, 1), (1, 0), (0, 1)][: len(sizes)]
    found = list(mean_slabs(streams, heads))
    assert [slab.first for slab in found] == [0, *(slab.stop for slab in found[:-1])]
    turned = np.stack([values[list(order)] for values, order in zip(whole, heads, strict=True)])
    np.testing.assert_allclose(np.concatenate([slab.mean for slab in found], axis=1), turned.mean(axis=0), rtol=1e-6)
    members = [np.concatenate(own, axis=1) for own in zip(*(slab.members for slab in found), strict=True)]
    for index, values in enumerate(turned):
        np.testing.assert_array_equal(members[2 * index], values)
        np.testing.assert_array_equal(members[2 * index + 1], 1 - values)


def test_no_model_is_more_than_a_slab_ahead():
    made = [0, 0]

    def slabs(model, planes):
        for first in range(0, 12, planes):
            made[model] = first + planes
            yield ProbabilitySlab(first, np.zeros((2, planes, 3, 3), np.float32))

    for slab in mean_slabs([slabs(0, 1), slabs(1, 4)], [(0, 1), (0, 1)]):
        assert made[0] == slab.stop and made[1] - slab.stop < 4
    assert made == [12, 12]


def test_a_broken_stream_closes_the_others():
    closed = []

    def slabs(n_planes, *, breaks):
        try:
            for first in range(n_planes):
                if breaks and first == 2:
                    raise RuntimeError("out of memory")
                yield ProbabilitySlab(first, np.zeros((2, 1, 3, 3), np.float32))
        finally:
            closed.append(breaks)

    with pytest.raises(RuntimeError, match="out of memory"):
        list(mean_slabs([slabs(5, breaks=False), slabs(5, breaks=True)], [(0, 1), (0, 1)]))
    assert sorted(closed) == [False, True]


def test_the_outputs_of_several_models_name_the_first(folders, images, tmp_path):
    autoseg.predict(images, tmp_path / "out", folders, device="cpu")
    plan = json.loads((tmp_path / "out" / "plans.json").read_text())
    assert [*plan["configurations"]] == ["2d"]
