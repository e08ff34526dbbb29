"""Layers: their names are safe, their number of channels follows from the configuration, and the cache keeps them."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_models import make_plan

from autoseg.cases.cache import open_case, read_entry, remove_cases, write_case
from autoseg.cases.case import CaseRecord
from autoseg.cases.entry import CacheEntry
from autoseg.cases.layers import Kind, LayerInfo, class_indices, classes_layer, further_inputs, input_channels
from autoseg.cases.store import ArrayStore
from autoseg.core.boxes import Box
from autoseg.core.errors import CacheError
from autoseg.core.geometry import Geometry
from autoseg.dataset.labels import Head, Labels

SHAPE = (2, 3, 4)
CELLS = LayerInfo(name="cells", kind=Kind.INSTANCES, dtype="uint32")
DEPTH = LayerInfo(name="depth", kind=Kind.INTENSITY, dtype="float32", channels=2)


def make_labels(values=(0, 1, 5)):
    heads = tuple(Head(f"c{k}", (k,), (value,), is_background=k == 0) for k, value in enumerate(values))
    return Labels(values, ("background", "liver", "tumour"), heads, ignore=9)


def entry_with(*layers):
    record = CaseRecord(
        case="a", geometry=Geometry(spacing=(3, 2, 1)), transpose=(0, 1, 2), shape_before_crop=SHAPE,
        crop_low=(0, 0, 0), crop_high=SHAPE, spacing_before=(3, 2, 1), spacing=(3, 2, 1), shape=SHAPE,
    )  # fmt: skip
    return CacheEntry(
        record=record, label_sets=[[0], [1], [0, 1]], undrawn=2, n_classes=2, locations={}, code_counts={2: 24},
        fingerprint="abc", layers=layers,
    )  # fmt: skip


def arrays():
    cells = np.arange(24, dtype=np.uint32).reshape(SHAPE)
    return {"cells": cells, "depth": np.stack([cells, cells + 1]).astype(np.float32)}


def write(folder, layers, *infos):
    write_case(
        folder, "a", image=np.zeros((1, *SHAPE), np.float32), codes=np.full(SHAPE, 2, np.uint8),
        locations=np.zeros(0, np.int32), entry=entry_with(*infos), layers=layers,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["image", "target", "locations", "", "Cells", "a.b", "../a", "a b"])
def test_a_layer_is_not_called_like_another_file(name):
    with pytest.raises(ValidationError):
        LayerInfo(name=name, kind=Kind.INSTANCES, dtype="uint32")


def test_further_layers_come_back_box_by_box(tmp_path):
    write(tmp_path, arrays(), CELLS, DEPTH)
    case = open_case(tmp_path, "a")
    box = Box((0, 1, 2), (1, 3, 4))
    assert case.entry.layers == (CELLS, DEPTH)
    assert np.array_equal(case.read("cells", box), arrays()["cells"][box.slices])
    assert np.array_equal(case.read("depth", box), arrays()["depth"][(slice(None), *box.slices)])
    in_memory = ArrayStore(case.image, case.codes, case.locations, case.entry, arrays())
    assert np.array_equal(in_memory.read("depth", box), case.read("depth", box))


def test_a_layer_that_is_not_there_is_named(tmp_path):
    write(tmp_path, arrays(), CELLS, DEPTH)
    with pytest.raises(CacheError, match=r"'previous'.*image, target, cells, depth"):
        open_case(tmp_path, "a").read("previous", Box.whole((1, 1, 1)))


def test_a_case_without_a_file_of_its_layers_is_no_case(tmp_path):
    write(tmp_path, arrays(), CELLS, DEPTH)
    (tmp_path / "a.cells.npy").unlink()
    assert read_entry(tmp_path, "a") is None


def test_removing_a_case_removes_its_layers_and_nothing_of_others(tmp_path):
    write(tmp_path, arrays(), CELLS, DEPTH)
    (tmp_path / "a.cells.image.npy").touch()  # of a case that is called a.cells
    remove_cases(tmp_path, ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.cells.image.npy"]


@pytest.mark.parametrize("change", ["missing", "type", "shape"])
def test_layers_that_do_not_belong_to_the_entry_are_not_written(tmp_path, change):
    layers = arrays()
    if change == "missing":
        del layers["cells"]
    elif change == "type":
        layers["cells"] = layers["cells"].astype(np.uint8)
    else:
        layers["cells"] = layers["cells"][:1]
    with pytest.raises(ValueError, match="cells"):
        write(tmp_path, layers, CELLS, DEPTH)
    assert not list(tmp_path.iterdir())


def test_a_record_without_layers_is_still_read():
    content = entry_with().model_dump()
    del content["layers"]
    assert CacheEntry.model_validate(content) == entry_with()


def test_the_channels_of_a_network_follow_from_the_configuration():
    plan, labels = make_plan(), make_labels()
    alone = plan.configuration("3d_fullres")
    cascade = alone.model_copy(update={"previous_stage": "3d_lowres"})
    assert further_inputs(alone, 3) == ()
    assert input_channels(plan, alone, labels) == ("channel0",)
    assert [info.channels for info in further_inputs(cascade, 3)] == [2]
    assert input_channels(plan, cascade, labels) == ("channel0", "previous liver", "previous tumour")


def test_file_values_become_class_indices():
    values = np.array([[0, 5], [1, 0]])
    classes = class_indices(values, make_labels())
    assert classes.tolist() == [[0, 2], [1, 0]]
    assert classes.dtype.name == classes_layer("previous", 3).dtype == "uint8"
    assert class_indices(np.zeros((0, 2), np.uint8), make_labels()).shape == (0, 2)
    with pytest.raises(ValueError, match=r"\[9\].*\[0, 1, 5\]"):
        class_indices(np.array([0, 9]), make_labels())
