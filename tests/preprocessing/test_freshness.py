"""A file is told from a changed one by its stamp."""

from __future__ import annotations

import json
import os
import time
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path

from autoseg.dataset.protocol import AnnotationProtocol
from autoseg.preprocessing.freshness import annotation_stamp, file_stamp, protocol_part


def test_a_corrected_sidecar_changes_the_stamp_of_its_stack(tmp_path):
    stack = tmp_path / "case_0000.tif"
    stack.write_bytes(b"pixels")
    bare = file_stamp(stack)
    for name in ("case.json", "case_0000.json"):
        before = file_stamp(stack)
        (tmp_path / name).write_text('{"spacing": [3, 1, 1]}')
        assert file_stamp(stack) != before
    (tmp_path / "case.json").unlink()
    (tmp_path / "case_0000.json").unlink()
    assert file_stamp(stack) == bare


def test_changed_data_change_the_stamp_of_their_header(tmp_path):
    header = tmp_path / "case_0000.mhd"
    header.write_text("NDims = 3\nElementDataFile = case_0000.zraw\n")
    bare = file_stamp(header)
    (tmp_path / "case_0000.zraw").write_bytes(b"voxels")
    before = file_stamp(header)
    assert before != bare
    (tmp_path / "case_0000.zraw").write_bytes(b"other voxels")
    assert file_stamp(header) != before


def test_files_of_equal_name_size_and_time_differ_by_their_folder(tmp_path):
    stamps = []
    for folder in ("mine", "yours"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "case.nii"
        file.write_bytes(b"voxels")
        os.utime(file, (1, 1))
        stamps.append(file_stamp(file))
    assert stamps[0] != stamps[1]


def test_a_data_set_that_moved_keeps_its_stamps(tmp_path):
    (tmp_path / "here" / "labelsTr").mkdir(parents=True)
    file = tmp_path / "here" / "labelsTr" / "case.nii"
    file.write_bytes(b"voxels")
    before = file_stamp(file)
    (tmp_path / "here").rename(tmp_path / "there")
    assert file_stamp(tmp_path / "there" / "labelsTr" / "case.nii") == before
    assert file_stamp(file) != before  # it is not there any more


def test_every_promise_that_the_cache_depends_on_makes_cached_cases_stale():
    """``instances_touched`` is applied in training, so the cache does not depend on it."""
    protocol = AnnotationProtocol("slice", 20.0, background_encloses=True, gap_mm=1.0, slice_axis=0)
    others = {"classes_complete_in": "case", "reach_mm": 30.0, "background_encloses": False, "gap_mm": 2.0}
    others |= {"slice_axis": 1, "instances_touched": True}
    assert {field.name for field in fields(protocol)} == others.keys()
    for name, value in others.items():
        is_same = protocol_part(replace(protocol, **{name: value}), 3) == protocol_part(protocol, 3)
        assert is_same == (name == "instances_touched"), name
    assert protocol_part(AnnotationProtocol(instances_touched=True), 3) is None


def test_the_stamp_of_a_volume_changes_with_array_box_metadata_and_voxel_size(tmp_path):
    file = tmp_path / "cubes.h5"
    file.write_bytes(b"cubes")
    inside = [f"{file}:raw", f"{file}:labels", f"{file}:raw[0:1, 0:2, 0:3]", f"{file}:raw[0:1, 0:2, 0:4]"]
    stamps = [file_stamp(Path(location)) for location in (str(file), *inside)]
    assert all(stamp != other for stamp, other in combinations(stamps, 2))
    (tmp_path / "cubes.json").write_text('{"spacing": [3, 1, 1]}')
    assert all(file_stamp(Path(location)) != stamp for location, stamp in zip(inside, stamps[1:], strict=True))


def test_the_stamp_of_a_zarr_group_sees_arrays_and_metadata_of_every_level_but_no_chunks(tmp_path):
    array = tmp_path / "volume.zarr" / "raw"
    (array / "c" / "0").mkdir(parents=True)
    (tmp_path / "volume.zarr" / "zarr.json").write_text('{"node_type": "group"}')
    (array / "zarr.json").write_text('{"node_type": "array"}')
    before = file_stamp(tmp_path / "volume.zarr")
    assert file_stamp(tmp_path / "volume.zarr") == before
    (array / "c" / "0" / "0").write_bytes(b"chunk")
    assert file_stamp(tmp_path / "volume.zarr") == before
    (array / "zarr.json").write_text('{"node_type": "array", "shape": [1]}')
    assert file_stamp(tmp_path / "volume.zarr") != before


def test_a_chunk_of_labels_that_is_rewritten_in_place_changes_their_stamp(tmp_path):
    array = tmp_path / "volume.zarr" / "labels" / "cells"
    for path in (tmp_path / "volume.zarr" / "raw", array):
        (path / "c" / "0").mkdir(parents=True)
        (path / "zarr.json").write_text('{"node_type": "array"}')
        (path / "c" / "0" / "0").write_bytes(b"chunk")
    for path in (tmp_path / "volume.zarr", array.parent):
        (path / "zarr.json").write_text('{"node_type": "group"}')
    location = Path(f"{tmp_path / 'volume.zarr'}:labels/cells[0:1, 0:2, 0:3]")
    before = annotation_stamp(location)
    assert annotation_stamp(location) == before
    time.sleep(0.1)  # a stamp is used again for ten times as long as it took
    (tmp_path / "volume.zarr" / "raw" / "c" / "0" / "0").write_bytes(b"image")
    assert annotation_stamp(location) == before
    (array / "c" / "0" / "0").write_bytes(b"CHUNK")
    time.sleep(0.1)
    assert annotation_stamp(location) != before


def test_the_stamp_of_tiles_sees_added_tiles_and_of_labels_each_tile(tmp_path):
    content = {"image": ["s/{row}_{column}.png"], "depth": 1, "height": 8, "width": 8, "tile_size": 4}
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0_0.png").write_bytes(b"tile")
    image, labels = file_stamp(path), annotation_stamp(path)
    time.sleep(0.1)
    (tmp_path / "s" / "0_0.png").write_bytes(b"TILE")
    assert file_stamp(path) == image
    assert annotation_stamp(path) != labels
    (tmp_path / "s" / "0_1.png").write_bytes(b"tile")
    assert file_stamp(path) != image


def test_the_stamp_of_a_folder_of_sections_sees_each_picture(tmp_path):
    (tmp_path / "s1.png").write_bytes(b"section")
    before = file_stamp(tmp_path)
    (tmp_path / "s1.png").write_bytes(b"another section")
    assert file_stamp(tmp_path) != before
