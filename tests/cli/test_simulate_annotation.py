"""The command makes a data set that loads, tells the truth, and can be made again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy import as_mhd, write_toy_dataset

from autoseg.cli import common
from autoseg.cli import simulate_annotation as command
from autoseg.dataset.dataset import Dataset
from autoseg.io.images import read_image, read_labels, write_labels
from autoseg.preprocessing import volume_size
from autoseg.simulation.write import REPORT_FILE, UNFINISHED_FILE

SHAPES = pytest.mark.parametrize("shape", [(1, 40, 36), (12, 20, 18)], ids=["2d-png", "3d-nifti"])


def run(*arguments: object) -> int:
    quick = [flag for flag in (["-j", "1"], ["--pictures", "0"]) if flag[0] not in arguments]
    with pytest.raises(SystemExit) as leave:
        common.run(command.simulate_annotation, argv=[*map(str, arguments), *(text for flag in quick for text in flag)])
    return int(leave.value.code or 0)


def change(folder: Path, **keys: object) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | keys))


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return write_toy_dataset(tmp_path / "dense", sparse=False, n_cases=4)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_copy_of_headers_beside_their_data_has_single_files(dense, tmp_path):
    truth = {case.name: read_image(case.images)[0] for case in Dataset.load(dense).cases}
    as_mhd(dense, compress=True)
    assert run(dense, "-o", tmp_path / "new", "--scribbles", "--pictures", "1") == 0
    copied = Dataset.load(tmp_path / "new")
    assert copied.file_ending == ".mha"
    for case in copied.cases:
        np.testing.assert_array_equal(read_image(case.images)[0], truth[case.name])
        assert read_labels(case.label)[0].shape == truth[case.name].shape[1:]


@SHAPES
@pytest.mark.parametrize(
    "style", [["--scribbles"], ["--points", "20"], ["--patches", "2", "--patch-size", "2", "6", "6"]]
)
def test_what_is_annotated_is_true_and_the_rest_is_ignore(tmp_path, shape, style):
    source = write_toy_dataset(tmp_path / "dense", shape=shape, sparse=False, n_cases=2)
    new = tmp_path / "new"
    assert run(source, "-o", new, *style, "-q") == 0

    made = Dataset.load(new)
    assert made.labels.ignore == 3
    shares = []
    for before, after in zip(Dataset.load(source).cases, made.cases, strict=True):
        truth, geometry = read_labels(before.label)
        labels, same_geometry = read_labels(after.label)
        drawn = labels != 3
        assert np.array_equal(labels[drawn], truth[drawn])
        assert set(np.unique(labels)) >= {3} | ({0, 1, 2} if style[0] != "--patches" else set())
        assert truth[drawn].any()
        assert not geometry.differs_from(same_geometry)
        assert after.images[0].resolve() == before.images[0].resolve()
        shares.append(drawn.mean())
    report = json.loads((new / REPORT_FILE).read_text())
    assert report["all"]["share"] == pytest.approx(np.mean(shares))
    assert not (new / UNFINISHED_FILE).exists()


def test_the_report_counts_the_annotated_voxels_of_each_class(dense, tmp_path, capsys):
    assert run(dense, "-o", tmp_path / "new", "--slices", "0.25", "--json", "-q") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "new" / REPORT_FILE).read_text())
    truth, labels = (
        np.stack([read_labels(case.label)[0] for case in Dataset.load(folder).cases])
        for folder in (dense, tmp_path / "new")
    )
    for name, value in (("background", 0), ("bright", 1), ("brighter", 2)):
        row = report["classes"][name]
        assert row["voxels"] == (truth == value).sum()
        assert row["annotated"] == (labels == value).sum()
        assert row["share"] == pytest.approx(row["annotated"] / row["voxels"])
    assert report["all"]["share"] == 0.25
    assert report["settings"]["slices"] == 0.25
    assert set(report["cases"]) == {"toy_000", "toy_001", "toy_002", "toy_003"}


@pytest.mark.parametrize("points", [1, 2, 3])
def test_classes_that_get_no_point_are_named(dense, tmp_path, capsys, points):
    """Three classes are everywhere: what one or two points leave out is said, class by class and case by case."""
    assert run(dense, "-o", tmp_path / "new", "--points", points) == 0
    said = capsys.readouterr().err
    made = Dataset.load(tmp_path / "new")
    report = json.loads((tmp_path / "new" / REPORT_FILE).read_text())["without_annotation"]
    for value, name in enumerate(made.labels.class_names):
        missing = [case.name for case in made.cases if not (read_labels(case.label)[0] == value).any()]
        assert report.get(name, []) == missing
        assert (f"class {name!r} occurs without any annotation in {len(missing)} cases" in said) == bool(missing)
    assert bool(report) == (points < 3) == ("there are 3 classes; with 3 points each" in said)


def test_left_out_classes_are_drawn_as_background_and_named(dense, tmp_path, capsys):
    assert run(dense, "-o", tmp_path / "new", "--drop-classes", "1", "--seed", "3") == 0
    out = capsys.readouterr().out
    made = Dataset.load(tmp_path / "new")
    assert made.labels.ignore is None
    annotated = {name: tuple(entry["annotated"]) for name, entry in made.json["cases"].items()}
    assert sorted(annotated.values()) == [("bright",)] * 2 + [("brighter",)] * 2
    for case in made.cases:
        kept = {"bright": 1, "brighter": 2}[annotated[case.name][0]]
        truth, labels = (read_labels(path)[0] for path in (dense / "labelsTr" / case.label.name, case.label))
        assert np.array_equal(labels, np.where(truth == kept, kept, 0))
    assert "only narrowed, %" in out
    shares = json.loads((tmp_path / "new" / REPORT_FILE).read_text())["classes"]
    assert shares["background"]["share"] == 0  # 0 means "none of the annotated classes" in every case
    assert shares["background"]["narrowed_share"] == 1
    assert shares["bright"]["share"] + shares["bright"]["narrowed_share"] == 1


def test_left_out_classes_and_sparse_styles_go_together_and_keep_what_is_said_of_cases(dense, tmp_path):
    change(dense, cases={"toy_001": {"group": "p1"}})
    assert run(dense, "-o", tmp_path / "new", "--drop-classes", "1", "--scribbles", "-q") == 0
    made = Dataset.load(tmp_path / "new")
    assert made.labels.ignore == 3
    assert made.case("toy_001").group == "p1"
    assert all(len(entry["annotated"]) == 1 for entry in made.json["cases"].values())


@pytest.mark.slow
def test_workers_do_not_change_the_result(dense, tmp_path):
    for name, workers in (("one", "1"), ("two", "2")):
        style = ["--scribbles", "--slices", "0.5", "--points", "9", "--patches", "1", "--drop-classes", "1"]
        assert run(dense, "-o", tmp_path / name, *style, "--seed", "5", "-j", workers, "-q", "--copy") == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert not (tmp_path / "one" / "imagesTr" / "toy_000_0000.nii.gz").is_symlink()


@pytest.mark.slow
def test_an_interrupted_run_is_repeated(dense, tmp_path, monkeypatch, capsys):
    flags = ["--points", "9", "-q", "--pictures", "1"]
    assert run(dense, "-o", tmp_path / "whole", *flags) == 0

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "draw_pictures", stop)
        assert run(dense, "-o", tmp_path / "new", *flags) == 130
    assert not (tmp_path / "new" / "dataset.json").exists()
    assert run(dense, "-o", tmp_path / "new", "--points", "10", "-q") == 2
    assert "found an unfinished copy with other settings" in capsys.readouterr().err
    assert run(dense, "-o", tmp_path / "new", *flags) == 0
    assert files(tmp_path / "new") == files(tmp_path / "whole")


@pytest.mark.slow
@SHAPES
def test_pictures_of_some_cases_are_drawn(tmp_path, shape):
    source = write_toy_dataset(tmp_path / "dense", shape=shape, sparse=False, n_cases=3)
    assert run(source, "-o", tmp_path / "new", "--scribbles", "--pictures", "2", "-q") == 0
    pictures = sorted((tmp_path / "new" / "pictures").iterdir())
    assert [path.stem for path in pictures] == ["toy_000", "toy_002"]
    assert min(read_image([pictures[0]])[0].shape[2:]) > 300


def test_regions_stay_regions_and_a_value_of_ignore_its_own(dense, tmp_path):
    labels = {"background": 0, "whole": [1, 2], "brighter": 2, "ignore": 200}
    change(dense, labels=labels, regions_class_order=[1, 2], annotation_protocol={"instances_touched": True})
    assert run(dense, "-o", tmp_path / "new", "--slices", "0.5", "-q") == 0
    made = Dataset.load(tmp_path / "new")
    assert [head.name for head in made.labels.heads] == ["whole", "brighter"]
    assert made.labels.ignore == 200
    assert "annotation_protocol" not in made.json
    assert set(np.unique(read_labels(made.cases[0].label)[0])) == {0, 1, 2, 200}
    assert run(dense, "-o", tmp_path / "other", "--drop-classes", "1") == 2


@pytest.mark.parametrize(
    ("keys", "arguments", "message"),
    [
        ({}, [], "nothing to simulate"),
        ({}, ["--drop-classes", "2"], "--drop-classes: found 2, expected 0 to 1"),
        ({}, ["--slices", "20"], "--slices: found 20.0, expected a fraction"),
        ({"label_sets": {"5": ["bright", "brighter"]}}, ["--points", "5"], "label_sets: found partial labels"),
        ({"cases": {"toy_000": {"absent": ["bright"]}}}, ["--points", "5"], "cases: found partial labels"),
        (
            {"labels": {"background": 0, "bright": 1, "ignore": 2}},
            ["--points", "5"],
            "voxels with the value of ignore in toy_000, toy_001, toy_002, toy_003",
        ),
        ({"labels": {"background": 0, "bright": 1}}, ["--points", "5"], "'toy_003': found undeclared values 2"),
    ],
)
def test_what_cannot_be_simulated_is_named_and_nothing_is_written(dense, tmp_path, capsys, keys, arguments, message):
    change(dense, **keys)
    assert run(dense, "-o", tmp_path / "new", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_flat_image_has_no_slices_to_choose_from(tmp_path, capsys):
    source = write_toy_dataset(tmp_path / "flat", shape=(1, 20, 20), sparse=False, n_cases=1)
    assert run(source, "-o", tmp_path / "new", "--slices", "0.5") == 2
    assert "found shape (1, 20, 20) with slices along axis 0, expected several slices" in capsys.readouterr().err
    assert run(source, "-o", tmp_path / "new", "--scribbles", "--axis", "1") == 2


def test_an_output_that_holds_anything_is_left_alone(dense, tmp_path, capsys):
    before = files(dense)
    assert run(dense, "-o", dense, "--points", "5", "-q") == 2
    assert f"{dense}: found a data set, expected a new folder" in capsys.readouterr().err
    assert files(dense) == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    assert run(dense, "-o", tmp_path / "notes", "--points", "5", "-q") == 2
    assert "found files, expected a new folder" in capsys.readouterr().err
    assert files(tmp_path / "notes") == {"mine.txt": b"keep"}


def test_labels_of_another_shape_are_named_before_anything_is_written(dense, tmp_path, capsys):
    _, geometry = read_labels(dense / "labelsTr" / "toy_001.nii.gz")
    write_labels(dense / "labelsTr" / "toy_001.nii.gz", np.zeros((3, 4, 5), dtype=np.uint8), geometry)
    assert run(dense, "-o", tmp_path / "new", "--points", "5") == 2
    assert "case 'toy_001': toy_001.nii.gz: found labels of shape (3, 4, 5)" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_background_and_unlabelled_keep_their_values(tmp_path, dense):
    """The same voxels are drawn as in the same data set with background 0."""
    other = tmp_path / "other"
    write_toy_dataset(other, sparse=False, n_cases=4)
    for case in Dataset.load(other).cases:
        labels, geometry = read_labels(case.label)
        write_labels(case.label, np.array([5, 1, 2], np.uint8)[labels], geometry)
    change(other, labels={"background": 5, "bright": 1, "brighter": 2}, unlabelled=0)
    options = ("--patches", "2", "--points", "9", "--drop-classes", "1", "-q")
    assert run(dense, "-o", tmp_path / "x", *options) == run(other, "-o", tmp_path / "y", *options) == 0
    usual, made = Dataset.load(tmp_path / "x"), Dataset.load(tmp_path / "y")
    assert made.labels.ignore == 6 and made.labels.unlabelled == 0
    for before, after in zip(usual.cases, made.cases, strict=True):
        drawn, _ = read_labels(before.label)
        np.testing.assert_array_equal(read_labels(after.label)[0], np.array([5, 1, 2, 6])[drawn])
    change(other, labels={"background": 0, "bright": 1, "brighter": 2}, unlabelled=5)
    assert run(other, "-o", tmp_path / "z", *options) == 2


def test_a_volume_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "v.npy", np.arange(64, dtype=np.uint8).reshape(4, 4, 4))
    np.save(tmp_path / "l.npy", np.eye(4, dtype=np.uint8).repeat(4).reshape(4, 4, 4))
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "a": 1}}
    (tmp_path / "dataset.json").write_text(
        json.dumps({**content, "boxes": {"a": {"image": "v.npy", "label": "l.npy"}}})
    )
    monkeypatch.setattr(volume_size, "IN_MEMORY_VOXELS", 63)
    assert run(tmp_path, "-o", tmp_path / "out", "--slices", 0.5) == 2
    assert "case 'a': found a case of more than 63 voxels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
