"""Fingerprints see what is certainly foreground, and nothing else."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import SimpleITK

from autoseg.core.errors import DatasetError, FileFormatError
from autoseg.dataset.dataset import CaseFiles, Dataset
from autoseg.dataset.labels import CaseStatement, Head, Labels
from autoseg.planning import extract_fingerprint, fingerprint_is_current

BACKGROUND, ORGAN, IGNORE = 0, 1, 2
HEADS = (Head("background", (0,), (0,), True), Head("organ", (1,), (1,)))
SHAPE = (24, 16, 20)


def _write(path, array, spacing=(1.0, 2.0, 3.0)):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path))
    return path


def make_dataset(folder, pairs, *, statements=None, ignore=IGNORE):
    """``pairs``: case -> (image (*S) or list of them, labels (*S))."""
    labels = Labels((0, 1), ("background", "organ"), HEADS, ignore=ignore, statements=statements or {})
    cases = []
    for name, (channels, drawn) in pairs.items():
        channels = channels if isinstance(channels, list) else [channels]
        images = tuple(
            _write(folder / f"{name}_{index:04d}.nii.gz", channel.astype(np.float32))
            for index, channel in enumerate(channels)
        )
        label = _write(folder / f"{name}.nii.gz", drawn.astype(np.uint8))
        cases.append(CaseFiles(name, images, label))
    names = tuple(f"channel {index}" for index in range(len(cases[0].images)))
    return Dataset("Toy", folder, names, labels, ".nii.gz", tuple(cases), {"labels": {}})


def toy_case(seed, *, brightness=200.0):
    """An image with an organ brighter than all else, and its dense labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:23, 2:14, 2:18] = ORGAN
    image = rng.normal(50, 5, SHAPE)
    image[labels == ORGAN] = rng.normal(brightness, 10, int(labels.sum()))
    return image, labels


def sparse(labels, step=3):
    """Only every third slice is annotated."""
    drawn = np.full_like(labels, IGNORE)
    drawn[::step] = labels[::step]
    return drawn


def test_dense_statistics_are_those_of_the_foreground(tmp_path):
    image, labels = toy_case(0)
    fingerprint = extract_fingerprint(make_dataset(tmp_path, {"a": (image, labels)}))
    found = fingerprint.foreground_intensity_properties_per_channel["0"]
    values = image[labels == ORGAN].astype(np.float32).astype(float)
    np.testing.assert_allclose((found.mean, found.std), (values.mean(), values.std()), rtol=1e-6)
    expected = np.percentile(values, (0.5, 50, 99.5))
    np.testing.assert_allclose((found.percentile_00_5, found.median, found.percentile_99_5), expected, rtol=1e-6)
    assert fingerprint.spacings == ((3.0, 2.0, 1.0),)
    assert fingerprint.shapes_after_crop == (SHAPE,)
    assert fingerprint.intensity_source == {"0": "foreground"}
    assert fingerprint.foreground_voxels == values.size
    assert fingerprint.annotated_fraction == {"a": 1.0}
    assert fingerprint.annotated_in_slices == {"a": 1.0}


def test_nothing_depends_on_what_is_unknown(tmp_path):
    image, labels = toy_case(1)
    drawn = sparse(labels)
    scrambled = np.where(drawn == IGNORE, 1e5, image)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = extract_fingerprint(make_dataset(tmp_path / "one", {"a": (image, drawn)}))
    second = extract_fingerprint(make_dataset(tmp_path / "two", {"a": (scrambled, drawn)}))
    key = "foreground_intensity_properties_per_channel"
    assert getattr(first, key) == getattr(second, key)
    assert first.intensity_source == {"0": "foreground"}
    assert first.annotated_fraction["a"] == pytest.approx(8 / 24)
    assert first.annotated_in_slices["a"] == 1.0


def test_sparse_labels_give_nearly_the_statistics_of_dense_ones(tmp_path):
    image, labels = toy_case(2)
    found = [
        extract_fingerprint(make_dataset(tmp_path, {"a": (image, drawn)})).foreground_intensity_properties_per_channel
        for drawn in (labels, sparse(labels))
    ]
    assert found[1]["0"].mean == pytest.approx(found[0]["0"].mean, rel=0.01)
    assert found[1]["0"].std == pytest.approx(found[0]["0"].std, rel=0.1)


def test_voxels_that_may_be_background_are_not_foreground(tmp_path):
    """Where only the organ was drawn, 0 means "anything but the organ"."""
    image, labels = toy_case(3)
    statements = {"a": CaseStatement(annotated=frozenset({ORGAN}))}
    dataset = make_dataset(tmp_path, {"a": (image, labels)}, statements=statements)
    assert extract_fingerprint(dataset).foreground_voxels == (labels == ORGAN).sum()


def test_too_few_foreground_voxels_fall_back_to_the_body_and_say_so(tmp_path, caplog):
    image, labels = toy_case(4)
    image[:, :, 10:] = 0  # outside the body
    drawn = np.full_like(labels, IGNORE)
    drawn[5, 5, :] = labels[5, 5, :]
    with caplog.at_level(logging.WARNING):
        fingerprint = extract_fingerprint(make_dataset(tmp_path, {"a": (image, drawn)}))
    found = fingerprint.foreground_intensity_properties_per_channel["0"]
    body = image[:, :, :10].astype(np.float32).astype(float)
    low, median, high = np.percentile(body, (0.5, 50, 99.5))
    clipped = np.clip(body, low, high)
    np.testing.assert_allclose(
        (found.percentile_00_5, found.median, found.percentile_99_5), (low, median, high), rtol=1e-5
    )
    np.testing.assert_allclose((found.mean, found.std), (clipped.mean(), clipped.std()), rtol=1e-5)
    assert fingerprint.intensity_source == {"0": "body"}
    assert "intensity statistics need at least 1000" in caplog.text


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_data_without_foreground_or_contrast_does_not_crash(value, tmp_path):
    image = np.full(SHAPE, value)
    fingerprint = extract_fingerprint(make_dataset(tmp_path, {"a": (image, np.zeros(SHAPE))}))
    found = fingerprint.foreground_intensity_properties_per_channel["0"]
    assert (found.mean, found.median, found.std) == (value, value, 0.0)
    assert fingerprint.shapes_after_crop == (SHAPE,)


def test_empty_borders_are_cropped(tmp_path):
    image, labels = np.zeros(SHAPE), np.zeros(SHAPE)
    image[2:8, 4:12, 5:15] = 1
    fingerprint = extract_fingerprint(make_dataset(tmp_path, {"a": (image, labels)}))
    assert fingerprint.shapes_after_crop == ((6, 8, 10),)
    assert fingerprint.median_relative_size_after_cropping == pytest.approx(480 / np.prod(SHAPE))


def test_every_channel_has_its_statistics(tmp_path):
    (first, labels), (second, _) = toy_case(5), toy_case(6, brightness=900)
    fingerprint = extract_fingerprint(make_dataset(tmp_path, {"a": ([first, second], labels)}))
    found = fingerprint.foreground_intensity_properties_per_channel
    assert list(found) == ["0", "1"]
    assert found["0"].mean == pytest.approx(200, rel=0.01)
    assert found["1"].mean == pytest.approx(900, rel=0.01)


@pytest.mark.slow
def test_workers_change_nothing_and_skipped_cases_are_left_out(tmp_path):
    dataset = make_dataset(tmp_path, {name: toy_case(seed) for seed, name in enumerate("abc")})
    seen = []
    alone = extract_fingerprint(dataset, progress=lambda *report: seen.append(report))
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    assert extract_fingerprint(dataset, workers=2) == alone
    assert extract_fingerprint(dataset, skip=frozenset("b")).cases == ("a", "c")


def test_fingerprint_is_stale_once_a_file_changes(tmp_path):
    dataset = make_dataset(tmp_path, {"a": toy_case(7)})
    fingerprint = extract_fingerprint(dataset)
    assert fingerprint_is_current(fingerprint, dataset)
    _write(tmp_path / "a.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    assert not fingerprint_is_current(fingerprint, dataset)


def test_failing_case_is_named(tmp_path):
    dataset = make_dataset(tmp_path, {"good": toy_case(8), "torn": toy_case(9)})
    path = tmp_path / "torn_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FileFormatError, match="case 'torn'"):
        extract_fingerprint(dataset)


def test_labels_of_another_shape_are_refused_for_all_cases_at_once(tmp_path):
    image, labels = toy_case(10)
    dataset = make_dataset(tmp_path, {"a": (image, labels[1:]), "b": (image, labels[:, 1:])})
    with pytest.raises(DatasetError, match=r"'a': a\.nii\.gz: .*\(23, 16, 20\)") as error:
        extract_fingerprint(dataset)
    assert len(error.value.faults) == 2


def test_nothing_to_measure_is_refused(tmp_path):
    dataset = make_dataset(tmp_path, {"a": toy_case(11)})
    with pytest.raises(DatasetError, match="no case to measure"):
        extract_fingerprint(dataset, skip=frozenset("a"))


@pytest.mark.slow
def test_real_scribbles_have_the_statistics_of_the_dense_labels(real_data):
    folder = real_data / "Dataset027_ACDC"
    scribbles = sorted(folder.glob("dataset_*.json"))
    if not scribbles:
        pytest.skip("this data has no second annotation")
    dense, sparse_labels = (Dataset.load(path) for path in (folder, scribbles[0]))
    names = {case.name for case in sparse_labels.cases[:6]}
    means = []
    for dataset in (dense, sparse_labels):
        skip = frozenset(case.name for case in dataset.cases if case.name not in names)
        means.append(extract_fingerprint(dataset, skip=skip).foreground_intensity_properties_per_channel["0"].mean)
    assert means[1] == pytest.approx(means[0], rel=0.2)


def test_an_absent_class_is_known_everywhere_and_drawn_nowhere(tmp_path):
    image, labels = toy_case(3)
    drawn = np.full_like(labels, IGNORE)
    drawn[5, 4:8, 4:8] = BACKGROUND
    said = {"a": CaseStatement(absent=frozenset({1}))}
    found = extract_fingerprint(make_dataset(tmp_path, {"a": (image, drawn)}, statements=said))
    assert found.annotated_fraction == {"a": 1.0}
    assert found.informative_cases == ("a",)
    assert found.drawn_fraction == {"a": 1.0}  # background is all that is left: as good as drawn
    plain = extract_fingerprint(make_dataset(tmp_path, {"a": (image, drawn)}))
    assert plain.drawn_fraction == plain.annotated_fraction == {"a": 16 / drawn.size}
