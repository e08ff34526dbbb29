"""Cases of volumes are checked and measured by their own voxels, and every fault names the case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from autoseg.dataset.dataset import Dataset
from autoseg.inspection.integrity import check_dataset
from autoseg.inspection.measure import extract_fingerprint

SHAPE = (12, 40, 40)
RNG = np.random.default_rng(0)
VOLUME = RNG.integers(0, 200, SHAPE).astype(np.uint8)
LABELS = (RNG.random(SHAPE) < 0.3).astype(np.uint8)
BOX = [[0, 4], [0, 20], [10, 30]]
INSIDE = tuple(slice(*span) for span in BOX)


def written(folder: Path, **boxes: dict[str, Any]) -> Dataset:
    np.save(folder / "v.npy", VOLUME)
    np.save(folder / "wide.npy", RNG.integers(0, 200, (12, 40, 41)).astype(np.uint8))
    with h5py.File(folder / "l.h5", "w") as file:
        file["all"], file["cube"], file["nothing"] = LABELS, LABELS[INSIDE], LABELS * 0
    entries = {name: {"image": "v.npy", "box": BOX, "label": "l.h5:all"} | entry for name, entry in boxes.items()}
    n_channels = 2 if any(isinstance(entry["image"], list) for entry in entries.values()) else 1
    content = {
        "channel_names": {str(index): f"c{index}" for index in range(n_channels)},
        "labels": {"background": 0, "cell": 1}, "boxes": entries,
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(content))
    return Dataset.load(folder)


@pytest.mark.parametrize(
    ("entry", "where", "text"),
    [
        ({"box": [[0, 4], [30, 50], [0, 20]]}, "image of", "the box [0:4, 30:50, 0:20] (z, y, x) of an array of (12, "),
        ({"label": "l.h5:cube", "box": [[0, 5], [0, 20], [0, 20]]}, "label file of", "of the shape of the box, (5, "),
        ({"label": "l.h5:cube", "box": [[0, 2], [0, 20], [0, 20]]}, "label file of", "the shape (4, 20, 20)"),
        ({"valid_mask": "l.h5:cube", "box": [[0, 2], [0, 9], [0, 9]]}, "valid mask of", "of the box, (2, 9, 9), or of"),
        ({"valid_mask": "l.h5:cube", "box": [[0, 5], [0, 20], [0, 20]]}, "valid mask of", "of the shape of the box, "),
        ({"valid_mask": "l.h5:nothing"}, "valid mask of", "0 everywhere"),
        ({"image": ["v.npy", "wide.npy"]}, "image of", "Give the channels of one volume"),
        ({"label": "l.h5:labels"}, "label file of", "found the data sets all, cube, nothing"),
    ],
    ids=["box", "label", "label of another box", "mask of another box", "mask", "empty mask", "channels", "key"],
)
def test_a_fault_names_case_array_and_remedy(tmp_path, entry, where, text):
    faults = map(str, check_dataset(written(tmp_path, a=entry)).faults)
    assert any(fault.startswith(f"{where} case 'a'") and text in fault for fault in faults)


def test_a_box_without_faults_has_none_whichever_label_array_it_has(tmp_path):
    dataset = written(tmp_path, a={}, b={"label": "l.h5:cube"}, c={"box": [[4, 12], [0, 40], [0, 40]]})
    report = check_dataset(dataset)
    assert not report.faults
    assert report.cases["a"] == report.cases["b"]
    assert report.cases["a"].positive["cell"] == LABELS[INSIDE].sum()
    fingerprint = extract_fingerprint(dataset)
    assert fingerprint.shapes_after_crop == ((4, 20, 20), (4, 20, 20), (8, 40, 40))
    assert not fingerprint.crop
    assert fingerprint.drawn_fraction == {"a": 1, "b": 1, "c": 1}
    foreground = [VOLUME[INSIDE][LABELS[INSIDE] == 1]] * 2 + [VOLUME[4:][LABELS[4:] == 1]]
    measured = fingerprint.foreground_intensity_properties_per_channel["0"]
    assert measured.mean == pytest.approx(np.mean([values.mean() for values in foreground]))


def test_missing_tiles_are_a_warning_and_count_as_unannotated(tmp_path):
    (tmp_path / "tiles").mkdir()
    for z in range(12):
        for column in range(2):
            if (z, column) not in ((1, 0), (3, 1)):
                tile = VOLUME[z, :, 20 * column : 20 * column + 20]
                tifffile.imwrite(tmp_path / f"tiles/{z}_0_{column}.tif", tile)
    tiles = {
        "image": [f"tiles/{z}_{{row}}_{{column}}.tif" for z in range(12)], "depth": 12, "height": 40, "width": 40,
        "tile_size": [40, 20],
    }  # fmt: skip
    (tmp_path / "tiles.json").write_text(json.dumps(tiles))
    report = check_dataset(written(tmp_path, a={"image": "tiles.json"}))
    assert not report.faults
    (warning,) = [text for text in report.warnings if "missing" in text]
    assert "case 'a': 2 tiles of" in warning and "400 voxels, which count as unannotated" in warning
    assert "[1:2, 0:20, 0:10]" in warning and "[3:4, 0:20, 10:20]" in warning  # in voxels of the box
    assert report.cases["a"].annotated_fraction == pytest.approx(1 - 400 / 1600)


def test_whole_volumes_in_the_folder_of_images_are_cases(tmp_path):
    for name, array in (("imagesTr/a_0000", VOLUME), ("labelsTr/a", LABELS)):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / f"{name}.npy", array)
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "file_ending": ".npy"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    report = check_dataset(Dataset.load(tmp_path))
    assert not report.faults
    assert report.cases["a"].positive["cell"] == LABELS.sum()
    assert any("label maps are written as .nii.gz" in text for text in report.warnings)
