"""Volumes written shard by shard: whole shards, marks, pyramids, kills, several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaozarrs

from autoseg.core.boxes import Box
from autoseg.core.errors import FileFormatError, StorageError
from autoseg.core.geometry import Geometry
from autoseg.io.arrays import levels, open_array
from autoseg.io.downsampling import downsampled
from autoseg.io.file_contents import assumed_geometry
from autoseg.io.zarr_writer import check_written, create_zarr

GEOMETRY = Geometry(spacing=(4e-5, 4e-6, 4e-6), origin=(1, 2, 3))
SIZES = {"chunk": (2, 8, 8), "shard": (4, 16, 16)}
LABELS = np.random.default_rng(0).integers(0, 4, (1, 10, 37, 45), dtype=np.uint8)
IMAGE = np.random.default_rng(1).normal(size=(2, 10, 37, 45)).astype(np.float32)


def part(array, box):
    return array[(slice(None), *box.slices)]


def writer(path, array=LABELS, **options):
    given = {"levels": 3, "reduction": "majority"} | SIZES | options
    return create_zarr(path, array.shape, array.dtype, GEOMETRY, **given)


def fill(volume, array):
    for box in volume.pending():
        volume.write(box, part(array, box))


@pytest.mark.parametrize(
    ("array", "options"),
    [(LABELS, {}), (IMAGE, {"names": ("a", "b"), "reduction": "mean"}), (LABELS, {"reduction": "nearest"})],
    ids=["labels", "image", "nearest"],
)
def test_every_level_is_that_of_the_whole_array(tmp_path, array, options):
    volume = writer(tmp_path / "a.zarr", array, **options)
    fill(volume, array)
    volume.finish()
    assert [volume.pending(level) for level in range(3)] == [[], [], []]
    expected, spacing = array, np.array(GEOMETRY.spacing)
    for (location, geometry), level in zip(levels(tmp_path / "a.zarr"), volume.levels, strict=True):
        expected = downsampled(expected, level.factors, volume.reduction)
        spacing = spacing * level.factors
        found = open_array(location)
        assert np.array_equal(found.read(Box.whole(found.spatial_shape)), expected)
        assert found.dtype == array.dtype
        assert geometry.spacing == pytest.approx(tuple(spacing))
    assert open_array(tmp_path / "a.zarr").geometry.origin == pytest.approx(GEOMETRY.origin)


def test_the_centre_of_a_coarse_voxel_is_that_of_its_cell(tmp_path):
    writer(tmp_path / "a.zarr")
    origin = levels(tmp_path / "a.zarr")[1][1].origin
    assert origin == pytest.approx((1 + 2e-6, 2 + 2e-6, 3))


@pytest.mark.parametrize("reduction", ["mean", "majority"])
def test_the_result_is_valid_ome_zarr(tmp_path, reduction):
    volume = writer(tmp_path / "a.zarr", reduction=reduction)
    fill(volume, LABELS)
    volume.finish()
    group = yaozarrs.validate_ome_json((tmp_path / "a.zarr/zarr.json").read_text())
    assert isinstance(group.attributes.ome, yaozarrs.v05.LabelImage) == (reduction == "majority")
    yaozarrs.validate_zarr_store(str(tmp_path / "a.zarr"))
    metadata = json.loads((tmp_path / "a.zarr/0/zarr.json").read_text())
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [4, 16, 16]
    assert metadata["codecs"][0]["configuration"]["chunk_shape"] == [2, 8, 8]


def test_a_shard_is_one_file_with_all_channels(tmp_path):
    volume = writer(tmp_path / "a.zarr", IMAGE, names=("a", "b"), levels=1, reduction="mean")
    volume.write(Box((4, 16, 32), (8, 32, 45)), part(IMAGE, Box((4, 16, 32), (8, 32, 45))))
    files = [path for path in (tmp_path / "a.zarr/0/c").rglob("*") if path.is_file()]
    assert [path.relative_to(tmp_path / "a.zarr/0/c").as_posix() for path in files] == ["0/1/1/2"]


def test_a_2d_volume_has_no_axis_of_slices(tmp_path):
    plane = LABELS[:, :1]
    flat = assumed_geometry(2)
    volume = create_zarr(
        tmp_path / "a.zarr", plane.shape, plane.dtype, flat, chunk=(1, 8, 8), shard=(1, 16, 16), levels=2
    )
    fill(volume, plane)
    volume.finish()
    found = open_array(tmp_path / "a.zarr")
    assert json.loads((tmp_path / "a.zarr/0/zarr.json").read_text())["dimension_names"] == ["y", "x"]
    assert found.geometry == flat
    assert np.array_equal(found.read(Box.whole(found.spatial_shape)), plane)


def test_a_2d_volume_of_several_channels_has_them_first(tmp_path):
    image = IMAGE[:, :1]
    options = {"chunk": (1, 8, 8), "shard": (1, 16, 16), "levels": 2, "names": ("a", "b")}
    volume = create_zarr(tmp_path / "a.zarr", image.shape, image.dtype, assumed_geometry(2), **options)
    fill(volume, image)
    volume.finish()
    found = open_array(tmp_path / "a.zarr")
    assert json.loads((tmp_path / "a.zarr/0/zarr.json").read_text())["dimension_names"] == ["c", "y", "x"]
    assert np.array_equal(found.read(Box.whole(found.spatial_shape)), image)


@pytest.mark.parametrize(
    "box",
    [Box((0, 0, 0), (4, 16, 15)), Box((0, 0, 8), (4, 16, 24)), Box((0, 0, 0), (8, 16, 16)), Box((8, 0, 0), (8, 0, 0))],
    ids=str,
)
def test_part_of_a_shard_or_several_are_refused(tmp_path, box):
    volume = writer(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="expected one whole shard"):
        volume.write(box, np.zeros((1, *box.shape), dtype=np.uint8))
    assert len(volume.pending()) == 27


def test_values_of_another_shape_or_type_are_refused(tmp_path):
    volume = writer(tmp_path / "a.zarr")
    box = volume.pending()[0]
    for values in (np.zeros((1, 4, 16, 15), dtype=np.uint8), np.zeros((1, *box.shape), dtype=np.int64)):
        with pytest.raises(ValueError, match=r"expected .* uint8"):
            volume.write(box, values)


def test_what_is_done_is_known_to_whoever_opens_the_volume_next(tmp_path):
    first = writer(tmp_path / "a.zarr")
    boxes = first.pending()
    for box in boxes[:5]:
        first.write(box, np.zeros((1, *box.shape), dtype=np.uint8))  # a shard of zeros has no file, but a mark
    assert writer(tmp_path / "a.zarr").pending() == boxes[5:]


def test_a_level_waits_for_the_finer_one(tmp_path):
    volume = writer(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="27 shards are not done"):
        volume.finish()
    for box in volume.pending()[:-1]:
        volume.write(box, part(LABELS, box))
    volume.reduce(volume.pending(1)[0], 1)
    with pytest.raises(ValueError, match="level 0 is not done"):
        volume.reduce(volume.pending(1)[-1], 1)


def test_a_deleted_volume_has_nothing_done(tmp_path):
    volume = writer(tmp_path / "a.zarr")
    fill(volume, LABELS)
    shutil.rmtree(tmp_path / "a.zarr")
    assert len(writer(tmp_path / "a.zarr").pending()) == 27


@pytest.mark.parametrize("options", [{"levels": 2}, {"reduction": "nearest"}, {"chunk": (2, 8, 16)}, {"names": ("a",)}])
def test_another_volume_is_never_overwritten(tmp_path, options):
    fill(writer(tmp_path / "a.zarr"), LABELS)
    with pytest.raises(FileFormatError, match="Choose another output, or delete"):
        writer(tmp_path / "a.zarr", **options)
    assert writer(tmp_path / "a.zarr").pending() == []


def test_a_folder_of_something_else_is_not_written_to(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileFormatError, match="a folder with other files"):
        writer(tmp_path)
    with pytest.raises(FileFormatError, match="found a file"):
        writer(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (4, 16, 20)}, "multiple of the chunk"),
        ({"levels": 0}, "1 or more"),
        ({"names": ("a", "b")}, "names of channels, expected 1"),
        ({"chunk": (0, 8, 8)}, "multiple of the chunk"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        writer(tmp_path / "a.zarr", **options)
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are those of POSIX")
def test_a_full_disk_is_an_error_of_storage_and_marks_nothing(tmp_path):
    import resource

    noise = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 64), dtype=np.uint8)
    volume = create_zarr(tmp_path / "a.zarr", noise.shape, "uint8", GEOMETRY, chunk=(64,) * 3, shard=(64,) * 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"a\.zarr: cannot be written: File too large"):
            volume.write(Box.whole((64, 64, 64)), noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(volume.pending()) == 1
    volume.write(Box.whole((64, 64, 64)), noise)
    assert np.array_equal(volume.open().read(Box.whole((64, 64, 64))), noise)


WORKER = """
import sys
from pathlib import Path
import numpy as np
from autoseg.core.geometry import Geometry
from autoseg.io.zarr_writer import check_written, create_zarr

part, parts = int(sys.argv[2]), int(sys.argv[3])
volume = create_zarr(
    Path(sys.argv[1]), (1, 32, 256, 256), np.dtype("uint16"), Geometry(spacing=(1, 1, 1)),
    chunk=(16, 32, 32), shard=(16, 64, 64), levels=2, reduction="nearest",
)
print("ready", flush=True)
for box in volume.pending()[part::parts]:
    z, y, x = np.ogrid[tuple(slice(a, b) for a, b in zip(box.start, box.stop))]
    volume.write(box, ((z * 7919 + y * 104729 + x * 1299709) % 65521).astype(np.uint16)[None])
if parts == 1:
    volume.finish()
"""


def start(path, part=0, parts=1):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(path), str(part), str(parts)], stdout=subprocess.PIPE)


def formula(box):
    z, y, x = np.ogrid[box.slices]
    return ((z * 7919 + y * 104729 + x * 1299709) % 65521).astype(np.uint16)[None]


def opened(path):
    return create_zarr(
        path, (1, 32, 256, 256), np.dtype("uint16"), Geometry(spacing=(1, 1, 1)),
        chunk=(16, 32, 32), shard=(16, 64, 64), levels=2, reduction="nearest",
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_no_shard_that_is_taken_for_done_and_is_resumed(tmp_path):
    path = tmp_path / "a.zarr"
    for round_, wanted in enumerate((1, 9)):
        process = start(path)
        assert process.stdout.readline() == b"ready\n"
        while len(list(path.glob("0/.done/[0-9]*"))) < wanted:
            time.sleep(0.0005)
        time.sleep(0.0007 * round_)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        volume = opened(path)
        pending = volume.pending()
        found = volume.open()
        for box in volume.shards():
            if box not in pending:
                assert np.array_equal(found.read(box), formula(box))
        assert len(pending) < 32
    for box in volume.pending():
        volume.write(box, formula(box))
    volume.finish()
    whole = Box.whole((32, 256, 256))
    assert np.array_equal(volume.open().read(whole), formula(whole))
    assert np.array_equal(volume.open(1).read(Box.whole((16, 128, 128))), formula(whole)[:, ::2, ::2, ::2])


def test_processes_write_parts_of_one_volume_without_knowing_of_each_other(tmp_path):
    path = tmp_path / "a.zarr"
    processes = [start(path, part, 2) for part in range(2)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    volume = opened(path)
    for box in volume.pending():  # a part is of what was pending when its process began
        volume.write(box, formula(box))
    whole = Box.whole((32, 256, 256))
    assert np.array_equal(volume.open().read(whole), formula(whole))


def test_a_volume_that_is_not_finished_is_told_from_others(tmp_path):
    volume = writer(tmp_path / "a.zarr")
    with pytest.raises(FileFormatError, match=r"a.zarr: found a volume of which 0 of 27 shards are written"):
        check_written(tmp_path / "a.zarr")
    fill(volume, LABELS)
    check_written(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/0/.done/1.1.1").unlink()
    with pytest.raises(FileFormatError, match=r"26 of 27 shards .* Go on with the command that writes it"):
        check_written(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr/0/.done")  # as if others had written it
    check_written(tmp_path / "a.zarr")
    check_written(tmp_path / "nowhere")
