"""Memory of a case, by hand; of many cases the largest counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from toy import write_toy_dataset

from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import Dataset
from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.io.images import write_labels
from autoseg.planning import extract_fingerprint, plan
from autoseg.planning.memory_estimate import _BASE, preprocessing_bytes, survey_bytes

SHAPE = (12, 20, 18)
VOXELS = 12 * 20 * 18


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = write_toy_dataset(tmp_path_factory.mktemp("toy") / "Dataset900_Toy", n_cases=3, shape=SHAPE)
    geometry = Geometry(spacing=(4.0, 1.0, 1.0))  # the last case is twice as thick
    for kind in ("imagesTr/toy_002_0000", "labelsTr/toy_002"):
        write_labels(folder / f"{kind}.nii.gz", np.arange(VOXELS, dtype=np.uint8).reshape(SHAPE) % 3, geometry)
    return Dataset.load(folder)


def test_the_largest_case_is_held_as_float32_with_values_and_codes(dataset):
    assert survey_bytes(dataset) - _BASE == VOXELS * (4 + 2)


def test_a_case_is_held_as_stored_normalised_between_axes_and_resampled(dataset):
    fingerprint = extract_fingerprint(dataset)
    planned = plan(dataset, fingerprint, "small")
    configuration = planned.configurations["3d_fullres"].model_copy(update={"spacing": (2.0, 1.0, 1.0)})
    stored = VOXELS * (4 + 1)

    def need(*names):
        return preprocessing_bytes(dataset, fingerprint, planned, configuration, names) - _BASE

    assert planned.transpose_forward == (0, 1, 2)
    assert need("toy_000") == stored + VOXELS * 4 + VOXELS * 4 + VOXELS * 5
    assert need("toy_002") == stored + VOXELS * 4 + VOXELS * 4 + 2 * VOXELS * 5
    assert need("toy_000", "toy_001", "toy_002") == need("toy_002")
    assert need() == 0


def test_distances_to_annotation_count_where_they_are_promised(dataset):
    fingerprint = extract_fingerprint(dataset)
    planned = plan(dataset, fingerprint, "small")
    configuration = planned.configurations["3d_fullres"]
    promised = replace(dataset, protocol=AnnotationProtocol(reach_mm=10.0))
    plain, more = (
        preprocessing_bytes(item, fingerprint, planned, configuration, ["toy_000"]) for item in (dataset, promised)
    )
    assert more - plain == 24 * VOXELS


def test_files_that_cannot_be_read_need_nothing(tmp_path):
    folder = write_toy_dataset(tmp_path / "Dataset900_Toy", n_cases=2)
    for path in (folder / "imagesTr").iterdir():
        path.write_bytes(b"no image")
    assert survey_bytes(Dataset.load(folder)) == _BASE


def test_a_box_counts_with_its_context_and_not_with_its_volume(tmp_path):
    volume = np.random.default_rng(0).integers(0, 250, (64, 256, 256)).astype(np.uint8)
    np.save(tmp_path / "v.npy", volume)
    np.save(tmp_path / "l.npy", (volume > 100).astype(np.uint8))
    boxes = {"a": {"image": "v.npy", "label": "l.npy", "box": [[0, 8], [0, 32], [100, 132]]}}
    content = {"channel_names": {"0": "EM"}, "labels": {"background": 0, "cell": 1}, "boxes": boxes}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = Dataset.load(tmp_path)
    assert survey_bytes(dataset) - _BASE == 8 * 32 * 32 * (4 + 2)
    fingerprint = extract_fingerprint(dataset)
    planned = plan(dataset, fingerprint, "small")
    configuration = planned.configurations["3d_fullres"].model_copy(update={"patch_size": (8, 32, 32)})
    read = (8 + 6) * (32 + 24) * (32 + 48)  # 0.75 of the patch, but z and y begin with the volume
    need = preprocessing_bytes(dataset, fingerprint, planned, configuration, ["a"]) - _BASE
    assert need == read * (5 + 4 + 4 + 5)
