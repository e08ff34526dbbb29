"""Label maps of mean probabilities are those that NumPy gives from whole arrays; folders that differ are refused."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from autoseg.core.errors import ConfigError, EvaluationError, FileFormatError
from autoseg.core.geometry import FLAT_SPACING, Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation.ensemble_folders import HeadDecider, combine, ensemble_folders
from autoseg.io.images import read_labels, write_labels, write_probabilities
from autoseg.io.probabilities import ProbabilityFile, read_probability_shape

CLASSES = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
FLAT = Geometry(spacing=(FLAT_SPACING, 2.0, 0.5), ndim=2)
SOLID = Geometry(spacing=(2.0, 1.0, 0.5))
GRIDS = [((1, 9, 8), FLAT), ((4, 5, 6), SOLID)]
CASES = ("one", "two")


def content_of(labels, order=None, ending=".nii.gz"):
    return {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ending} | (
        {} if order is None else {"regions_class_order": order}
    )


def labels_of(labels, order=None):
    return Dataset.from_json(content_of(labels, order), name="made", folder=None).labels


def drawn(shape, n_heads, seed, *, softmax=True):
    values = np.random.default_rng(seed).random((n_heads, *shape))
    return (values / values.sum(0) if softmax else values).astype(np.float32)


def write_member(folder, content, shape, geometry, seed, names=None):
    """Write a folder as autoseg_predict --save-probabilities does; return case -> probabilities in that order."""
    labels = Dataset.from_json(content, name="made", folder=None).labels
    written = {}
    for index, case in enumerate(CASES):
        values = drawn(shape, labels.n_heads, 10 * seed + index, softmax=not labels.has_regions)
        write_labels(
            folder / f"{case}{content['file_ending']}", labels.decode(values - labels.has_regions / 2), geometry
        )
        write_probabilities(folder / case, values, labels.n_heads)
        written[case] = values
    (folder / "dataset.json").write_text(json.dumps(content))
    (folder / "plans.json").write_text('{"plan": 1}\n')
    return written


@pytest.fixture
def two(tmp_path):
    content = content_of(CLASSES)
    for seed, name in enumerate("AB"):
        write_member(tmp_path / name, content, (4, 5, 6), SOLID, seed)
    return tmp_path / "A", tmp_path / "B"


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
@pytest.mark.parametrize("weights", [None, (1, 3, 0.5)], ids=["equal", "weighted"])
@pytest.mark.parametrize("workers", [1, 2])
def test_classes_are_those_of_the_largest_mean(tmp_path, shape, geometry, weights, workers):
    folders = [tmp_path / name for name in "ABC"]
    given = [write_member(folder, content_of(CLASSES), shape, geometry, seed) for seed, folder in enumerate(folders)]
    report = ensemble_folders(folders, tmp_path / "out", weights=weights, save_probabilities=True, workers=workers)
    assert set(report.done) == {*CASES} and not report.failed
    for case in CASES:
        mean = np.average([member[case] for member in given], axis=0, weights=weights)
        label_map, written = read_labels(tmp_path / "out" / f"{case}.nii.gz")
        assert np.array_equal(label_map, mean.argmax(0))
        assert written == read_labels(folders[0] / f"{case}.nii.gz")[1]
        with np.load(tmp_path / "out" / f"{case}.npz") as saved:
            assert np.allclose(saved["probabilities"], mean, atol=1e-6)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == content_of(CLASSES)
    assert (tmp_path / "out" / "plans.json").read_text() == '{"plan": 1}\n'


@pytest.mark.parametrize(("shape", "geometry"), GRIDS, ids=["2d", "3d"])
def test_regions_are_painted_where_the_mean_is_above_one_half(tmp_path, shape, geometry):
    content = content_of(REGIONS, [1, 2, 3])
    folders = [tmp_path / name for name in "AB"]
    given = [write_member(folder, content, shape, geometry, seed) for seed, folder in enumerate(folders)]
    ensemble_folders(folders, tmp_path / "out")
    for case in CASES:
        whole, core, enhancing = (given[0][case] + given[1][case]) / 2 > 0.5
        expected = np.where(whole, 1, 0)
        expected[core] = 2
        expected[enhancing] = 3
        assert np.array_equal(read_labels(tmp_path / "out" / f"{case}.nii.gz")[0], expected)


@pytest.mark.parametrize(("labels", "order"), [
    (CLASSES, None), (REGIONS, [1, 2, 3]),
    ({"background": 0, **{f"r{index}": [index, 20] for index in range(1, 11)}, "all": 20}, [*range(1, 11), 20]),
])  # fmt: skip
def test_deciding_head_by_head_is_decoding_all_at_once(labels, order):
    """Also of more than 8 regions, which overlap without being nested."""
    given = labels_of(labels, order)
    values = drawn((3, 4, 5), given.n_heads, 0, softmax=order is None)
    decider = HeadDecider(given, (3, 4, 5))
    for head in values:
        decider.add(head)
    assert np.array_equal(decider.label_map(), given.decode(values - (0 if order is None else 0.5)))


def test_of_equally_probable_classes_the_first_is_taken():
    decider = HeadDecider(labels_of(CLASSES), (1, 1, 3))
    for head in ([0.4, 0.2, 0.0], [0.4, 0.4, 0.5], [0.2, 0.4, 0.5]):
        decider.add(np.array([[head]], np.float32))
    assert decider.label_map().tolist() == [[[0, 1, 1]]]


def test_classes_are_matched_by_name_whatever_their_values_and_order(two, tmp_path):
    first, second = two
    other = content_of({"background": 0, "b": 1, "a": 2})
    given = write_member(second, other, (4, 5, 6), SOLID, 7)
    with np.load(first / "one.npz") as file:
        own = file["probabilities"]
    ensemble_folders(two, tmp_path / "out")
    mean = (own + given["one"][[0, 2, 1]]) / 2
    assert np.array_equal(read_labels(tmp_path / "out" / "one.nii.gz")[0], mean.argmax(0))


def test_memory_does_not_grow_with_the_number_of_classes_and_members(tmp_path):
    shape, peaks = (8, 48, 48), []
    for n_heads, n_members in ((2, 2), (20, 4)):
        labels = labels_of({"background": 0, **{f"c{index}": index for index in range(1, n_heads)}})
        files = [
            write_probabilities(tmp_path / f"{n_heads}_{member}", drawn(shape, n_heads, member), n_heads)
            for member in range(n_members)
        ]
        tracemalloc.start()
        decider = HeadDecider(labels, shape)
        for head in combine(files, [range(n_heads)] * n_members, [1 / n_members] * n_members):
            decider.add(head)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 2**18


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_that_numpy_saved_are_read_in_any_order(tmp_path, dtype):
    """nnU-Net writes them with numpy.savez_compressed, beside other arrays or not."""
    values = drawn((2, 3, 4), 3, 0).astype(dtype)
    np.savez_compressed(tmp_path / "a.npz", probabilities=values, more=np.zeros(3))
    with ProbabilityFile(tmp_path / "a.npz") as file:
        assert file.shape == (3, 2, 3, 4)
        for index in (0, 1, 2, 0, 2):
            assert np.array_equal(file.head(index), values[index].astype(np.float32))


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)


@pytest.mark.parametrize(("make", "found"), [
    (lambda path: path.write_bytes(b"no archive"), "BadZipFile"),
    (lambda path: path.write_bytes(b""), "empty file"),
    (lambda path: np.savez(path, softmax=np.zeros((2, 1, 2, 2))), "softmax"),
    (lambda path: np.savez(path, probabilities=np.zeros((2, 2, 2))), r"\(2, 2, 2\)"),
    (lambda path: np.savez(path, probabilities=np.zeros((2, 1, 2, 2), int)), "int"),
    (lambda path: np.savez(path, probabilities=np.full((2, 1, 2, 2), np.nan)), "not finite"),
    (lambda path: (np.savez(path, probabilities=drawn((9, 9, 9), 2, 0)), damage(path)), "a.npz"),
])  # fmt: skip
def test_what_is_no_file_of_probabilities_is_named(tmp_path, make, found):
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(FileFormatError, match=rf"{found}.*"), ProbabilityFile(path) as file:
        for index in range(2):
            file.head(index)
    with pytest.raises(FileFormatError, match="no such file"):
        read_probability_shape(tmp_path / "b.npz")


def refused(folders, tmp_path, match, error=EvaluationError, **options):
    with pytest.raises(error, match=match):
        ensemble_folders(folders, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_missing_cases_are_named_with_their_folder(two, tmp_path):
    for path in (two[1] / "two.npz", two[1] / "two.nii.gz"):
        path.unlink()
    refused(two, tmp_path, r"B: found no two, expected every case of .*A")
    refused(two[::-1], tmp_path, r"B: found no two, expected every case of .*A")


def test_a_case_without_label_map_or_probabilities_is_named(two, tmp_path):
    (two[1] / "two.npz").unlink()
    refused(two, tmp_path, r"B: found no \.npz of two")
    (two[0] / "one.nii.gz").unlink()
    refused(two[::-1], tmp_path, r"B: found no \.npz of two")
    (two[1] / "one.npz").unlink()
    refused(two[::-1], tmp_path, r"B: found no <case>\.npz.*--save-probabilities")


def test_other_classes_are_refused(two, tmp_path):
    write_member(two[1], content_of({"background": 0, "a": 1, "liver": 2}), (4, 5, 6), SOLID, 1)
    refused(two, tmp_path, r"B: found the heads background, a, liver, expected those of .*background, a, b")


def test_other_shapes_and_places_are_refused(two, tmp_path):
    write_member(two[1], content_of(CLASSES), (4, 5, 7), SOLID, 1)
    refused(two, tmp_path, r"B/one.npz: found the shape \(3, 4, 5, 7\), expected \(3, 4, 5, 6\)")
    write_member(two[1], content_of(CLASSES), (4, 5, 6), SOLID.model_copy(update={"origin": (9.0, 0.0, 0.0)}), 1)
    refused(two, tmp_path, r"B/one.nii.gz: found origin .* expected origin")


@pytest.mark.parametrize("weights", [(1,), (1, 0), (1, -1), (1, float("nan")), (1, 2, 3)])
def test_weights_that_are_no_shares_are_refused(two, tmp_path, weights):
    refused(two, tmp_path, r"weights: found .* expected one number above 0 for each of the 2 folders", weights=weights)


def test_one_folder_or_the_same_twice_is_refused(two, tmp_path):
    for folders in (two[:1], (two[0], two[0] / ".." / "A")):
        refused(folders, tmp_path, "two or more different folders")


def test_a_folder_of_something_else_is_refused(two, tmp_path):
    refused((two[0], tmp_path / "nowhere"), tmp_path, "no such folder")
    refused((two[0], two[1] / "one.npz"), tmp_path, r"one.npz: found a file, expected a folder.*Give its folder, .*B")
    (two[1] / "dataset.json").unlink()
    refused(two, tmp_path, r"B: found no dataset\.json")
    regression = {"channel_names": {"0": "MR"}, "task": "regression", "targets": ["t"], "file_ending": ".nii.gz"}
    (two[1] / "dataset.json").write_text(json.dumps(regression))
    refused(two, tmp_path, "regression")


def test_a_member_is_not_written_to(two, tmp_path):
    before = sorted(path.stat().st_mtime_ns for path in two[0].iterdir())
    with pytest.raises(ConfigError, match="Change -o"):
        ensemble_folders(two, two[0], overwrite=True)
    assert sorted(path.stat().st_mtime_ns for path in two[0].iterdir()) == before


def test_a_damaged_case_does_not_stop_the_others(two, tmp_path):
    np.savez(two[1] / "one.npz", probabilities=np.full((3, 4, 5, 6), np.nan, np.float32))
    report = ensemble_folders(two, tmp_path / "out")
    assert set(report.done) == {"two"} and "one.npz" in report.failed["one"]
    assert not (tmp_path / "out" / "one.nii.gz").exists()


def test_pictures_get_pictures(tmp_path):
    folders = [tmp_path / name for name in "AB"]
    for seed, folder in enumerate(folders):
        write_member(folder, content_of(CLASSES, ending=".png"), (1, 6, 5), Geometry(spacing=(999, 1, 1), ndim=2), seed)
    ensemble_folders(folders, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["one.png", "two.png"]
