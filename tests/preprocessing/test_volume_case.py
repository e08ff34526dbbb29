"""A case that is read box by box has the codes, intensities and patches of the same case in memory."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.cases.cache import open_store, read_entry, remove_cases
from autoseg.cases.case import Case
from autoseg.cases.label_codes import encode_target
from autoseg.cases.store import IMAGE, TARGET
from autoseg.core.boxes import Box, blocks
from autoseg.core.errors import CacheError, FileFormatError
from autoseg.core.geometry import Geometry
from autoseg.dataset.dataset import CaseFiles
from autoseg.dataset.labels import Head, Labels
from autoseg.dataset.volume_part import VolumePart
from autoseg.io.arrays import open_array
from autoseg.io.zarr_writer import ZarrWriter, create_zarr
from autoseg.preprocessing import volume_case
from autoseg.preprocessing.label_set_unions import LabelSetUnions
from autoseg.preprocessing.locations import find_locations
from autoseg.preprocessing.pipeline import preprocess
from autoseg.preprocessing.resample_codes import resample_codes
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


def of_box(image, box):
    return image[(slice(None), *box.slices)]


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


@pytest.mark.parametrize(
    ("spacing", "name"),
    [((2.0, 1.5, 0.7), "3d_fullres"), ((9.0, 1.3, 0.8), "3d_fullres"), ((2.0, 1.5, 0.7), "2d")],
    ids=["3d", "thick slices", "2d"],
)
def test_what_must_be_resampled_is_resampled_block_by_block(tmp_path, make_plan, monkeypatch, spacing, name):
    monkeypatch.setattr(volume_case, "MOST", 30_000)
    monkeypatch.setattr(volume_case, "MOST_CODES", 30_000)
    image, labels = write_volume(tmp_path, spacing=spacing)
    plan = make_plan().model_copy(update={"crop": False})
    expected = in_memory(image, labels, spacing, plan, name)
    work = job(tmp_path, plan, files_of(tmp_path), name)
    write_volume_case(work)
    case = open_store(work.folder, "a")
    assert case.entry.record == expected.record.model_copy(update={"geometry": case.entry.record.geometry})
    whole = Box.whole(expected.record.shape)
    span = np.ptp(expected.image)
    np.testing.assert_allclose(case.read(IMAGE, whole), expected.image, rtol=0, atol=1e-5 * span)
    found, wanted = case.entry.table.drawn[case.read(TARGET, whole)], expected.label_sets[expected.codes]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("has_levels", [True, False], ids=["labels with levels", "labels without"])
def test_a_level_of_the_wanted_voxel_size_is_read_instead_of_resampling(tmp_path, make_plan, has_levels):
    image, labels = write_volume(tmp_path)
    fine = Geometry(spacing=(2.0, 1.0, 1.0))
    for name, array, reduction, n_levels in (
        ("volume", image[0], "mean", 3), ("labels", labels, "nearest", 3 if has_levels else 1),
    ):  # fmt: skip
        writer = create_zarr(
            tmp_path / f"{name}.zarr", (1, *SHAPE), "uint8", fine, chunk=(8, 16, 16), shard=(16, 64, 64),
            levels=n_levels, reduction=reduction,
        )  # fmt: skip
        for box in writer.pending():
            writer.write(box, array[None][(slice(None), *box.slices)])
        writer.finish()
    part = VolumePart((str(tmp_path / "volume.zarr"),), None, str(tmp_path / "labels.zarr"))
    files = CaseFiles("a", part.image_paths, part.label_path, volume=part)
    work = job(tmp_path, make_plan(spacing=(2.0, 2.01, 1.99)), files)  # within 1 % of the second level
    write_volume_case(work)
    case = open_store(work.folder, "a")
    assert not (work.folder / "a.image.zarr").exists()
    assert case.entry.record.spacing == case.entry.record.spacing_before == (2.0, 2.0, 2.0)
    level = open_array(tmp_path / "volume.zarr:1")
    whole = Box.whole(level.spatial_shape)
    assert case.entry.record.shape == level.spatial_shape
    values, finest = level.read(whole).astype(np.float64), image[0].astype(np.float64)
    np.testing.assert_allclose(case.read(IMAGE, whole), (values - finest.mean()) / finest.std(), atol=1e-4)
    target = encode_target(labels, LABELS, "a")
    unions = LabelSetUnions(target.label_sets)
    expected = resample_codes(target.codes, level.spatial_shape, unknown=target.undrawn, unions=unions)
    if has_levels:
        expected = encode_target(open_array(tmp_path / "labels.zarr:1").read(whole)[0], LABELS, "a").codes
    np.testing.assert_array_equal(case.entry.table.drawn[case.read(TARGET, whole)], unions.label_sets[expected])


def test_counts_and_locations_are_those_of_the_map(tmp_path, make_plan):
    write_volume(tmp_path)
    work = job(tmp_path, make_plan(), files_of(tmp_path))
    write_volume_case(work)
    case = open_store(work.folder, "a")
    codes = case.read(TARGET, Box.whole(SHAPE))
    expected = find_locations(codes, case.entry.table.drawn)
    assert case.entry.code_counts == expected.counts
    assert case.entry.locations.keys() == expected.slices.keys()
    for code, (start, stop) in expected.slices.items():
        np.testing.assert_array_equal(case.locations_of(code), expected.indices[start:stop])


def test_a_killed_run_goes_on_and_a_changed_one_begins_anew(tmp_path, make_plan, monkeypatch):
    monkeypatch.setattr(volume_case, "LEAST_EDGE", 32)
    write_volume(tmp_path, spacing=(2.0, 1.5, 0.7))
    work = job(tmp_path, make_plan(), files_of(tmp_path))
    write_volume_case(work)
    whole = Box.whole(open_store(work.folder, "a").entry.record.shape)
    before = [open_store(work.folder, "a").read(layer, whole) for layer in (IMAGE, TARGET)]
    remove_cases(work.folder, ["a"])
    written = []
    write = ZarrWriter.write

    def stops(writer, box, values, level=0):
        if len(written) in (1, 9):
            written.append(None)
            raise KeyboardInterrupt
        write(writer, box, values, level)
        written.append(box)

    monkeypatch.setattr(ZarrWriter, "write", stops)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            write_volume_case(work)
        assert read_entry(work.folder, "a") is None
    write_volume_case(work)
    n_shards = len([box for box in written if box is not None])
    after = [open_store(work.folder, "a").read(layer, whole) for layer in (IMAGE, TARGET)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert n_shards == len(list((work.folder / "a.image.zarr").glob("0/.done/*"))) * 2, "no shard is written twice"
    write_volume_case(replace(work, fingerprint="version:2"))
    assert len([box for box in written if box is not None]) == 2 * n_shards, "all anew"


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (2.0, 1.5, 0.7)], ids=["as it lies", "resampled"])
def test_voxels_that_are_not_finite_are_named_before_anything_follows_from_them(tmp_path, make_plan, spacing):
    image, _ = write_volume(tmp_path, spacing=spacing, n_channels=2)
    image = image.astype(np.float32)
    image[1, 9, 20:22, 30] = np.nan
    np.save(tmp_path / "volume.npy", image)
    plan = make_plan(normalization=("zscore",) * 2, spacing=(2.0, 1.0, 1.0)).model_copy(update={"crop": False})
    work = job(tmp_path, plan, files_of(tmp_path))
    named = r"volume\.npy\[9:10, 20:22, 30:31\] \(z, y, x\), channel 1: found 2 values that are NaN or infinite"
    if spacing == (2.0, 1.0, 1.0):
        write_volume_case(work)
        with pytest.raises(CacheError, match=f"case a: .*{named}"):
            open_store(work.folder, "a").read(IMAGE, Box((8, 16, 16), (12, 32, 32)))
        return
    with pytest.raises(FileFormatError, match=named):
        write_volume_case(work)
    assert not list((work.folder / "a.image.zarr" / "0").glob("c/**/*"))


def test_a_store_is_sent_by_its_place(tmp_path, make_plan):
    write_volume(tmp_path)
    work = job(tmp_path, make_plan(), files_of(tmp_path))
    write_volume_case(work)
    case = open_store(work.folder, "a")
    message = pickle.dumps(case)
    assert len(message) < 4000
    box = Box((3, 4, 5), (9, 14, 25))
    there = pickle.loads(message)  # noqa: S301
    np.testing.assert_array_equal(there.read(IMAGE, box), case.read(IMAGE, box))


def test_removing_a_case_leaves_those_with_longer_names(tmp_path, make_plan):
    write_volume(tmp_path)
    work = job(tmp_path, make_plan(), files_of(tmp_path))
    write_volume_case(work)
    longer = replace(work, files=replace(work.files, name="a.b"))
    write_volume_case(longer)
    remove_cases(work.folder, ["a"])
    assert read_entry(work.folder, "a") is None
    assert read_entry(work.folder, "a.b") is not None
    assert not [path for path in work.folder.iterdir() if path.name.startswith("a.target")]
