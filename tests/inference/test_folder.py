from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from torch import nn

from autoseg.core.errors import ConfigError, DatasetError, ModelError
from autoseg.core.prediction_record import read_prediction_record
from autoseg.dataset.dataset import Dataset
from autoseg.evaluation import evaluate_folder
from autoseg.inference import folder as folder_module
from autoseg.inference import predictor as predictor_module
from autoseg.io.images import read_header, read_image, read_labels

OBLIQUE = (0.9396926, -0.3420201, 0.0, 0.3420201, 0.9396926, 0.0, 0.0, 0.0, 1.0)


def volume(seed=0, shape=(9, 14, 12)):
    return np.random.default_rng(seed).integers(1, 200, size=shape).astype(np.int16)


def write_volume(path, array, *, spacing=(1.0, 1.0, 2.0), origin=(-12.3, 45.6, 7.89), direction=OBLIQUE):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def inputs(tmp_path):
    """Three volumes a, b, c in a folder."""
    folder = tmp_path / "in"
    for seed, name in enumerate("abc"):
        write_volume(folder / f"{name}_0000.nii.gz", volume(seed))
    return folder


def assert_right(path, array):
    labels, _ = read_labels(path)
    np.testing.assert_array_equal(labels, array > 100)


def visible(folder):
    """Names in a folder, but for those of predicted quality."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("quality"))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_predictions_have_format_and_geometry_of_their_images(threshold_predictor, tmp_path, ending):
    write_volume(tmp_path / "in" / f"x_0000{ending}", volume(), spacing=(1.1, 0.9, 2.3))
    report = threshold_predictor(spacing=(2.3, 0.9, 1.1), ending=ending).predict_files(
        tmp_path / "in", tmp_path / "out"
    )
    assert report.done == ("x",)
    assert_right(tmp_path / "out" / f"x{ending}", volume())
    image, labels = (sitk.ReadImage(str(tmp_path / name)) for name in (f"in/x_0000{ending}", f"out/x{ending}"))
    assert labels.GetSize() == image.GetSize()
    for mine, expected in (
        (labels.GetSpacing(), (1.1, 0.9, 2.3)),
        (labels.GetOrigin(), (-12.3, 45.6, 7.89)),
        (labels.GetDirection(), OBLIQUE),
    ):
        np.testing.assert_allclose(mine, expected, atol=1e-4)


def test_predictions_of_mhd_images_are_mha_and_are_scored_against_mhd_references(threshold_predictor, tmp_path):
    predictor = threshold_predictor(spacing=(2.3, 0.9, 1.1), ending=".mhd")
    for name, data in {"x": volume(), "y": volume(1)}.items():
        write_volume(tmp_path / "in" / f"{name}_0000.mhd", data, spacing=(1.1, 0.9, 2.3))
        write_volume(tmp_path / "labels" / f"{name}.mhd", (data > 100).astype(np.uint8), spacing=(1.1, 0.9, 2.3))
    report = predictor.predict_files(tmp_path / "in", tmp_path / "out")
    assert visible(tmp_path / "out") == ["dataset.json", "plans.json", "prediction.json", "x.mha", "y.mha"]
    assert report.done == ("x", "y") and not report.failed
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["file_ending"] == ".mha"
    assert_right(tmp_path / "out" / "x.mha", volume())
    assert read_header(tmp_path / "out" / "x.mha")[1].differs_from(read_header(tmp_path / "in" / "x_0000.mhd")[1]) == ()
    for described in (None, predictor.model.dataset):  # .mha beside the predictions, .mhd in the model's own
        summary = evaluate_folder(tmp_path / "labels", tmp_path / "out", described)
        assert [case.case for case in summary.metric_per_case] == ["x", "y"]
        assert summary.foreground_mean["Dice"] == 1.0
    assert predictor.predict_files(tmp_path / "in", tmp_path / "out").skipped == ("x", "y")


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_2d_pictures_are_predicted(threshold_predictor, tmp_path, ending):
    picture = volume(shape=(1, 21, 17))[0].astype(np.uint8)
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(picture), str(tmp_path / "in" / f"x_0000{ending}"))
    predictor = threshold_predictor(n_dims=2, spacing=(999.0, 1.0, 1.0), ending=ending)
    assert predictor.predict_files(tmp_path / "in", tmp_path / "out").done == ("x",)
    assert_right(tmp_path / "out" / f"x{ending}", picture[None])
    before, after = (read_header(tmp_path / name) for name in (f"in/x_0000{ending}", f"out/x{ending}"))
    assert before == after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data_set", "ending", "options"),
    [
        ("Dataset004_Hippocampus", ".nii.gz", {"spacing": (1.0, 1.0, 1.0)}),
        ("Dataset027_ACDC", ".nii.gz", {"spacing": (10.0, 1.5, 1.5)}),
    ],
)
def test_real_images_get_predictions_in_their_geometry(
    threshold_predictor, real_data, tmp_path, data_set, ending, options
):
    files = sorted((real_data / data_set / "imagesTr").glob(f"*_0000{ending}"))[:2]
    predictor = threshold_predictor(ending=ending, **options)
    report = predictor.predict_files([[file] for file in files], tmp_path)
    assert len(report.done) == 2
    for file in files:
        before = sitk.ReadImage(str(file))
        after = sitk.ReadImage(str(tmp_path / file.name.replace("_0000", "")))
        assert after.GetSize() == before.GetSize()
        for name in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(after, name)(), getattr(before, name)(), atol=1e-4)
        truth = sitk.GetArrayFromImage(before) > 100
        assert np.mean((sitk.GetArrayFromImage(after) == 1) == truth) > 0.95


def test_pictures_with_lossy_compression_give_png(threshold_predictor, tmp_path):
    (tmp_path / "in").mkdir()
    colour = np.random.default_rng(0).integers(0, 255, size=(24, 24, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "in" / "x_0000.jpg"))
    predictor = threshold_predictor(n_dims=2, n_channels=3, spacing=(999.0, 1.0, 1.0), ending=".jpg")
    predictor.predict_files(tmp_path / "in", tmp_path / "out")
    assert visible(tmp_path / "out") == ["dataset.json", "plans.json", "prediction.json", "x.png"]


def test_channels_in_files_of_their_own_are_stacked(threshold_predictor, tmp_path):
    for channel in range(2):
        write_volume(tmp_path / "in" / f"x_000{channel}.nii.gz", volume(channel))
    threshold_predictor(n_channels=2).predict_files(tmp_path / "in", tmp_path / "out")
    assert_right(tmp_path / "out" / "x.nii.gz", volume(0))


def test_inputs_of_another_format_than_the_models_keep_theirs(threshold_predictor, tmp_path):
    write_volume(tmp_path / "in" / "x_0000.nrrd", volume())
    threshold_predictor(ending=".nii.gz").predict_files(tmp_path / "in", tmp_path / "out")
    assert_right(tmp_path / "out" / "x.nrrd", volume())
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["file_ending"] == ".nrrd"


def test_inputs_of_two_foreign_formats_are_refused(threshold_predictor, tmp_path):
    for ending in (".nrrd", ".mha"):
        write_volume(tmp_path / "in" / f"x_0000{ending}", volume())
    with pytest.raises(DatasetError, match=r"images ending in \['.mha', '.nrrd'\]"):
        threshold_predictor(ending=".nii.gz").predict_files(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_case_is_predicted_and_reported(threshold_predictor, inputs, tmp_path, workers):
    seen = []
    report = threshold_predictor().predict_files(
        inputs, tmp_path / "out", workers=workers, progress=lambda *news: seen.append(news)
    )
    assert report.done == ("a", "b", "c")
    assert (report.skipped, report.failed, report.warnings) == ((), {}, ())
    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
    for seed, name in enumerate("abc"):
        assert_right(tmp_path / "out" / f"{name}.nii.gz", volume(seed))
    assert visible(tmp_path / "out") == [
        "a.nii.gz",
        "b.nii.gz",
        "c.nii.gz",
        "dataset.json",
        "plans.json",
        "prediction.json",
    ]


def test_the_output_folder_records_command_versions_and_images(threshold_predictor, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/autoseg_predict", "-i", "two words"])
    threshold_predictor().predict_files(inputs, tmp_path / "out")
    (run,) = read_prediction_record(tmp_path / "out").runs
    assert run.command == "autoseg_predict -i 'two words'"
    assert run.images == {name: (str(inputs / f"{name}_0000.nii.gz"),) for name in "abc"}
    assert {"autoseg", "torch", "python", "numpy"} <= run.environment.versions.keys()
    assert "fold 0" in run.model

    threshold_predictor().predict_files(inputs, tmp_path / "out")  # predicts nothing
    assert read_prediction_record(tmp_path / "out").runs == (run,)
    (tmp_path / "out" / "b.nii.gz").unlink()
    threshold_predictor().predict_files(inputs, tmp_path / "out")
    first, second = read_prediction_record(tmp_path / "out").runs
    assert first.images.keys() == {"a", "c"} and second.images.keys() == {"b"}


def test_the_output_folder_describes_its_labels(threshold_predictor, inputs, tmp_path):
    predictor = threshold_predictor()
    predictor.predict_files(inputs, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert Dataset.from_json(content, name="x", folder=None).labels == predictor.model.dataset.labels
    assert type(predictor.model.plan).model_validate_json((tmp_path / "out" / "plans.json").read_text()) == (
        predictor.model.plan
    )


def test_what_exists_is_kept_unless_told_otherwise(threshold_predictor, inputs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.nii.gz").write_bytes(b"mine")
    predictor = threshold_predictor()
    report = predictor.predict_files(inputs, out)
    assert (report.done, report.skipped) == (("a", "c"), ("b",))
    assert (out / "b.nii.gz").read_bytes() == b"mine"
    again = predictor.predict_files(inputs, out, overwrite=True)
    assert (again.done, again.skipped) == (("a", "b", "c"), ())
    assert_right(out / "b.nii.gz", volume(1))
    assert predictor.predict_files(inputs, out).skipped == ("a", "b", "c")


def test_what_stays_of_another_model_or_other_images_is_a_warning(threshold_predictor, inputs, tmp_path):
    out, predictor = tmp_path / "out", threshold_predictor()
    predictor.predict_files(inputs, out)
    assert predictor.predict_files(inputs, out).warnings == ()
    elsewhere = inputs.rename(tmp_path / "second")
    (warning,) = predictor.predict_files(elsewhere, out).warnings
    assert "3 label maps that existed and stayed, such as that of a, are of other image files" in warning
    assert "--overwrite predicts again" in warning
    predictor.predict_files(elsewhere, out, overwrite=True)
    assert predictor.predict_files(elsewhere, out).warnings == ()


def test_probabilities_are_saved_and_a_case_without_them_is_not_done(threshold_predictor, inputs, tmp_path):
    predictor, out = threshold_predictor(), tmp_path / "out"
    predictor.predict_files(inputs, out)
    report = predictor.predict_files(inputs, out, save_probabilities=True)
    assert report.done == ("a", "b", "c")
    with np.load(out / "b.npz") as stored:
        values = stored["probabilities"]
    assert values.shape == (2, 9, 14, 12)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values.argmax(0), volume(1) > 100)
    assert predictor.predict_files(inputs, out, save_probabilities=True).done == ()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_files_hold_what_the_arrays_hold_though_logits_never_exist_as_a_whole(
    threshold_predictor, inputs, tmp_path, monkeypatch, workers, transpose
):
    predictor = threshold_predictor(spacing=(1.5, 1.5, 1.5), transpose=transpose)
    expected = {name: predictor.predict_probabilities(*read_image([inputs / f"{name}_0000.nii.gz"])) for name in "abc"}
    monkeypatch.setattr(predictor_module, "join_slabs", None)
    report = predictor.predict_files(inputs, tmp_path / "out", save_probabilities=True, workers=workers)
    assert report.done == ("a", "b", "c")
    for name, (labels, probabilities) in expected.items():
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / f"{name}.nii.gz")[0], labels)
        with np.load(tmp_path / "out" / f"{name}.npz") as stored:
            np.testing.assert_allclose(stored["probabilities"], probabilities, rtol=1e-4, atol=1e-6)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith((".", "tmp"))]


def test_a_network_that_fails_in_the_middle_of_a_case_leaves_nothing_of_it(threshold_predictor, inputs, tmp_path):
    marked = volume(1, shape=(40, 14, 12))
    marked[39, 13, 11] = 12345
    write_volume(inputs / "b_0000.nii.gz", marked)
    predictor = with_network(threshold_predictor(), 12345, RuntimeError("out of memory"))
    report = predictor.predict_files(inputs, tmp_path / "out", save_probabilities=True)
    assert report.done == ("a", "c")
    assert "out of memory" in report.failed["b"]
    assert visible(tmp_path / "out") == [
        "a.nii.gz",
        "a.npz",
        "c.nii.gz",
        "c.npz",
        "dataset.json",
        "plans.json",
        "prediction.json",
    ]


def test_cases_may_be_given_as_lists_or_by_name(threshold_predictor, inputs, tmp_path):
    predictor = threshold_predictor()
    assert predictor.predict_files([[inputs / "a_0000.nii.gz"]], tmp_path / "out").done == ("a",)
    assert predictor.predict_files({"new": [str(inputs / "b_0000.nii.gz")]}, tmp_path / "out").done == ("new",)
    assert_right(tmp_path / "out" / "new.nii.gz", volume(1))
    with pytest.raises(ConfigError, match="two cases named 'a'"):
        predictor.predict_files([[inputs / "a_0000.nii.gz"]] * 2, tmp_path / "out")
    for nothing in ([], {}):
        with pytest.raises(DatasetError, match="inputs: found no cases"):
            predictor.predict_files(nothing, tmp_path / "out")
    with pytest.raises(ConfigError, match="a case without files"):
        predictor.predict_files([[]], tmp_path / "out")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("broken", ["a", "b", "c"])
def test_a_corrupt_file_does_not_stop_the_others(threshold_predictor, inputs, tmp_path, broken, workers, caplog):
    path = inputs / f"{broken}_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    with caplog.at_level(logging.WARNING, logger="autoseg"):
        report = threshold_predictor().predict_files(inputs, tmp_path / "out", workers=workers)
    assert set(report.done) == set("abc") - {broken}
    assert set(report.failed) == {broken}
    assert path.name in report.failed[broken]
    assert broken in caplog.text
    assert not (tmp_path / "out" / f"{broken}.nii.gz").exists()


def test_a_case_with_nan_does_not_stop_the_others(threshold_predictor, inputs, tmp_path):
    array = volume(1).astype(np.float32)
    array[1, 2, 3] = np.nan
    write_volume(inputs / "b_0000.nii.gz", array)
    report = threshold_predictor().predict_files(inputs, tmp_path / "out")
    assert report.done == ("a", "c")
    assert "case b: found 1 voxels that are NaN or infinite" in report.failed["b"]


def test_a_case_with_missing_channels_is_reported_before_and_the_others_are_predicted(threshold_predictor, tmp_path):
    for name, n_channels in (("a", 2), ("b", 1), ("c", 2)):
        for channel in range(n_channels):
            write_volume(tmp_path / "in" / f"{name}_000{channel}.nii.gz", volume(channel))
    report = threshold_predictor(n_channels=2).predict_files(tmp_path / "in", tmp_path / "out")
    assert report.done == ("a", "c")
    assert list(report.failed) == ["b"]
    assert "expected 2 files" in report.failed["b"]


def test_a_file_without_channel_number_is_named_and_the_others_are_predicted(threshold_predictor, inputs, tmp_path):
    (inputs / "c_0000.nii.gz").rename(inputs / "c.nii.gz")
    report = threshold_predictor().predict_files(inputs, tmp_path / "out")
    assert report.done == ("a", "b")
    assert list(report.failed) == ["c.nii.gz"]
    assert "Rename it, say to c_0000.nii.gz" in report.failed["c.nii.gz"]


def test_inputs_none_of_which_fits_are_refused_before_anything_is_written(threshold_predictor, inputs, tmp_path):
    with pytest.raises(DatasetError, match=r"case a: found 1 channel, expected 2") as caught:
        threshold_predictor(n_channels=2).predict_files(inputs, tmp_path / "out")
    assert len(caught.value.faults) == 3
    assert not (tmp_path / "out").exists()


def test_an_empty_or_missing_input_folder_is_refused(threshold_predictor, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        threshold_predictor().predict_files(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(DatasetError, match="found nothing"):
        threshold_predictor().predict_files(tmp_path / "in", tmp_path / "out")


def test_predictions_never_go_among_images_or_into_a_data_set(threshold_predictor, inputs, tmp_path):
    with pytest.raises(ConfigError, match="found the input images in it"):
        threshold_predictor().predict_files(inputs, inputs)
    (tmp_path / "raw" / "imagesTr").mkdir(parents=True)
    with pytest.raises(ConfigError, match="found a data set in it"):
        threshold_predictor().predict_files(inputs, tmp_path / "raw")
    (tmp_path / "raw" / "dataset.json").write_text("{}")
    for name in ("labelsTr", "labelsTr_scribble", "imagesTr"):
        with pytest.raises(ConfigError, match="found a folder of the data set in"):
            threshold_predictor().predict_files(inputs, tmp_path / "raw" / name)
    assert visible(inputs) == ["a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz"]


class FailsOn(nn.Module):
    """A network that raises for one image, recognised by its first voxel."""

    def __init__(self, network, value, error):
        super().__init__()
        self.network, self.value, self.error = network, value, error

    def forward(self, images):
        if (images == self.value).any():
            raise self.error
        return self.network(images)


def with_network(predictor, value, error):
    network = FailsOn(predictor.model.networks[0], value, error)
    return replace(predictor, model=replace(predictor.model, networks=(network,)))


@pytest.mark.parametrize("error", [ModelError("logits: found NaN"), RuntimeError("out of memory")])
def test_a_case_on_which_the_network_fails_does_not_stop_the_others(threshold_predictor, inputs, tmp_path, error):
    marked = volume(1)
    marked[4, 7, 6] = 12345
    write_volume(inputs / "b_0000.nii.gz", marked)
    report = with_network(threshold_predictor(), 12345, error).predict_files(inputs, tmp_path / "out")
    assert report.done == ("a", "c")
    assert str(error) in report.failed["b"]


def test_a_case_that_cannot_be_written_does_not_stop_the_others(threshold_predictor, inputs, tmp_path, monkeypatch):
    original = folder_module.write_labels

    def write(path, labels, geometry):
        if path.name.startswith("b"):
            raise OSError(28, "No space left on device")
        original(path, labels, geometry)

    monkeypatch.setattr(folder_module, "write_labels", write)
    report = threshold_predictor().predict_files(inputs, tmp_path / "out")
    assert report.done == ("a", "c")
    assert "No space left" in report.failed["b"]


def test_an_interrupt_leaves_whole_files_only(threshold_predictor, inputs, tmp_path):
    marked = volume(1)
    marked[4, 7, 6] = 12345
    write_volume(inputs / "b_0000.nii.gz", marked)
    predictor = with_network(threshold_predictor(), 12345, KeyboardInterrupt())
    threads_before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        predictor.predict_files(inputs, tmp_path / "out")
    assert visible(tmp_path / "out") == ["a.nii.gz", "dataset.json", "plans.json", "prediction.json"]
    assert_right(tmp_path / "out" / "a.nii.gz", volume(0))
    assert threading.active_count() == threads_before
