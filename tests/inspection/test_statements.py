"""Promises are held against the annotation of a whole data set; what is estimated is estimated once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from toy import IGNORE, write_toy_dataset

from autoseg.annotation.promises import PromiseCounts, check_against_reference, infer
from autoseg.core.errors import PlanError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.estimates import PromiseEstimates, ReachEstimate
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.inspection.statements import (
    PROMISES_FILE,
    PromiseReport,
    check_promises,
    current_estimates,
    estimate_promises,
    not_estimated,
    settles_anything,
    unclear_slices,
    with_estimates,
    with_known_promises,
)
from autoseg.io.images import read_image, read_labels, write_labels

COARSE = 4
SHORT = PromiseEstimates(
    classes={1: ReachEstimate(reach_mm=2, diameter_mm=1.6, n_cases=3)}, slice_axis=None, unclear=()
)


@pytest.fixture(params=[(1, 30, 28), (6, 24, 26)], ids=["2d", "3d"])
def folder(request, tmp_path):
    """Three cases, most of each unknown; the first is dense."""
    made = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3, shape=request.param)
    ending = ".png" if request.param[0] == 1 else ".nii.gz"
    for index in range(3):
        path = made / "labelsTr" / f"toy_{index:03d}{ending}"
        truth, geometry = read_labels(made / "labelsTr_dense" / path.name)
        if index:
            drawn = np.zeros(truth.shape, bool)
            drawn[:, ::5] = True
            truth = np.where(drawn, truth, IGNORE).astype(np.uint8)
        write_labels(path, truth, geometry)
    return made


def promise(folder, **protocol):
    content = json.loads((folder / "dataset.json").read_text())
    content |= {"annotation_protocol": protocol, "label_sets": {str(COARSE): ["bright", "brighter"]}}
    content["labels"]["ignore"] = 9
    for path in (folder / "labelsTr").iterdir():
        labels, geometry = read_labels(path)
        if (labels == IGNORE).any():
            write_labels(path, np.where(labels == IGNORE, 9, labels).astype(np.uint8), geometry)
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


def test_each_promise_says_what_it_settles_and_what_it_would_get_wrong(folder):
    dataset = promise(folder, classes_complete_in="slice", reach_mm=8, background_encloses=True)
    report = check_promises(dataset, estimate_promises(dataset))
    assert report.faults == () and (report.n_cases, report.n_dense) == (3, 1)
    names = ["classes_complete_in", "reach_mm", "background_encloses", "the promises together"]
    assert list(report.settled) == list(report.reference) == names
    together = report.settled["the promises together"]
    assert together.informative >= max(report.settled[name].informative for name in names)
    assert together.drawn < together.informative <= together.voxels
    assert report.reference["reach_mm"].foreground > 0
    assert report.reach_mm == {"bright": 8.0, "brighter": 8.0}
    is_2d = dataset.cases[0].label.suffix == ".png"
    assert report.slice_axes == {"z" if is_2d else "y": 3}  # every fifth row is drawn
    as_json = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert as_json["settled"]["reach_mm"]["informative"] == report.settled["reach_mm"].share("informative")
    assert as_json["dense_cases_as_scribbled"]["reach_mm"]["wrong_foreground"] < 0.5


def test_a_reach_that_is_too_short_shows_on_dense_cases(folder):
    wrong = []
    for reach in (1, 50):
        dataset = promise(folder, reach_mm=reach)
        wrong.append(check_promises(dataset, estimate_promises(dataset)).reference["reach_mm"].share("wrong"))
    assert wrong[0] > 0.1 and wrong[1] == 0


@pytest.mark.slow
def test_workers_change_nothing(tmp_path):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2, shape=(1, 30, 28))
    dataset = promise(folder, classes_complete_in="slice", reach_mm="auto")
    seen = []
    estimates = estimate_promises(dataset)
    report = check_promises(dataset, estimates, workers=2, progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(1, 2), (2, 2)]
    assert report == check_promises(dataset, estimates)


def test_what_a_promise_would_take_from_drawn_sets_is_told_and_kept(folder):
    dataset = promise(folder, reach_mm=2)
    path = dataset.case("toy_001").label
    labels, geometry = read_labels(path)
    labels = labels.copy()
    labels[0, 1, 1:3] = COARSE
    write_labels(path, labels, geometry)
    report = check_promises(dataset, estimate_promises(dataset))
    assert report.faults == () and report.kept_open == {"reach_mm": {"toy_001": 2}}
    assert report.warnings[0].startswith(
        "case 'toy_001': 2 voxels are annotated as 'bright' or 'brighter', the first at (0, 1, 1) (z, y, x). "
        "They keep all these classes. reach_mm would exclude 'bright' or 'brighter'"
    )
    assert json.loads(json.dumps(report.as_json()))["kept_open"] == {"reach_mm": {"toy_001": 2}}


def in_slices(folder, axis, numbers=(3, 11, 17), spacing=(1.0, 1.0, 1.0)):
    """Write the dense truth of every case again, in whole slices across ``axis`` alone."""
    for path in (folder / "labelsTr").iterdir():
        truth, _ = read_labels(folder / "labelsTr_dense" / path.name)
        labels = np.full_like(truth, 9)
        places = (*[slice(None)] * axis, list(numbers))
        labels[places] = truth[places]
        made = Geometry(spacing=spacing, ndim=3)
        write_labels(path, labels, made)
        image, _ = read_image([folder / "imagesTr" / path.name.replace(".nii", "_0000.nii")])
        write_labels(folder / "imagesTr" / path.name.replace(".nii", "_0000.nii"), image[0].astype(np.uint8), made)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_drawing_shows_across_which_axis_slices_lie(tmp_path, axis):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3, shape=(20, 22, 24))
    dataset = promise(folder, classes_complete_in="slice")
    in_slices(folder, axis)
    estimates = estimate_promises(dataset)
    assert (estimates.slice_axis, estimates.unclear) == (axis, ())
    report = check_promises(dataset, estimates)
    assert report.faults == () and report.slice_axes == {"zyx"[axis]: 3}
    spelt_out = with_estimates(dataset, estimates)
    assert spelt_out.protocol.slice_axis == axis
    for case in dataset.cases:
        labels, geometry = read_labels(case.label)
        dense, _ = read_labels(folder / "labelsTr_dense" / case.label.name)
        codes, label_sets = dataset.labels.encode(labels, case.name)
        inference = infer(codes, label_sets, geometry.spacing, spelt_out.protocol)
        assert inference.label_sets[inference.codes, dense].all()


def test_where_nothing_shows_the_slices_the_axis_is_asked_for(tmp_path):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2, shape=(20, 22, 24))
    dataset = promise(folder, classes_complete_in="slice")
    in_slices(folder, 0, range(0, 20))
    for path in (folder / "labelsTr").iterdir():
        labels, geometry = read_labels(path)
        is_dot = np.random.default_rng(0).random(labels.shape) < 0.1  # anywhere
        write_labels(path, np.where(is_dot, labels, 9).astype(np.uint8), geometry)
    (fault,) = unclear_slices(dataset, estimate_promises(dataset))
    assert fault.found.startswith('classes_complete_in "slice" without slice_axis') and "'toy_000'" in fault.found
    assert 'Write "slice_axis": "z", "y" or "x" into annotation_protocol' in fault.fix
    assert check_promises(dataset, estimate_promises(dataset)).faults == (fault,)
    said = promise(folder, classes_complete_in="slice", slice_axis="y")
    assert unclear_slices(said, estimate_promises(said)) == () and said.protocol.slice_axis == 1
    encloses = promise(folder, background_encloses=True)
    assert unclear_slices(encloses, estimate_promises(encloses)) == ()  # paths lead through the volume then


@pytest.mark.parametrize("promised", [{"classes_complete_in": "slice"}, {"background_encloses": True}])
def test_a_case_drawn_across_another_axis_than_is_said_is_named(tmp_path, promised):
    """Cases drawn in axial slices and stored in two orders: one slice_axis cannot be true of both."""
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=3, shape=(22, 24, 26))
    in_slices(folder, 0)
    dataset = promise(folder, **promised, slice_axis="z")
    assert not any("slice_axis" in text for text in check_promises(dataset, estimate_promises(dataset)).warnings)
    for part, name in (("imagesTr", "toy_001_0000"), ("labelsTr", "toy_001")):
        image = sitk.DICOMOrient(sitk.ReadImage(str(folder / part / f"{name}.nii.gz")), "LIP")
        sitk.WriteImage(image, str(folder / part / f"{name}.nii.gz"))
    (warning,) = (text for text in check_promises(dataset, estimate_promises(dataset)).warnings if "slice_axis" in text)
    assert warning.startswith("case 'toy_001': annotated in slices across y, but slice_axis is z")


def test_a_slip_of_the_pen_is_a_warning(folder):
    dataset = promise(folder, reach_mm=2)
    path = dataset.case("toy_001").label
    labels, geometry = read_labels(path)
    labels = np.full_like(labels, 9)
    labels[0, 3, 2:24] = 1
    labels[0, 20, 20] = 1
    write_labels(path, labels, geometry)
    (warning,) = check_promises(dataset, estimate_promises(dataset)).warnings
    assert "case 'toy_001': 1 voxels of 'bright' at (0, 20, 20) (z, y, x) lie farther than its reach of 2 mm" in warning


def test_estimates_are_made_once_and_again_when_a_file_changes(folder, tmp_path):
    dataset = promise(folder, reach_mm={"bright": "auto", "brighter": 3})
    for case in dataset.cases:
        truth, geometry = read_labels(folder / "labelsTr_dense" / case.label.name)
        write_labels(case.label, truth, geometry)
    estimates = current_estimates(dataset, tmp_path)
    assert set(estimates.classes) == {1}
    assert PromiseEstimates.model_validate_json((tmp_path / PROMISES_FILE).read_text()) == estimates
    assert with_known_promises(dataset, tmp_path).protocol.reach_mm == {1: estimates.classes[1].reach_mm, 2: 3.0}

    path = dataset.case("toy_001").label
    labels, geometry = read_labels(path)
    stamp = (tmp_path / PROMISES_FILE).stat().st_mtime_ns
    assert current_estimates(dataset, tmp_path) == estimates
    assert (tmp_path / PROMISES_FILE).stat().st_mtime_ns == stamp
    write_labels(path, np.where(labels == 1, 9, labels).astype(np.uint8), geometry)
    assert current_estimates(dataset, tmp_path).classes == {}


def test_nothing_to_estimate_writes_and_reads_nothing(folder, tmp_path):
    dataset = promise(folder, reach_mm=4)
    assert current_estimates(dataset, tmp_path / "new").classes == {}
    assert not (tmp_path / "new").exists()
    assert with_known_promises(dataset, tmp_path / "new").protocol.reach_mm == 4
    auto = promise(folder, reach_mm="auto")
    assert with_known_promises(auto, tmp_path / "new") is auto


def test_a_damaged_file_is_named_and_made_anew_when_planning(folder, tmp_path):
    dataset = promise(folder, reach_mm="auto")
    (tmp_path / PROMISES_FILE).write_text('{"classes": 3}')
    with pytest.raises(PlanError, match=r"annotation_promises\.json: .*plan again"):
        with_known_promises(dataset, tmp_path)
    assert current_estimates(dataset, tmp_path).source_hash


def test_classes_that_cannot_be_estimated_are_named_with_what_to_write(folder):
    dataset = promise(folder, reach_mm="auto")
    (warning,) = not_estimated(dataset, SHORT)
    assert (
        warning.startswith("reach_mm of 'brighter' cannot be estimated") and '"reach_mm": {"brighter": 40}' in warning
    )
    (warning,) = not_estimated(dataset, estimate_promises(dataset))
    assert '"reach_mm": {"bright": 40, "brighter": 40}' in warning
    assert not_estimated(promise(folder, reach_mm=3), SHORT) == ()


def test_dense_data_and_no_promises_are_not_looked_at(tmp_path):
    dense = Dataset.load(write_toy_dataset(tmp_path / "dense", n_cases=1, sparse=False))
    assert not settles_anything(dense) and check_promises(dense, estimate_promises(dense)) == PromiseReport()


def test_cases_that_cannot_be_read_are_left_to_the_integrity_check(folder):
    dataset = promise(folder, reach_mm=3)
    path = dataset.case("toy_001").label
    _, geometry = read_labels(path)
    write_labels(path, np.ones((1, 3, 3), np.uint8), Geometry(spacing=geometry.spacing, ndim=geometry.ndim))
    assert check_promises(dataset, estimate_promises(dataset)).n_cases == 2


@pytest.mark.slow
def test_real_scribbles_keep_the_promises_of_their_protocol(real_data):
    dataset = Dataset.load(real_data / "Dataset027_ACDC" / "dataset_scribble.json")
    protocol = AnnotationProtocol(classes_complete_in="slice", reach_mm=37.5)
    counts = PromiseCounts()
    excluded = 0
    for case in dataset.cases[:8]:
        labels, geometry = read_labels(case.label)
        dense, _ = read_labels(real_data / "Dataset027_ACDC" / "labelsTr" / case.label.name)
        codes, label_sets = dataset.labels.encode(labels, case.name)
        inference = infer(codes, label_sets, geometry.spacing, protocol)
        counts += check_against_reference(codes, label_sets, inference, dense)
        is_background = inference.label_sets.sum(axis=1)[inference.codes] == 1
        excluded += int((is_background & (dense > 0)).sum())
    assert counts.share("settled") + counts.share("drawn") > 0.85
    assert excluded == counts.wrong == 0
