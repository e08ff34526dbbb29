from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from autoseg.assist.complete import CompletionOptions, complete_dataset
from autoseg.assist.complete_files import write_disagreements
from autoseg.core.errors import ConfigError, ModelError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.images import read_labels, write_labels
from autoseg.nn.checkpoint import save_checkpoint

CASES = ("a", "b", "c")
FOLDS = {"a": "0", "b": "1", "c": "0"}
QUICK = CompletionOptions(device="cpu", mirror=False)
GEOMETRIES = {
    3: Geometry(spacing=(2.5, 0.8, 1.0), origin=(3.0, -4.0, 5.0)),
    2: Geometry(spacing=(999.0, 0.8, 1.0), origin=(0.0, -4.0, 5.0), ndim=2),
}


def write_source(folder, n_dims=3, ending=".nii.gz", **extra):
    """Write cases with random annotation; the spacing is not the plan's, so logits are resampled."""
    shape = (6, 11, 9) if n_dims == 3 else (1, 11, 9)
    for index, name in enumerate(CASES):
        rng = np.random.default_rng(index)
        image = rng.integers(1, 200, shape).astype(np.uint8)
        image[:, :2] = 0  # an empty border, which is cropped
        drawn = rng.choice([0, 1, 2, 2, 2], shape).astype(np.uint8)
        write_labels(folder / "imagesTr" / f"{name}_0000{ending}", image, GEOMETRIES[n_dims])
        write_labels(folder / "labelsTr" / f"{name}{ending}", drawn, GEOMETRIES[n_dims])
    content = {
        "channel_names": {"0": "channel0"}, "labels": {"background": 0, "organ": 1, "ignore": 2},
        "file_ending": ending, "numTraining": 3, **extra,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source")


def assert_every_drawn_voxel_is_kept(source, output):
    completed = Dataset.load(output)
    assert completed.labels.is_dense
    assert completed.case_names == source.case_names
    for files in source.cases:
        drawn, geometry = read_labels(files.label)
        made, made_geometry = read_labels(completed.case(files.name).label)
        assert made.max() <= 1
        np.testing.assert_array_equal(made[drawn != 2], drawn[drawn != 2])
        assert not made_geometry.differs_from(geometry)
        assert completed.case(files.name).images[0].resolve() == files.images[0].resolve()


@pytest.mark.parametrize(("n_dims", "ending"), [(3, ".nii.gz"), (3, ".nrrd"), (2, ".mha"), (2, ".png")], ids=str)
def test_every_drawn_voxel_of_every_case_is_in_the_new_data_set(tmp_path, checkpoint_maker, n_dims, ending):
    source = write_source(tmp_path / "source", n_dims, ending)
    model = tmp_path / "default__x"
    spacing = (2.0, 1.0, 1.0) if n_dims == 3 else (999.0, 1.0, 1.0)
    for fold in "01":
        checkpoint = checkpoint_maker(fold, n_dims=n_dims, ending=ending, spacing=spacing)
        save_checkpoint(model / f"fold_{fold}" / "checkpoint_final.pt", checkpoint)
    calls = []
    report = complete_dataset(source, model, FOLDS, tmp_path / "new", QUICK, progress=lambda *call: calls.append(call))
    assert sorted(report.done) == list(CASES)
    assert report.disagreements is None
    assert calls[-1][:2] == (3, 3)
    assert_every_drawn_voxel_is_kept(source, tmp_path / "new")
    assert not list((tmp_path / "new").rglob(".*"))


def test_what_made_the_data_set_sparse_is_gone_from_dataset_json(tmp_path, model_folder):
    said = {"a": {"absent": ["organ"], "group": "p", "priority": 2}, "b": {"annotated": ["organ"]}}
    source = write_source(tmp_path / "source", cases=said, label_sets={"3": ["background", "organ"]}, reference="x")
    complete_dataset(source, model_folder, FOLDS, tmp_path / "new", QUICK)
    content = json.loads((tmp_path / "new" / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "organ": 1}
    assert content["cases"] == {"a": {"group": "p", "priority": 2}}
    assert content["reference"] == "x"
    assert not {"label_sets", "annotation_protocol"} & set(content)
    drawn, made = (read_labels(tmp_path / folder / "labelsTr" / "a.nii.gz")[0] for folder in ("source", "new"))
    assert (made[drawn == 2] == 0).all()  # where nothing was drawn the organ is absent


def test_what_annotators_promise_narrows_what_the_model_may_say(tmp_path, model_folder):
    source = write_source(tmp_path / "source", annotation_protocol={"reach_mm": 1.0})
    drawn, geometry = read_labels(source.case("a").label)
    sparse = np.full_like(drawn, 2)
    sparse[3, 5, 4:6] = 1
    write_labels(source.case("a").label, sparse, geometry)
    made = {}
    free = replace(source, protocol=AnnotationProtocol())
    for name, dataset in {"promised": source, "free": free}.items():
        complete_dataset(dataset, model_folder, FOLDS, tmp_path / name, QUICK)
        made[name] = read_labels(tmp_path / name / "labelsTr" / "a.nii.gz")[0] == 1
    z, y, x = np.nonzero(made["promised"])
    assert set(z) == {3}  # slices are 2.5 mm apart
    assert set(y) <= {4, 5, 6}  # 0.8 mm
    assert set(x) <= {3, 4, 5, 6}  # 1 mm
    assert made["free"].sum() > 4 * made["promised"].sum()
    assert made["promised"][3, 5, 4:6].all()


def test_files_of_several_formats_are_listed_one_by_one(tmp_path, model_folder):
    source = write_source(tmp_path / "source")
    drawn, geometry = read_labels(source.case("a").label)
    write_labels(tmp_path / "elsewhere.nrrd", drawn.astype(np.uint8), geometry)
    listed = {
        name: {"images": [f"imagesTr/{name}_0000.nii.gz"], "label": f"labelsTr/{name}.nii.gz"} for name in CASES
    } | {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": str(tmp_path / "elsewhere.nrrd")}}
    source = write_source(tmp_path / "source", dataset=listed)
    complete_dataset(source, model_folder, FOLDS, tmp_path / "new", QUICK)
    assert_every_drawn_voxel_is_kept(source, tmp_path / "new")
    assert (tmp_path / "new" / "labelsTr" / "a.nrrd").is_file()


def test_a_run_goes_on_and_keeps_what_was_corrected_since(source, model_folder, tmp_path, caplog):
    output = tmp_path / "new"
    complete_dataset(source, model_folder, FOLDS, output, QUICK)
    (output / "labelsTr" / "b.nii.gz").unlink()  # as if killed before it was written
    corrected, geometry = read_labels(output / "labelsTr" / "a.nii.gz")
    write_labels(output / "labelsTr" / "a.nii.gz", np.zeros_like(corrected, dtype=np.uint8), geometry)
    again = complete_dataset(source, model_folder, FOLDS, output, QUICK)
    assert again.done == ("b",)
    assert again.kept == ("a", "c")
    reviewed = complete_dataset(source, model_folder, FOLDS, output, replace(QUICK, review=True))
    assert sorted(reviewed.done) == list(CASES)
    assert not read_labels(output / "labelsTr" / "a.nii.gz")[0].any()  # reviewed, but not written again
    assert not caplog.records
    anew = complete_dataset(source, model_folder, FOLDS, output, replace(QUICK, overwrite=True, workers=0))
    assert sorted(anew.done) == list(CASES)
    assert_every_drawn_voxel_is_kept(source, output)


def test_a_case_made_from_something_else_is_kept_with_a_warning(source, model_folder, tmp_path, caplog):
    complete_dataset(source, model_folder, FOLDS, tmp_path / "new", QUICK)
    drawn, geometry = read_labels(source.case("a").label)
    write_labels(source.case("a").label, np.zeros_like(drawn, dtype=np.uint8), geometry)
    with caplog.at_level(logging.WARNING):
        report = complete_dataset(source, model_folder, {**FOLDS, "b": "0"}, tmp_path / "new", QUICK)
    assert report.kept == CASES
    assert "2 completed cases" in caplog.text
    assert "a (annotation)" in caplog.text
    assert "b (fold, model)" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_a_case_that_fails_is_named_and_left_out(source, model_folder, tmp_path, workers):
    output = tmp_path / "new"
    complete_dataset(source, model_folder, FOLDS, output, QUICK)
    source.case("c").images[0].write_bytes(b"no image")
    options = replace(QUICK, overwrite=True, workers=workers)
    report = complete_dataset(source, model_folder, FOLDS, output, options)
    assert list(report.failed) == ["c"]
    assert "imagesTr/c_0000.nii.gz" in report.failed["c"]
    assert Dataset.load(output).case_names == ("a", "b")


def test_no_data_set_is_left_when_every_case_fails(source, model_folder, tmp_path):
    for files in source.cases:
        files.images[0].write_bytes(b"no image")
    report = complete_dataset(source, model_folder, FOLDS, tmp_path / "new", QUICK)
    assert sorted(report.failed) == list(CASES)
    assert not (tmp_path / "new" / "dataset.json").exists()


def test_a_review_lists_likely_faults_of_the_annotation_of_all_cases_first(source, model_folder, tmp_path):
    options = replace(QUICK, review=True)
    report = complete_dataset(source, model_folder, FOLDS, tmp_path / "new", options)
    groups = report.disagreements
    assert {group.case for group in groups} == set(CASES)
    shares = [group.mean_probability * group.n_voxels / (group.n_voxels + 1) * group.predicted_dice for group in groups]
    ranks = [(round(share, 3), group.n_voxels) for share, group in zip(shares, groups, strict=True)]
    assert ranks == sorted(ranks, reverse=True)
    assert all(0 < group.predicted_dice < 1 for group in groups)
    for group in groups:
        drawn = read_labels(source.case(group.case).label)[0][group.z, group.y, group.x]
        said = read_labels(tmp_path / "new" / "review" / f"{group.case}.nii.gz")[0][group.z, group.y, group.x]
        assert {group.drawn: 0, group.predicted: 1}.get("background", 1) == drawn
        assert said == 1 - drawn
    assert_every_drawn_voxel_is_kept(source, tmp_path / "new")
    again = complete_dataset(source, model_folder, FOLDS, tmp_path / "new", options)
    assert again.kept == CASES
    assert again.disagreements == groups
    write_disagreements(tmp_path / "review.csv", groups)
    rows = (tmp_path / "review.csv").read_text().splitlines()
    assert rows[0].startswith("rank,case,z,y,x,drawn,predicted,n_voxels,mean_probability")
    assert len(rows) == 1 + len(groups)


def test_a_foreign_or_the_own_data_set_is_not_written_into(source, model_folder, tmp_path):
    foreign = write_source(tmp_path / "foreign")
    (tmp_path / "file").write_text("")
    for output in (source.folder, foreign.folder):
        with pytest.raises(ConfigError, match="expected a new folder"):
            complete_dataset(source, model_folder, FOLDS, output, QUICK)
    with pytest.raises(ConfigError, match="found a file, expected a folder"):
        complete_dataset(source, model_folder, FOLDS, tmp_path / "file", QUICK)


def test_a_model_of_other_labels_is_refused(tmp_path, model_folder):
    source = write_source(tmp_path / "source", labels={"background": 0, "tumour": 1, "ignore": 2})
    with pytest.raises(ModelError, match=r"found class_names .*organ.* expected .*tumour"):
        complete_dataset(source, model_folder, FOLDS, tmp_path / "new", QUICK)
    assert not (tmp_path / "new" / "dataset.json").exists()


def test_a_review_that_fails_leaves_corrected_labels_where_they_are(source, model_folder, tmp_path):
    output = tmp_path / "new"
    complete_dataset(source, model_folder, FOLDS, output, QUICK)
    corrected = output / "labelsTr" / "c.nii.gz"
    values, geometry = read_labels(corrected)
    write_labels(corrected, np.zeros_like(values, dtype=np.uint8), geometry)
    before = corrected.read_bytes()
    source.case("c").images[0].write_bytes(b"no image")
    report = complete_dataset(source, model_folder, FOLDS, output, replace(QUICK, review=True))
    assert list(report.failed) == ["c"]
    assert corrected.read_bytes() == before
    assert Dataset.load(output).case_names == CASES


def test_a_run_that_is_killed_while_it_overwrites_leaves_no_old_labels_as_new(
    source, model_folder, tmp_path, monkeypatch
):
    output = tmp_path / "new"
    complete_dataset(source, model_folder, FOLDS, output, QUICK)
    old = (output / "labelsTr" / "a.nii.gz").read_bytes()

    def killed(*_arguments):
        raise SystemExit

    monkeypatch.setattr("autoseg.assist.complete.link_images", killed)
    with pytest.raises(SystemExit):
        complete_dataset(source, model_folder, FOLDS, output, replace(QUICK, overwrite=True, workers=0))
    monkeypatch.undo()
    assert not (output / "labelsTr" / "a.nii.gz").exists()
    again = complete_dataset(source, model_folder, FOLDS, output, QUICK)
    assert "a" in again.done
    assert (output / "labelsTr" / "a.nii.gz").read_bytes() == old


def test_the_completion_of_another_data_set_or_of_other_labels_is_not_gone_on_with(source, model_folder, tmp_path):
    output = tmp_path / "new"
    complete_dataset(source, model_folder, FOLDS, output, QUICK)
    other = write_source(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"found the completion of 'source', expected .*'other'"):
        complete_dataset(other, model_folder, FOLDS, output, QUICK)
    relabelled = write_source(tmp_path / "source", labels={"background": 0, "other organ": 1, "ignore": 2})
    with pytest.raises(ConfigError, match="completion of 'source' with its present labels"):
        complete_dataset(relabelled, model_folder, FOLDS, output, QUICK)


def test_a_case_that_has_left_the_source_leaves_the_completed_data_set(source, model_folder, tmp_path, caplog):
    output = tmp_path / "new"
    complete_dataset(source, model_folder, FOLDS, output, QUICK)
    for path in source.folder.glob("*/c*.nii.gz"):
        path.unlink()
    fewer = Dataset.load(source.folder)
    with caplog.at_level(logging.WARNING):
        complete_dataset(fewer, model_folder, {name: FOLDS[name] for name in "ab"}, output, QUICK)
    assert "1 label files belong to no completed case" in caplog.text
    assert Dataset.load(output).case_names == ("a", "b")
