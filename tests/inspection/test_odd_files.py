"""A single odd or damaged file of a data set is reported by the check and never ends it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile

from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.inspection.survey import survey_dataset
from autoseg.io import file_formats

RNG = np.random.default_rng(0)
LABELS = np.zeros((8, 16, 16), np.uint8)
LABELS[2:6, 4:12, 4:12] = 1
KNOWN = {"imagej": True, "resolution": (2, 2), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 2.0}}
WITHOUT_Z = {"imagej": True, "resolution": (2, 2), "metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.0}}
UNEVEN = {
    "imagej": True,
    "resolution": (2, 2),
    "metadata": {"axes": "ZYX", "unit": "nm", "spacing": 2.0, "zunit": "um"},
}


def tiff_dataset(folder: Path, *forms) -> Dataset:
    """Write one case of 8 x 16 x 16 voxels per form (options of ``tifffile.imwrite``): ``c0``, ``c1`` ..."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number, options in enumerate(forms):
        image = (RNG.normal(60, 6, LABELS.shape) + 100 * LABELS).astype(np.uint8)
        tifffile.imwrite(folder / f"imagesTr/c{number}_0000.tif", image, photometric="minisblack", **options)
        tifffile.imwrite(folder / f"labelsTr/c{number}.tif", LABELS, photometric="minisblack", **options)
    return described(folder, ".tif")


def described(folder: Path, ending: str) -> Dataset:
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "file_ending": ending}
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


def test_unknown_voxel_sizes_are_said_once_for_all_cases_and_stated_ones_are_not(tmp_path):
    report = check_dataset(tiff_dataset(tmp_path / "unknown", *[WITHOUT_Z] * 6))
    (warning,) = [line for line in report.warnings if "assumed" in line]
    assert warning.startswith("6 cases (c0, c1, c2, c3, c4 and 1 more): the voxel size in z is not stated")
    assert '{"spacing": [z, 0.0005, 0.0005]}' in warning
    assert report.faults == ()
    known = check_dataset(tiff_dataset(tmp_path / "known", KNOWN, KNOWN))
    assert not [line for line in known.warnings if "mm" in line]


def test_assumed_voxel_sizes_are_not_mixed_with_stated_ones(tmp_path):
    dataset = tiff_dataset(tmp_path, KNOWN, WITHOUT_Z, KNOWN)
    (fault,) = check_dataset(dataset).faults
    assert fault.found.startswith("no (complete) voxel size in 1 cases (c1), and one in 2 (c0, c2;")
    assert survey_dataset(dataset).report.faults == (fault,)
    example = fault.fix.partition("for example ")[2].partition(", or")[0]
    (tmp_path / "imagesTr" / "c1.json").write_text(example)
    assert check_dataset(Dataset.load(tmp_path)).faults == ()


def test_a_sidecar_written_afterwards_is_noticed(tmp_path):
    dataset = tiff_dataset(tmp_path / "data", WITHOUT_Z, WITHOUT_Z)
    kept = tmp_path / "kept.npz"
    assert survey_dataset(dataset, cache=kept).measures["c0"].geometry.spacing == (1.0, 1.0, 1.0)
    for case in dataset.case_names:
        (dataset.folder / "imagesTr" / f"{case}.json").write_text('{"spacing": [0.002, 0.0005, 0.0005]}')
    again = survey_dataset(dataset, cache=kept)
    assert again.measures["c0"].geometry.spacing == (0.002, 0.0005, 0.0005)
    assert not [line for line in again.report.warnings if "assumed" in line]


def test_edges_that_differ_a_thousandfold_are_suspected(tmp_path):
    report = check_dataset(tiff_dataset(tmp_path, UNEVEN, UNEVEN))
    (warning,) = [line for line in report.warnings if "factor" in line]
    assert "voxels are 0.002 x 5e-07 x 5e-07 mm (z, y, x), edges that differ by a factor of 4e+03" in warning


@pytest.mark.parametrize("workers", [1, 2])
def test_what_nobody_foresaw_at_one_file_does_not_end_the_check(tmp_path, monkeypatch, workers):
    dataset = tiff_dataset(tmp_path, KNOWN, KNOWN, KNOWN)
    (tmp_path / "labelsTr" / "c1.tif").write_bytes(b"II*\0" + bytes(range(200)) * 4)
    for report in (check_dataset(dataset, workers=workers), survey_dataset(dataset, workers=workers).report):
        (fault,) = report.faults
        assert "label file of case 'c1'" in fault.where and "c1.tif" in fault.where
        assert set(report.cases) == {"c0", "c2"}


def test_an_error_of_a_library_names_the_file(tmp_path, monkeypatch):
    dataset = tiff_dataset(tmp_path, KNOWN, KNOWN)

    def broken(path):
        if "c0" in path.name:
            raise KeyError("no such tag")
        return file_formats.read_tiff(path)

    monkeypatch.setitem(file_formats.FORMATS, ".tif", file_formats._TIFF._replace(read=broken, read_labels=broken))
    report = check_dataset(dataset)
    assert [fault.where.split(":")[0] for fault in report.faults] == ["image of case 'c0'", "label file of case 'c0'"]
    assert "KeyError: 'no such tag'" in report.faults[0].found
    assert set(report.cases) == {"c1"}


def test_an_error_of_our_own_names_the_case(tmp_path, monkeypatch):
    dataset = tiff_dataset(tmp_path, KNOWN, KNOWN)
    monkeypatch.setattr("autoseg.inspection.case_check.inspect_channels", lambda image: 1 / 0)
    for report in (check_dataset(dataset), survey_dataset(dataset).report):
        assert [fault.where for fault in report.faults] == ["case 'c0'", "case 'c1'"]
        assert "ZeroDivisionError" in report.faults[0].found


def test_mhd_data_sets_say_that_label_maps_become_mha(tmp_path):
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    for number in range(2):
        image = (RNG.normal(60, 6, LABELS.shape) + 100 * LABELS).astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(tmp_path / f"imagesTr/c{number}_0000.mhd"))
        sitk.WriteImage(sitk.GetImageFromArray(LABELS), str(tmp_path / f"labelsTr/c{number}.mhd"))
    report = check_dataset(described(tmp_path, ".mhd"))
    assert report.faults == ()
    assert [line for line in report.warnings if "label maps are written as .mha" in line]
