"""A case that is read box by box has the codes, intensities and patches of the same case in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoseg.cases.cache import open_store
from autoseg.cases.case import Case
from autoseg.cases.label_codes import encode_target
from autoseg.cases.store import IMAGE, TARGET
from autoseg.core.boxes import Box, blocks
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Head, Labels
from autoseg.dataset.volume_part import VolumePart
from autoseg.preprocessing import volume_case
from autoseg.preprocessing.pipeline import preprocess
from autoseg.preprocessing.volume_case import VolumeJob, write_volume_case

HEADS = tuple(Head(name, (index,), (index,), index == 0) for index, name in enumerate(("background", "a", "b")))
LABELS = Labels((0, 1, 2), ("background", "a", "b"), HEADS, ignore=3, has_masks=True)
SHAPE = (14, 37, 45)


def write_volume(folder: Path, shape=SHAPE, spacing=(2.0, 1.0, 1.0), n_channels=1) -> tuple[np.ndarray, np.ndarray]:
    """Write volume.npy and labels.npy; return (C, z, y, x) intensities and the labels, about half of them unknown."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (n_channels, *shape)).astype(np.uint8)
    labels = rng.integers(0, 4, [-(-edge // 4) for edge in shape]).astype(np.uint8)
    for axis in range(3):
        labels = labels.repeat(4, axis=axis)
    labels = np.ascontiguousarray(labels[tuple(map(slice, shape))])
    np.save(folder / "volume.npy", image[0] if n_channels == 1 else image)
    np.save(folder / "labels.npy", labels)
    for name in ("volume", "labels"):
        (folder / f"{name}.json").write_text(json.dumps({"spacing": spacing}))
    return image, labels


def files_of(folder: Path, box: Box | None = None) -> CaseFiles:
    part = VolumePart((str(folder / "volume.npy"),), box, str(folder / "labels.npy"))
    return CaseFiles("a", part.image_paths, part.label_path, volume=part)


def job(folder: Path, plan, files: CaseFiles, name="3d_fullres") -> VolumeJob:
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    return VolumeJob(files, LABELS, plan, plan.configuration(name), cache, "version:1")


def in_memory(image, labels, spacing, plan, name="3d_fullres"):
    target = encode_target(labels, LABELS, "a", valid=np.ones(labels.shape, bool))
    case = Case("a", image.astype(np.float32), Geometry(spacing=spacing), target)
    return preprocess(case, plan, plan.configuration(name), unknown=target.undrawn)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(volume_case, "CHUNK", (4, 8, 8))
    monkeypatch.setattr(volume_case, "SHARD_VOXELS", 4 * 16 * 16)
    monkeypatch.setattr(volume_case, "LEAST_EDGE", 16)


@pytest.mark.parametrize("scheme", ["zscore", "ct", "rescale_to_0_1", "rgb_to_0_1", "none"])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_without_resampling_the_image_is_read_where_it_lies(tmp_path, make_plan, scheme, transpose):
    spacing = (2.0, 1.0, 1.0)
    image, labels = write_volume(tmp_path, n_channels=2)
    wanted = tuple(spacing[axis] for axis in transpose)
    plan = make_plan(normalization=(scheme,) * 2, transpose=transpose, spacing=wanted).model_copy(
        update={"crop": False}
    )
    expected = in_memory(image, labels, spacing, plan)
    work = job(tmp_path, plan, files_of(tmp_path))
    write_volume_case(work)
    case = open_store(work.folder, "a")
    assert not (work.folder / "a.image.zarr").exists()
    assert case.entry.record.shape == expected.record.shape
    assert case.entry.record.voxel_order == expected.record.voxel_order
    for box in blocks(Box.whole(expected.record.shape), (5, 17, 40)):
        np.testing.assert_array_equal(case.read(TARGET, box), expected.codes[box.slices])
        np.testing.assert_allclose(
            case.read(IMAGE, box),
            expected.image[(slice(None), *box.slices)],
            rtol=0,
            atol=1e-5 * np.ptp(expected.image),
        )
    np.testing.assert_array_equal(case.entry.table.drawn, expected.label_sets)
