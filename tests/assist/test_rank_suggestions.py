from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from autoseg.assist.suggest import Units, default_patch, load_maps, members_of, rank
from autoseg.assist.suggest_case import Selection
from autoseg.core.errors import AutosegError, ConfigError, ModelError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.inference.out_of_fold import CaseModels
from autoseg.io.images import write_labels

SHAPE = (6, 12, 10)


@pytest.fixture
def trained(model_folder):
    """A model folder with two finished folds that trained on each other's case."""
    for fold, train, val in (("0", ["a"], ["b"]), ("1", ["b"], ["a"])):
        content = {"train_cases": [*train, "both"], "val_cases": val}
        (model_folder / f"fold_{fold}" / "training.json").write_text(json.dumps(content))
    return model_folder


def labels_with(ignore=2, **more):
    content = {
        "channel_names": {"0": "channel0"}, "labels": {"background": 0, "organ": 1, "ignore": ignore},
        "numTraining": 1, "file_ending": ".nii.gz",
    }  # fmt: skip
    return Dataset.from_json(content | more, name="toy", folder=None).labels


def write_case(folder, name, *, annotated=(), shape=SHAPE, broken=False):
    geometry = Geometry(spacing=(2, 1, 1))
    image = np.random.default_rng(len(name)).integers(1, 200, shape).astype(np.uint8)
    labels = np.full(shape, 2, dtype=np.uint8)
    labels[list(annotated)] = 0
    write_labels(folder / f"{name}_0000.nii.gz", image, geometry)
    write_labels(folder / f"{name}.nii.gz", labels[:-1] if broken else labels, geometry)
    return CaseFiles(name, (folder / f"{name}_0000.nii.gz",), folder / f"{name}.nii.gz")


def test_a_case_is_predicted_by_the_folds_that_did_not_train_on_it(trained, caplog):
    assert members_of(trained, ["a", "b", "new"]) == {"a": ("1",), "b": ("0",), "new": ("0", "1")}
    assert not caplog.records
    assert members_of(trained, ["both", "b"]) == {"both": ("0", "1"), "b": ("0",)}
    assert "1 cases are predicted by folds that were trained on them" in caplog.text
    assert members_of(trained, ["a"], ["0"]) == {"a": ("0",)}
    with pytest.raises(ModelError, match="no finished fold 7"):
        members_of(trained, ["a"], ["7"])


@pytest.mark.parametrize("read_ahead", [False, True])
def test_annotated_slices_are_not_suggested(trained, tmp_path, read_ahead):
    cases = {"a": write_case(tmp_path, "a", annotated=[0, 3]), "b": write_case(tmp_path, "b")}
    cases["new"] = replace(write_case(tmp_path, "new"), label=None)
    models = CaseModels(trained, members_of(trained, list(cases)), "cpu", mirror=False)
    seen = []
    ranking = rank(
        cases, models, labels_with(), Units(), Selection(16, case_share=1.0), maps=tmp_path / "maps",
        read_ahead=read_ahead, progress=lambda done, total, name: seen.append((done, total, name)),
    )  # fmt: skip
    assert ranking.n_candidates == 4 + 6 + 6
    places = {(item.case, item.low[0]) for item in ranking.suggestions}
    assert len(places) == len(ranking.suggestions) == 16
    assert not places & {("a", 0), ("a", 3)}
    assert seen == [(1, 3, "b"), (2, 3, "new"), (3, 3, "a")]
    assert [item.rank for item in ranking.suggestions] == list(range(1, 17))
    maps = load_maps(tmp_path / "maps", "a")
    assert maps.entropy.shape == maps.labels.shape == SHAPE
    assert not maps.is_open[[0, 3]].any()
    first = ranking.suggestions[0].as_json()
    assert first["axis"] == "z"
    assert first["box"]["x"] == [0, 9]
    assert first["slice"] == first["box"]["z"][0]


def test_what_promises_settle_is_not_suggested(trained, tmp_path):
    cases = {"a": write_case(tmp_path, "a", annotated=[0])}
    models = CaseModels(trained, members_of(trained, ["a"]), "cpu", mirror=False)
    labels = labels_with()

    def left(case):
        codes = case.target.codes.copy()
        codes[4:] = 0  # a promise that nothing but background lies there
        return replace(case.target, codes=codes)

    ranking = rank(cases, models, labels, Units(), Selection(9, case_share=1.0), left=left)
    assert {item.low[0] for item in ranking.suggestions} == {1, 2, 3}


def test_patches_are_of_the_size_asked_for_and_do_not_overlap(trained, tmp_path):
    cases = {"a": write_case(tmp_path, "a")}
    models = CaseModels(trained, members_of(trained, ["a"]), "cpu", mirror=False)
    units = Units("patch", patch_size=(3, 20, 5))
    ranking = rank(cases, models, labels_with(), units, Selection(9, case_share=1.0))
    covered = np.zeros(SHAPE, dtype=int)
    for item in ranking.suggestions:
        assert item.axis is None
        box = tuple(slice(low, high) for low, high in zip(item.low, item.high, strict=True))
        assert covered[box].shape == (3, 12, 5)
        covered[box] += 1
    assert covered.max() == 1
    assert 2 <= len(ranking.suggestions) <= 4


@pytest.mark.parametrize(("n_dims", "expected"), [(3, (2, 8, 4)), (2, (1, 8, 4))])
def test_the_default_patch_is_half_of_what_the_network_sees(checkpoint_maker, n_dims, expected):
    plan = checkpoint_maker(n_dims=n_dims).plan
    configuration = next(iter(plan.configurations.values()))
    assert configuration.patch_size == (8,) * n_dims
    geometry = Geometry(spacing=(4.0, 0.5, 1.0))
    assert default_patch(geometry, plan, configuration) == expected


def test_a_case_that_cannot_be_read_does_not_stop_the_others(trained, tmp_path):
    cases = {"a": write_case(tmp_path, "a"), "b": write_case(tmp_path, "b", broken=True)}
    models = CaseModels(trained, members_of(trained, list(cases)), "cpu", mirror=False)
    ranking = rank(cases, models, labels_with(), Units(), Selection(2))
    assert list(ranking.failed) == ["b"]
    assert "(5, 12, 10)" in ranking.failed["b"]
    assert {item.case for item in ranking.suggestions} == {"a"}
    only = {"b": cases["b"]}
    models = CaseModels(trained, members_of(trained, ["b"]), "cpu")
    with pytest.raises(AutosegError, match="none of 1 cases could be predicted"):
        rank(only, models, labels_with(), Units(), Selection(2))


def test_where_everything_is_annotated_there_is_nothing_to_suggest(trained, tmp_path):
    cases = {"a": write_case(tmp_path, "a", annotated=range(6))}
    models = CaseModels(trained, members_of(trained, ["a"]), "cpu", mirror=False)
    with pytest.raises(ConfigError, match="every slice of 1 cases"):
        rank(cases, models, labels_with(), Units(), Selection(2))


def test_a_model_of_other_classes_is_refused(trained, tmp_path):
    cases = {"a": write_case(tmp_path, "a")}
    models = CaseModels(trained, members_of(trained, ["a"]), "cpu")
    other = labels_with(labels={"background": 0, "liver": 1, "ignore": 2})
    with pytest.raises(ModelError, match="model of the classes background, organ"):
        rank(cases, models, other, Units(), Selection(2))


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_flat_image_is_one_slice_whatever_the_axis(trained, axis):
    model = next(CaseModels(trained, {"a": ("0",)}, "cpu").predictors()).model
    flat = Geometry(spacing=(999.0, 1.0, 1.0), ndim=2)
    grid = Units("slice", axis).grid((1, 12, 10), flat, model.plan, model.configuration)
    assert (grid.shape, grid.edges, grid.axis) == ((1, 1, 1), (1, 12, 10), 0)
    thin = Geometry(spacing=(0.6, 0.8, 0.8))
    assert Units("slice", axis).grid(SHAPE, thin, model.plan, model.configuration).axis == (axis or 0)
